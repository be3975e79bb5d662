"""The verdict and what it rests on as rows of text: the same words on a terminal, on the page and in the PDF.

Nothing is escaped or coloured here: whoever writes knows what its own format takes for more than text.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from daemon.research.plotly_page import DASH
from daemon.research.report_words import day, figure, percent, plain, share

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.research.validation_result import (
        LookAhead,
        MonteCarloMethod,
        MonteCarloResult,
        Overfitting,
        SensitivityRow,
        Standing,
        Verdict,
        WalkForward,
        Word,
    )

# Colours alone tell too little, to some nothing.
SIGNS: Final[dict[Word, str]] = {
    "robust": "\N{CHECK MARK}",
    "doubtful": "!",
    "overfitted": "\N{MULTIPLICATION SIGN}",
    "insufficient data": "?",
}
STANDING_SIGNS: Final[dict[Standing, str]] = {
    "pass": "\N{CHECK MARK}",
    "warn": "!",
    "fail": "\N{MULTIPLICATION SIGN}",
    "unknown": "?",
}

CHECK_HEADINGS: Final = ("", "Check", "Value", "Limit", "In words")
FOLD_HEADINGS: Final = (
    "", "Trained", "Tested", "Chosen", "Sharpe in", "Return in", "Trades in", "Sharpe out", "Return out", "Trades out",
    "As configured",
)  # fmt: skip
STABILITY_HEADINGS: Final = ("Parameter", "Chosen, fold by fold", "Most often", "In", "Stability")
METHOD_HEADINGS: Final = (
    "Method", "Return 5 %", "Median", "95 %", "Drawdown", "Drawdown 95 %", "Profit", "Ruin", "Doubled",
)  # fmt: skip
SENSITIVITY_HEADINGS: Final = ("Changed", "Return", "Sharpe", "Max drawdown", "Trades")

_LISTED_VALUES: Final = 12
_IDEA_LETTERS: Final = 12


# The verdict.


def verdict_figures(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """Give what the verdict was weighed with, name and value."""
    yield "Tries of this idea", f"{verdict.trials:,}, {verdict.tried_before:,} of them before this run"
    yield "Sharpe a year", plain(verdict.sharpe_ratio)
    yield "Best Sharpe of so many tries by chance alone", plain(verdict.chance_sharpe)
    yield "Chance that the Sharpe is above 0", share(verdict.probabilistic_sharpe)
    yield "Deflated Sharpe, the chance that it is above chance", share(verdict.deflated_sharpe)
    yield "Track record", f"{verdict.track_record_days:,} days; {_needed(verdict.min_track_record_days)}"
    yield "Years that so many tries need at least", plain(verdict.min_backtest_years, 1)
    yield "Idea", verdict.idea[:_IDEA_LETTERS]


def _needed(days: float | None) -> str:
    return "no number of them would prove it" if days is None else f"{days:,.0f} would prove a Sharpe above 0 at 95 %"


def tries_words(verdict: Verdict) -> str:
    """Say in a line what the number of tries leaves of the Sharpe."""
    tries = "1 try" if verdict.trials == 1 else f"{verdict.trials:,} tries"
    return (
        f"{tries} of this idea ({verdict.tried_before:,} before); Sharpe {plain(verdict.sharpe_ratio)}, by chance "
        f"{plain(verdict.chance_sharpe)}, deflated {share(verdict.deflated_sharpe)}"
    )


def check_rows(verdict: Verdict) -> Iterator[tuple[str, ...]]:
    """Write the checks under CHECK_HEADINGS, how each stands as a sign and a word."""
    for each in verdict.checks:
        standing = f"{STANDING_SIGNS[each.standing]} {each.standing}"
        yield standing, each.name, figure(each.value), figure(each.limit), each.words


# Walk-forward.


def walk_forward_words(walk: WalkForward) -> str:
    """Say how the folds were made."""
    sets = f"{walk.parameter_sets:,} parameter sets" if walk.parameter_sets != 1 else "1 parameter set"
    before = " and all before" if walk.mode == "anchored" else ""
    return (
        f"{walk.mode.capitalize()}: trained on {walk.window_days:,} days{before}, tested on the {walk.step_days:,} "
        f"after them; {sets}, chosen by {walk.target}."
    )


def walk_forward_figures(walk: WalkForward) -> Iterator[tuple[str, str]]:
    """Give what the tests came to together, name and value."""
    yield "Efficiency, annual return out of sample / in sample", plain(walk.efficiency_ratio)
    yield "Return out of sample", percent(walk.out_of_sample_return_percent)
    yield "As configured, over the same tests", percent(walk.configured_return_percent)
    yield "Sharpe out of sample", plain(walk.out_of_sample_sharpe)
    drawdown = walk.out_of_sample_max_drawdown_percent
    yield "Max drawdown out of sample", DASH if drawdown is None else f"{drawdown:.2f} %"
    yield "Out of sample", f"{walk.out_of_sample_days:,} days, {walk.out_of_sample_trades:,} trades"


def fold_rows(walk: WalkForward, most: int) -> Iterator[tuple[str, ...]]:
    """Write the first folds under FOLD_HEADINGS."""
    for fold in walk.folds[:most]:
        yield (
            str(fold.number),
            f"{day(fold.train_start)} to {day(fold.train_end)}",
            f"{day(fold.test_start)} to {day(fold.test_end)}",
            parameters_words(fold.parameters),
            plain(fold.in_sample_sharpe),
            percent(fold.in_sample_return_percent),
            f"{fold.in_sample_trades:,}",
            plain(fold.out_of_sample_sharpe),
            percent(fold.out_of_sample_return_percent),
            f"{fold.out_of_sample_trades:,}",
            percent(fold.configured_return_percent),
        )


def parameters_words(parameters: dict[str, float]) -> str:
    """Write `take_profit 0.02, rsi.length 14`."""
    return ", ".join(f"{name} {value:g}" for name, value in parameters.items()) or DASH


def stability_rows(walk: WalkForward) -> Iterator[tuple[str, ...]]:
    """Write the parameters under STABILITY_HEADINGS."""
    for each in walk.parameter_stability:
        values = ", ".join(f"{value:g}" for value in islice(each.values, _LISTED_VALUES))
        more = ", ..." if len(each.values) > _LISTED_VALUES else ""
        yield (
            each.name,
            values + more,
            f"{each.most_frequent:g}",
            f"{share(each.share, 0)} of folds",
            plain(each.stability),
        )


# Monte Carlo.


def monte_carlo_words(simulated: MonteCarloResult) -> str:
    """Say what was simulated how often."""
    return (
        f"{simulated.runs:,} runs of {simulated.trades:,} trades, seed {simulated.seed}, drawn in blocks of "
        f"{plain(simulated.block_length, 1)} trades on average; ruin is {figure(100 * (1 - simulated.ruin_level))} % "
        "of the capital lost at any time."
    )


def monte_carlo_returns(simulated: MonteCarloResult) -> str:
    """Say in a line where the runs of the bootstrap ended."""
    within = simulated.return_confidence_interval
    return (
        f"median {percent(100 * simulated.median_return)}, {figure(100 * within.confidence)} % of runs between "
        f"{percent(100 * within.lower)} and {percent(100 * within.upper)}"
    )


def monte_carlo_chances(simulated: MonteCarloResult) -> str:
    """Say in a line what the chances of the bootstrap are."""
    return (
        f"profit in {share(simulated.probability_of_profit)}, ruin in {share(simulated.probability_of_ruin)}, doubled "
        f"in {share(simulated.probability_of2x_return)}; drawdown {share(simulated.median_drawdown)} (median), "
        f"{share(simulated.percentile95_drawdown)} (95 %)"
    )


def method_rows(simulated: MonteCarloResult) -> Iterator[tuple[str, ...]]:
    """Write the methods under METHOD_HEADINGS."""
    return map(_method, simulated.methods)


def _method(each: MonteCarloMethod) -> tuple[str, ...]:
    return (
        each.method,
        percent(100 * each.percentile5),
        percent(100 * each.median_return),
        percent(100 * each.percentile95),
        share(each.median_drawdown),
        share(each.percentile95_drawdown),
        share(each.probability_of_profit),
        share(each.probability_of_ruin),
        share(each.probability_of2x_return),
    )


# Overfitting, sensitivity, look-ahead.


def overfitting_words(found: Overfitting) -> str:
    """Say in a line how often the best of the past was below the median of the future."""
    words = f"PBO {share(found.pbo)}"
    if found.pbo_lowest is not None and found.pbo_highest is not None:
        words += f" ({share(found.pbo_lowest)} to {share(found.pbo_highest)} on other cuts)"
    return f"{words}: {found.parameter_sets:,} parameter sets, {found.days:,} days, {found.splits:,} splits"


def overfitting_figures(found: Overfitting) -> Iterator[tuple[str, str]]:
    """Give what choosing the best was worth, name and value."""
    yield "PBO, chance that the best in sample is below the median out of sample", share(found.pbo)
    yield "PBO where the days are cut otherwise", f"{share(found.pbo_lowest)} to {share(found.pbo_highest)}"
    yield "Splits", f"{found.splits:,} of {found.blocks:,} blocks, {found.days:,} days, {found.parameter_sets:,} sets"
    yield "Slope, Sharpe out of sample over Sharpe in sample", plain(found.slope)
    yield "Chance that the best in sample loses out of sample", share(found.probability_of_loss)
    yield "Hansen's SPA, p that no set earns anything", plain(found.spa_p, 3)
    yield "White's reality check, p of the same", plain(found.reality_check_p, 3)


def sensitivity_rows(rows: list[SensitivityRow]) -> Iterator[tuple[str, ...]]:
    """Write the changed runs under SENSITIVITY_HEADINGS."""
    for each in rows:
        yield (
            each.label,
            percent(each.total_return_percent),
            plain(each.sharpe_ratio),
            f"{each.max_drawdown_percent:.2f} %",
            f"{each.total_trades:,}",
        )


def look_ahead_words(look: LookAhead) -> str:
    """Say whether the beginning of the data gave the beginning of the run."""
    return f"{'Checked' if look.is_checked else 'Not checked'}: {look.words}"
