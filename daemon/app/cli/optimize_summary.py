"""What `atlasd optimize` prints on a terminal: verdict, figures, heat maps, the best points.

Loaded when a command runs, so it may import what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from daemon.app.cli.output import emit
from daemon.app.cli.printing import BULLET, bullets, clean, facts_table, inset, plain_text, print_parts, rows_table
from daemon.app.cli.validation_summary import verdict_parts
from daemon.research.optimization import words
from daemon.research.validation_words import parameters_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from daemon.research.optimization.result import Number, OptimizationResult, OptimizationStatus, Surface

LISTED: Final = 10
_MOST_COLUMNS: Final = 12
_DRAWN: Final = 3
# Of a cell's background: from the worst, through nothing, to the best.
_LOSSES: Final = ("on rgb(150,60,20)", "on rgb(105,55,35)", "on rgb(70,50,42)")
_GAINS: Final = ("on rgb(38,60,80)", "on rgb(30,80,125)", "on rgb(25,100,175)")


def print_result(result: OptimizationResult) -> None:
    """Print the verdict on the peak, what came of the points, their surfaces, and the best of them."""
    print_parts(_parts(result))


def _parts(result: OptimizationResult) -> Iterator[Any]:
    yield from verdict_parts(result.verdict)
    yield Text.assemble(
        (clean(result.name), "bold"),
        f"  {', '.join(result.symbols)}  {result.timeframe}, {result.days:,} days\n",
        (f"optimisation {result.id} {BULLET} {words.tried_words(result)}", "dim"),
    )
    facts = facts_table()
    for name, value in words.figures(result):
        facts.add_row(name, plain_text(value))
    yield from ("", inset(facts))
    for surface in result.surfaces[:_DRAWN]:
        yield from ("", _heading(surface, result.target), inset(_map(surface, result)))
    if len(result.surfaces) > _DRAWN:
        yield inset(Text(f"and {len(result.surfaces) - _DRAWN} more: the report has all", style="dim"))
    yield from ("", Text("The best points", style="bold"))
    yield inset(rows_table(words.POINT_HEADINGS, words.point_rows(result, result.top[:LISTED]), right_from=2))
    if result.notes:
        yield from ("", Text("Notes", style="bold"), inset(bullets(result.notes)))
    yield ""
    yield f"next: atlasd optimize show {result.id} --format csv | json"
    yield f"      atlasd optimize report {result.id} --output report.html"
    if result.plateau is not None:
        options = " ".join(f"--param {name}={value!r}" for name, value in result.plateau.point.parameters.items())
        yield f"      atlasd backtest CONFIG.json {options}"


def _heading(surface: Surface, target: str) -> Text:
    over = surface.x if surface.y is None else f"{surface.y} (down) and {surface.x} (across)"
    unit = ", %" if target == "return" else ""
    return Text.assemble((f"Best {target} over {clean(over)}{unit}", "bold"))


def _map(surface: Surface, result: OptimizationResult) -> Table:
    """Draw the best of every cell on its colour; the peak in brackets. Columns that do not fit are put together."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    groups = _groups(len(surface.x_values))
    table.add_column("", justify="right", style="dim", no_wrap=True)
    for group in groups:
        table.add_column(_named([surface.x_values[place] for place in group]), justify="right", no_wrap=True)
    peak = _place(surface, result.peak.parameters) if result.peak else None
    scale = 100 if result.target == "return" else 1
    reach = max((abs(value) for row in surface.best for value in row if value is not None), default=0.0)
    for place, row in enumerate(surface.best):
        cells = [max((row[at] for at in group if row[at] is not None), default=None) for group in groups]  # type: ignore[type-var]
        named = f"{surface.y_values[place]:.4g}" if surface.y_values else ""
        peaks = [peak is not None and peak[0] in group and peak[1] == place for group in groups]
        drawn = zip(cells, peaks, strict=True)
        table.add_row(named, *(_cell(value, reach, scale, is_peak=is_peak) for value, is_peak in drawn))
    return table


def _groups(count: int) -> list[range]:
    size = -(-count // _MOST_COLUMNS)
    return [range(at, min(at + size, count)) for at in range(0, count, size)]


def _named(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.3g}"


def _place(surface: Surface, point: Mapping[str, float]) -> tuple[int, int]:
    """Return the column and the row of a point: other cells may be as good as the peak's."""
    column = min(range(len(surface.x_values)), key=lambda at: abs(surface.x_values[at] - point[surface.x]))
    if surface.y is None:
        return column, 0
    across = point[surface.y]
    return column, min(range(len(surface.y_values)), key=lambda at: abs(surface.y_values[at] - across))


def _cell(value: Number, reach: float, scale: int, *, is_peak: bool) -> Text:
    if value is None:
        return Text("-", style="dim")
    shades = _GAINS if value >= 0 else _LOSSES[::-1]
    shade = shades[min(int(3 * abs(value) / reach), 2)] if reach else _GAINS[0]
    written = f"[{scale * value:.2f}]" if is_peak else f" {scale * value:.2f} "
    return Text(written, style=shade + (" bold" if is_peak else ""))


def print_list(found: Sequence[OptimizationStatus], form: str) -> None:
    """Print states; json has all of each."""
    if form == "json":
        typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return
    emit(
        {
            "id": [each.id for each in found],
            "name": [clean(each.name) for each in found],
            "status": [each.status for each in found],
            "verdict": [each.verdict for each in found],
            "done": [each.points_done for each in found],
            "points": [each.points for each in found],
            "target": [each.target for each in found],
            "best": [each.best_score for each in found],
            "at": [parameters_words(each.best_parameters or {}) for each in found],
        },
        form,
    )


def print_status(status: OptimizationStatus, form: str) -> None:
    """Print how an optimisation that has no result is doing."""
    if form == "json":
        typer.echo(msgspec.json.format(msgspec.json.encode(status), indent=2).decode())
        return
    facts = facts_table()
    best = "" if status.best_score is None else f"{status.best_score:.4g} at "
    facts.add_row("name", plain_text(status.name))
    facts.add_row("points", f"{status.points_done:,} of {status.points:,}")
    facts.add_row(f"best {status.target}", plain_text(best + parameters_words(status.best_parameters or {})))
    if status.error is not None:
        facts.add_row("error", plain_text(f"{status.error} [{status.error_code}]"))
    parts: list[Any] = [Text(f"optimisation {status.id} is {status.status}", style="bold"), inset(facts)]
    if status.completed_at is not None:
        parts += ["", f"next: atlasd optimize resume {status.id}"]
    print_parts(parts)
