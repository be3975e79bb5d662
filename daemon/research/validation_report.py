"""The verdict of a backtest and what it rests on, as parts of its HTML page.

What was not asked for has no section, and a result without a verdict has no block: an older release made it.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from daemon.research import validation_words as words
from daemon.research.plotly_page import line, listed, pairs_table, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from daemon.research.backtest_result import BacktestResult
    from daemon.research.validation_result import MonteCarloResult, Overfitting, SensitivityRow, Verdict, WalkForward

LISTED_FOLDS: Final = 100

_KINDS: Final = {"pass": "good", "warn": "care", "fail": "bad", "unknown": "open"}


def verdict_block(verdict: Verdict | None) -> str:
    """Write the verdict, why, and what would change it; nothing without one."""
    if verdict is None:
        return ""
    kind = {"robust": "good", "doubtful": "care", "overfitted": "bad"}.get(verdict.verdict, "open")
    sign = words.SIGNS[verdict.verdict]
    checks = (
        line(row, _KINDS[check.standing]) for row, check in zip(words.check_rows(verdict), verdict.checks, strict=True)
    )
    return (
        f'<section class="verdict {kind}" aria-label="Verdict">'
        f'<p class="word"><span aria-hidden="true">{sign}</span> Verdict: {escape(verdict.verdict)}</p>'
        f"<ol>{listed(verdict.reasons)}</ol>"
        f'<div class="pair"><div class="scroll">{pairs_table(words.verdict_figures(verdict))}</div>'
        f"<div>{_list('What would change it', verdict.would_change)}"
        f"{_list('What it takes for granted', verdict.assumptions)}</div></div>"
        + (f'<div class="scroll">{table("checks", words.CHECK_HEADINGS, checks)}</div>' if verdict.checks else "")
        + "</section>"
    )


def validation_sections(result: BacktestResult) -> str:
    """Write a section for each part that is there."""
    return "".join(_sections(result))


def _sections(result: BacktestResult) -> Iterator[str]:
    if result.walk_forward is not None:
        yield _section("Walk-forward", _walk_forward(result.walk_forward))
    if result.monte_carlo is not None:
        yield _section("Monte Carlo", _monte_carlo(result.monte_carlo))
    if result.overfitting is not None:
        yield overfitting_section(result.overfitting)
    if result.sensitivity:
        yield _section("Sensitivity", _sensitivity(result.sensitivity))
    if result.look_ahead is not None:
        yield _section("Look-ahead", [f"<p>{escape(words.look_ahead_words(result.look_ahead))}</p>"])


def _section(heading: str, parts: Iterable[str]) -> str:
    return f'<section class="long"><h2>{heading}</h2>{"".join(parts)}</section>'


def _walk_forward(walk: WalkForward) -> Iterator[str]:
    yield f'<p class="soft small">{escape(words.walk_forward_words(walk))}</p>'
    yield _note(walk.note)
    if not walk.folds:
        return
    yield f'<div class="scroll">{pairs_table(words.walk_forward_figures(walk))}</div>'
    yield "<h3>Return a day, in sample and out of sample</h3>"
    yield '<div id="folds" class="chart"></div>'
    if walk.equity:
        yield "<h3>The tests, one after the other</h3>"
        yield '<div id="stitched" class="chart"></div>'
    yield "<h3>Folds</h3>"
    hidden = len(walk.folds) - LISTED_FOLDS
    if hidden > 0:
        yield f'<p class="soft small">The first {LISTED_FOLDS} of {len(walk.folds):,}; the result has all.</p>'
    yield _scrolled("folds", words.FOLD_HEADINGS, words.fold_rows(walk, LISTED_FOLDS))
    if walk.parameter_stability:
        yield "<h3>How steady the choice was</h3>"
        yield _scrolled("steady", words.STABILITY_HEADINGS, words.stability_rows(walk))


def _monte_carlo(simulated: MonteCarloResult) -> Iterator[str]:
    yield f'<p class="soft small">{escape(words.monte_carlo_words(simulated))}</p>'
    said = f"{words.monte_carlo_returns(simulated)}; {words.monte_carlo_chances(simulated)}"
    yield f"<p>Bootstrap: {escape(said)}.</p>"
    if simulated.fan.trades:
        yield '<div id="fan" class="chart"></div>'
    if simulated.methods:
        yield _scrolled("numbers", words.METHOD_HEADINGS, words.method_rows(simulated))
        how = (f"{each.method}: {each.words}" for each in simulated.methods)
        yield f'<ul class="plain soft small">{listed(how)}</ul>'


def overfitting_section(found: Overfitting) -> str:
    """Write what choosing the best was worth."""
    return _section("Overfitting", _overfitting(found))


def _overfitting(found: Overfitting) -> Iterator[str]:
    yield _note(found.note)
    yield f'<div class="scroll">{pairs_table(words.overfitting_figures(found))}</div>'
    if found.logit_counts:
        yield "<h3>Where the best in sample came out, as a logit of its rank</h3>"
        yield '<div id="logits" class="chart"></div>'


def _sensitivity(rows: list[SensitivityRow]) -> Iterator[str]:
    yield _scrolled("numbers", words.SENSITIVITY_HEADINGS, words.sensitivity_rows(rows))


def _scrolled(kind: str, headings: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    return f'<div class="scroll">{table(kind, headings, map(line, rows))}</div>'


def _list(heading: str, lines: list[str]) -> str:
    return f'<h3>{heading}</h3><ul class="plain">{listed(lines)}</ul>' if lines else ""


def _note(note: str | None) -> str:
    return f"<p>{escape(note)}</p>" if note else ""
