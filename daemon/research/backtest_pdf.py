"""One backtest as a PDF: the verdict, the figures and the account on the first sheet, what they rest on after it.

Charts are vectors. Long tables are cut and say so: a backtest of thousands of trades is some sheets, not thousands.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from daemon.research import backtest_figures as figures
from daemon.research import validation_words as words
from daemon.research.backtest_charts import account_of
from daemon.research.plotly_page import signed
from daemon.research.report_words import gain
from daemon.research.validation_charts import fan, logits, stitched

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from daemon.research.backtest_result import BacktestResult
    from daemon.research.pdf_page import Sheet
    from daemon.research.validation_result import MonteCarloResult, Overfitting, Verdict, WalkForward

LISTED_FOLDS: Final = 40
LISTED_TRADES: Final = 15
LISTED_SERIES: Final = 40
LISTED_ROWS: Final = 40
LISTED_YEARS: Final = 40
LISTED_CHECKS: Final = 20

_MS_PER_SECOND: Final = 1_000
_FAINT: Final = (190, 194, 199)
_PALE: Final = (221, 231, 243)
_PALER: Final = (238, 243, 249)
_BELOW_TINT: Final = (247, 222, 204)
_CARDS: Final = 4
_FIGURES_MM: Final = 13.0


def report_pdf(result: BacktestResult, equity: Mapping[str, NDArray[Any]], *, labels: Iterable[str] = ()) -> bytes:
    """Render a backtest as a PDF; the same input gives the same bytes.

    equity, labels: as of `backtest_report.report_html`. Letters that the fonts lack are shown as an inverted question
    mark, for no font comes with the program.
    """
    from daemon.research.pdf_page import Sheet

    made_ms = result.execution.completed_at or result.execution.started_at
    over = f"{_short_name(result)} \N{MIDDLE DOT} backtest {result.id} \N{MIDDLE DOT} {result.fingerprint}"
    sheet = Sheet(result.name, over, datetime.fromtimestamp(made_ms // _MS_PER_SECOND, UTC))
    _front(sheet, result, equity, labels)
    _validation(sheet, result)
    _money(sheet, result)
    _grounds(sheet, result)
    return bytes(sheet.output())


def _short_name(result: BacktestResult) -> str:
    """Shorten a name so that the line over a sheet still shows which backtest it is."""
    most = 40
    return result.name if len(result.name) <= most else f"{result.name[:most]}\N{HORIZONTAL ELLIPSIS}"


# The first sheet.


def _front(sheet: Sheet, result: BacktestResult, equity: Mapping[str, NDArray[Any]], labels: Iterable[str]) -> None:
    from daemon.research.pdf_page import LOSS, SOFT

    sheet.paragraph(result.name, points=16, style="B", lines=3)
    sheet.space(1.5)
    if result.verdict is not None:
        _verdict(sheet, result.verdict)
    for label in list(labels)[:LISTED_ROWS]:
        sheet.paragraph(f"! {label}", style="B", rgb=LOSS, lines=2)
    for each in figures.identity(result, equity):
        sheet.paragraph(each, points=8, rgb=SOFT, lines=4)
    if alarm := figures.alarm_words(result):
        sheet.paragraph(alarm, style="B", rgb=LOSS)
    _figures(sheet, result)
    _equity(sheet, account_of(result, equity))


def _verdict(sheet: Sheet, verdict: Verdict) -> None:
    sheet.banner(verdict.verdict, f"{words.SIGNS[verdict.verdict]} Verdict: {verdict.verdict}")
    sheet.listing("Why", verdict.reasons, 5)
    sheet.listing("What would change it", verdict.would_change, 5)
    sheet.listing("What it takes for granted", verdict.assumptions, 8)
    sheet.space(1.5)
    sheet.pairs(words.verdict_figures(verdict))
    sheet.space(3)


def _figures(sheet: Sheet, result: BacktestResult) -> None:
    from daemon.research.pdf_page import INK, MARGIN, SOFT, WIDTH, latin

    sheet.space(2)
    cards = list(figures.main_figures(result))
    for at in range(0, len(cards), _CARDS):
        sheet.room(_FIGURES_MM)
        top = sheet.get_y()
        for place, card in enumerate(cards[at : at + _CARDS]):
            left = MARGIN + place * WIDTH / _CARDS
            for down, height, text, points, style, rgb in (
                (0.0, 3.5, card.heading, 7.5, "", SOFT),
                (3.5, 5.0, card.value, 11.0, "B", INK),
                (8.5, 3.5, card.words, 6.0, "", SOFT),
            ):
                sheet.set_font("Helvetica", style, points)
                sheet.set_text_color(*rgb)
                sheet.set_xy(left, top + down)
                sheet.cell(WIDTH / _CARDS, height, latin(text, 48))
        sheet.set_xy(MARGIN, top + _FIGURES_MM)


def _equity(sheet: Sheet, account: Mapping[str, list[Any]]) -> None:
    if not account["time"]:
        return
    from daemon.research.pdf_page import ACCENT, LOSS, SOFT
    from daemon.research.pdf_plot import Plot, reach

    time, value, held = account["time"], account["equity"], account.get("held")
    beside = ", beside buying and holding (grey)" if held else ""
    sheet.heading(f"Equity and drawdown{beside}", below_mm=72)
    plot = Plot(sheet, reach(time), reach(value, held or []), height_mm=48, kind="time")
    if held:
        plot.curve(time, held, SOFT, 0.2)
    plot.curve(time, value, ACCENT)
    fallen = [-each for each in account["drawdown"]]
    below = Plot(sheet, reach(time), (min(fallen), 0.0), height_mm=22, kind="time", unit=" %")
    below.area(time, [0.0] * len(time), fallen, _BELOW_TINT)
    below.curve(time, fallen, LOSS, 0.2)


# What the verdict rests on.


def _validation(sheet: Sheet, result: BacktestResult) -> None:
    if result.verdict is not None and result.verdict.checks:
        sheet.heading("What was checked")
        _table(sheet, words.CHECK_HEADINGS, words.check_rows(result.verdict), 5, LISTED_CHECKS)
    if result.walk_forward is not None:
        _walk_forward(sheet, result.walk_forward)
    if result.monte_carlo is not None:
        _monte_carlo(sheet, result.monte_carlo)
    if result.overfitting is not None:
        _overfitting(sheet, result.overfitting)
    if result.sensitivity:
        sheet.heading("Sensitivity")
        _table(sheet, words.SENSITIVITY_HEADINGS, words.sensitivity_rows(result.sensitivity), 1)
    if result.look_ahead is not None:
        sheet.heading("Look-ahead")
        sheet.paragraph(words.look_ahead_words(result.look_ahead))


def _walk_forward(sheet: Sheet, walk: WalkForward) -> None:
    from daemon.research.pdf_page import ACCENT, SOFT
    from daemon.research.pdf_plot import Plot, reach

    sheet.heading("Walk-forward")
    sheet.paragraph(words.walk_forward_words(walk), rgb=SOFT)
    if walk.note:
        sheet.paragraph(walk.note)
    if not walk.folds:
        return
    sheet.pairs(words.walk_forward_figures(walk))
    if walk.equity:
        drawn = stitched(walk)
        sheet.space(2)
        sheet.room(50)
        sheet.paragraph("Equity of the tests, one after the other", style="B")
        plot = Plot(sheet, reach(drawn["time"]), reach(drawn["equity"]), height_mm=42, kind="time")
        plot.curve(drawn["time"], drawn["equity"], ACCENT)
    sheet.space(2)
    if len(walk.folds) > LISTED_FOLDS:
        sheet.paragraph(f"The first {LISTED_FOLDS} of {len(walk.folds):,} folds; the result has all.", rgb=SOFT)
    _table(sheet, words.FOLD_HEADINGS, words.fold_rows(walk, LISTED_FOLDS), 4)
    if walk.parameter_stability:
        sheet.space(2)
        _table(sheet, words.STABILITY_HEADINGS, words.stability_rows(walk), 2)


def _monte_carlo(sheet: Sheet, simulated: MonteCarloResult) -> None:
    from daemon.research.pdf_page import ACCENT, SOFT
    from daemon.research.pdf_plot import Plot, reach

    sheet.heading("Monte Carlo", below_mm=80)
    sheet.paragraph(words.monte_carlo_words(simulated), rgb=SOFT)
    sheet.paragraph(f"Bootstrap: {words.monte_carlo_returns(simulated)}; {words.monte_carlo_chances(simulated)}.")
    if simulated.fan.trades:
        drawn = fan(simulated)
        at = drawn["trades"]
        sheet.space(1)
        sheet.paragraph(
            "Equity in multiples of the capital, by trades: 5 to 95 % and 25 to 75 % of the runs, the median, and some "
            "of the runs",
            points=8,
            rgb=SOFT,
        )
        values = reach(drawn["percentile5"], drawn["percentile95"], *drawn["paths"])
        plot = Plot(sheet, reach(at), values, height_mm=58, kind="number")
        plot.area(at, drawn["percentile5"], drawn["percentile95"], _PALER)
        plot.area(at, drawn["percentile25"], drawn["percentile75"], _PALE)
        for path in drawn["paths"]:
            plot.curve(at, path, _FAINT, 0.1)
        plot.curve(at, drawn["median"], ACCENT, 0.5)
    if simulated.methods:
        _table(sheet, words.METHOD_HEADINGS, words.method_rows(simulated), 1)
        for each in simulated.methods:
            sheet.paragraph(f"{each.method}: {each.words}", points=8, rgb=SOFT)


def _overfitting(sheet: Sheet, found: Overfitting) -> None:
    from daemon.research.pdf_page import GAIN, LOSS, SOFT
    from daemon.research.pdf_plot import Plot, reach

    sheet.heading("Overfitting")
    if found.note:
        sheet.paragraph(found.note)
    sheet.pairs(words.overfitting_figures(found))
    if not found.logit_counts:
        return
    drawn = logits(found)
    edges, counts = drawn["edges"], drawn["counts"]
    sheet.space(1)
    sheet.room(50)
    sheet.paragraph(
        "Splits by the logit of the rank out of sample of the best in sample; left of zero it was below the median",
        points=8,
        rgb=SOFT,
    )
    plot = Plot(sheet, reach(edges), (0.0, float(max(counts))), height_mm=40, kind="number")
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        plot.bar((low, high), count, LOSS if low + high <= 0 else GAIN)
    plot.upright(0.0)


# Money, grounds.


def _money(sheet: Sheet, result: BacktestResult) -> None:
    if band := figures.band_rows(result):
        sheet.heading("What bars do not tell")
        if result.band is not None:
            sheet.paragraph(result.band.advice)
        _table(sheet, figures.BAND_HEADINGS, band, 1)
    sheet.heading("Where the money went")
    costs = result.costs
    sheet.pairs(
        (
            ("Gross", gain(costs.gross_pnl)),
            ("Fees", gain(-costs.fees)),
            ("Slippage", gain(-costs.slippage)),
            ("Funding", gain(costs.funding)),
            ("Net", gain(costs.net_pnl)),
        )
    )
    sheet.pairs(figures.cost_figures(result))
    sheet.pairs(list(figures.flat(costs.model))[:LISTED_ROWS])
    if result.monthly_returns:
        sheet.heading("Monthly returns, percent")
        years = [
            (
                year.name,
                *("" if month not in year.months else signed(year.months[month], 1) for month in range(1, 13)),
                signed(year.whole, 1),
            )
            for year in figures.years_of(result)
        ]
        _table(sheet, ("", *figures.MONTHS, "Year"), years, 1, LISTED_YEARS)


def _grounds(sheet: Sheet, result: BacktestResult) -> None:
    sheet.heading("What it rests on")
    sheet.listing("Assumptions", result.assumptions)
    sheet.listing("How the configuration was read", result.readings)
    sheet.listing("Notes", result.notes)
    sheet.listing("Holes in the data", [figures.gaps_words(result)])
    if result.trades:
        sheet.heading("The largest trades")
        total = result.trade_stats.total_trades
        if total > LISTED_TRADES:
            sheet.paragraph(f"{LISTED_TRADES} of {total:,}, those with the largest gain or loss.", points=8)
        if counted := figures.counted_note(result):
            sheet.paragraph(counted, points=8)
        rows = map(figures.trade_cells, figures.largest_trades(result, LISTED_TRADES))
        _table(sheet, figures.TRADE_HEADINGS, rows, 8, points=6.5)
    sheet.heading("Data")
    _table(sheet, figures.DATA_HEADINGS, map(figures.series_cells, result.data), 7, LISTED_SERIES)
    sheet.paragraph(figures.execution_words(result), points=8)


def _table(
    sheet: Sheet,
    headings: tuple[str, ...],
    rows: Iterable[tuple[str, ...]],
    right_from: int,
    most: int = LISTED_ROWS,
    points: float = 7.5,
) -> None:
    """Write the first rows, and how many there are beyond them."""
    every = list(rows)
    sheet.tabulate(headings, every[:most], right_from=right_from, points=points)
    if len(every) > most:
        sheet.paragraph(f"and {len(every) - most:,} more: the result has all", points=8)
