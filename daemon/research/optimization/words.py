"""An optimisation as rows of text: the same words on a terminal and on the page, neither escaped nor coloured here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from daemon.research.plotly_page import DASH
from daemon.research.report_words import percent, plain, share
from daemon.research.validation_words import overfitting_words, parameters_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from daemon.research.optimization.result import OptimizationResult, Plateau, TriedPoint

POINT_HEADINGS: Final = ("", "Parameters", "Score", "Sharpe", "Return", "Max drawdown", "Trades")

_LISTED_VALUES: Final = 12


def tried_words(result: OptimizationResult) -> str:
    """Say in a line what was tried."""
    undefined = f", {result.undefined:,} of them without a {result.target}" if result.undefined else ""
    reused = f"; {result.execution.reused:,} were known from before" if result.execution.reused else ""
    return (
        f"{result.points:,} points ({result.method}{_seed(result)}){undefined}; {result.execution.bars:,} bars each in "
        f"{result.execution.duration / 1_000:.2f} s{reused}"
    )


def _seed(result: OptimizationResult) -> str:
    return "" if result.method == "grid" else f", seed {result.seed}"


def range_rows(result: OptimizationResult) -> Iterator[tuple[str, str]]:
    """Give what was varied, name and values."""
    for each in result.ranges:
        if not each.values:
            yield each.name, f"{each.low:g} to {each.high:g}"
            continue
        shown = ", ".join(f"{value:g}" for value in each.values[:_LISTED_VALUES])
        yield each.name, shown + (f", ... ({len(each.values):,} values)" if len(each.values) > _LISTED_VALUES else "")


def figures(result: OptimizationResult) -> Iterator[tuple[str, str]]:
    """Give what came of it, name and value."""
    yield "peak", point_words(result, result.peak)
    if result.peak_plateau is not None:
        yield "around the peak", plateau_words(result, result.peak_plateau)
    if result.plateau is not None:
        yield "best plateau", f"{point_words(result, result.plateau.point)}; {plateau_words(result, result.plateau)}"
    yield "as configured", point_words(result, result.configured)
    yield "deflated Sharpe", deflated_words(result)
    if result.overfitting is not None:
        yield "overfitting", overfitting_words(result.overfitting)
        if result.overfitting.spa_p is not None:
            yield (
                "SPA, reality check",
                (
                    f"p {plain(result.overfitting.spa_p, 3)} and {plain(result.overfitting.reality_check_p, 3)} that "
                    "no point earns anything"
                ),
            )


def deflated_words(result: OptimizationResult) -> str:
    """Say in a line what the number of tries leaves of the peak's Sharpe ratio."""
    verdict = result.verdict
    return (
        f"{share(verdict.deflated_sharpe)}: Sharpe {plain(verdict.sharpe_ratio)} in {verdict.trials:,} tries of this "
        f"idea ({verdict.tried_before:,} before), by chance {plain(verdict.chance_sharpe)}"
    )


def point_words(result: OptimizationResult, point: TriedPoint | None) -> str:
    """Write a point with what came of it; a dash for none."""
    if point is None:
        return DASH
    named = f"{parameters_words(point.parameters)}: " if point.parameters else ""
    reached = "" if result.target == "return" else f"{result.target} {score_words(result, point.score)}, "
    return f"{named}{reached}return {percent(point.total_return_percent)}, {point.total_trades:,} trades"


def score_words(result: OptimizationResult, score: float | None, digits: int = 2) -> str:
    """Write a score: a return in percent, ratios as they are."""
    if result.target != "return":
        return plain(score, digits)
    return percent(None if score is None else 100 * score, digits)


def plateau_words(result: OptimizationResult, around: Plateau) -> str:
    """Say what a point's neighbours are worth."""
    if not around.neighbours:
        return "no neighbours"
    part = "" if around.share is None or around.share < 0 else f" ({share(around.share, 0)} of the point's own)"
    without = f", {around.undefined:,} of them without a score" if around.undefined else ""
    return (
        f"median {score_words(result, around.score)}{part} over it and {around.neighbours:,} neighbours{without}, the "
        f"worst {score_words(result, around.lowest)}"
    )


def point_rows(result: OptimizationResult, points: Sequence[TriedPoint]) -> Iterator[tuple[str, ...]]:
    """Write points under POINT_HEADINGS, the rank first."""
    for rank, each in enumerate(points, 1):
        yield (
            str(rank),
            parameters_words(each.parameters),
            score_words(result, each.score, 2 if result.target == "return" else 3),
            plain(each.sharpe_ratio),
            percent(each.total_return_percent),
            f"{each.max_drawdown_percent:.2f} %",
            f"{each.total_trades:,}",
        )
