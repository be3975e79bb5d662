"""The verdict and what it rests on, as `atlasd backtest` prints them; what was not asked for is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from daemon.app.cli.printing import bullets, facts_table, inset, plain_text, rows_table
from daemon.research import validation_words as words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.research.backtest_result import BacktestResult
    from daemon.research.validation_result import MonteCarloResult, Verdict, WalkForward, Word

LISTED_FOLDS: Final = 12

_STYLES: Final[dict[Word, str]] = {
    "robust": "bold green",
    "doubtful": "bold yellow",
    "overfitted": "bold red",
    "insufficient data": "bold cyan",
}
# Columns of a fold that fit a terminal: number, tested, chosen, Sharpe and return of both.
_FOLD_COLUMNS: Final = (0, 2, 3, 4, 5, 7, 8)


def verdict_parts(verdict: Verdict | None) -> list[Any]:
    """Make the block that a summary begins with; nothing without a verdict."""
    if verdict is None:
        return []
    style = _STYLES[verdict.verdict]
    reasons = Table.grid(padding=(0, 1, 0, 0))
    for number, each in enumerate(verdict.reasons, 1):
        reasons.add_row(f"{number}.", plain_text(each))
    facts = facts_table()
    facts.add_row("tries", plain_text(words.tries_words(verdict)))
    for name, sentences in (("granted", verdict.assumptions), ("would change it", verdict.would_change)):
        if sentences:
            facts.add_row(name, Text("\n").join(map(plain_text, sentences)))
    heading = Text.assemble("Verdict: ", (f"{words.SIGNS[verdict.verdict]} {verdict.verdict}", style))
    return [heading, inset(reasons), inset(facts), ""]


def validation_parts(result: BacktestResult) -> list[Any]:
    """Make what stands below the figures of a result."""
    return list(_validation(result))


def _validation(result: BacktestResult) -> Iterator[Any]:
    if result.walk_forward is not None:
        yield from _walk_forward(result.walk_forward)
    facts = facts_table()
    if result.monte_carlo is not None:
        facts.add_row("Monte Carlo", _simulated(result.monte_carlo))
    if result.overfitting is not None:
        note = f"; {result.overfitting.note}" if result.overfitting.note else ""
        facts.add_row("overfitting", plain_text(words.overfitting_words(result.overfitting) + note))
    if result.look_ahead is not None:
        facts.add_row("look-ahead", plain_text(words.look_ahead_words(result.look_ahead)))
    if facts.row_count:
        yield from ("", inset(facts))
    if result.sensitivity:
        yield from ("", Text("Sensitivity", style="bold"))
        yield inset(rows_table(words.SENSITIVITY_HEADINGS, words.sensitivity_rows(result.sensitivity), right_from=1))


def _walk_forward(walk: WalkForward) -> Iterator[Any]:
    yield from ("", Text("Walk-forward", style="bold"), inset(plain_text(words.walk_forward_words(walk))))
    if walk.note:
        yield inset(bullets([walk.note]))
    if not walk.folds:
        return
    headings = [words.FOLD_HEADINGS[column] for column in _FOLD_COLUMNS]
    rows = ([row[column] for column in _FOLD_COLUMNS] for row in words.fold_rows(walk, LISTED_FOLDS))
    yield inset(rows_table(headings, rows, right_from=3))
    if len(walk.folds) > LISTED_FOLDS:
        yield inset(Text(f"and {len(walk.folds) - LISTED_FOLDS:,} more folds: --format json has all", style="dim"))
    facts = facts_table()
    for name, value in words.walk_forward_figures(walk):
        facts.add_row(name, plain_text(value))
    yield inset(facts)


def _simulated(simulated: MonteCarloResult) -> Text:
    tried = f"{simulated.runs:,} runs of {simulated.trades:,} trades: {words.monte_carlo_returns(simulated)}"
    return plain_text(tried).append("\n").append_text(plain_text(words.monte_carlo_chances(simulated)))
