"""An optimisation as others take it away: its points as they are stored, its result, its page."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from daemon.research.optimization import records, words
from daemon.research.optimization.records import FIGURES
from daemon.research.plotly_page import embedded, line, listed, pairs_table, render, table
from daemon.research.validation_charts import logits
from daemon.research.validation_report import overfitting_section, verdict_block

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.research.optimization.result import OptimizationResult
    from daemon.store.env import Environment


def points_json(env: Environment, optimization_id: str) -> Iterator[bytes]:
    """Make a JSON list of all stored points, block by block: a figure without a value is null."""
    yield b"["
    is_first = True
    for names, block in point_blocks(env, optimization_id):
        rows = msgspec.json.encode([dict(zip(names, row, strict=True)) for row in block])
        yield (b"" if is_first else b",\n") + rows[1:-1]
        is_first = False
    yield b"]\n"


def points_csv(env: Environment, optimization_id: str) -> Iterator[bytes]:
    """Make a table of all stored points, block by block: a figure without a value is empty."""
    is_first = True
    for names, block in point_blocks(env, optimization_id):
        lines = [",".join("" if cell is None else repr(cell) for cell in row) for row in block]
        head = [",".join(map(_quoted, names))] if is_first else []
        yield ("\n".join([*head, *lines]) + "\n").encode()
        is_first = False


def result_json(result: OptimizationResult) -> Iterator[bytes]:
    """Make the whole result."""
    yield msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n"


def page(result: OptimizationResult) -> Iterator[bytes]:
    """Make a page of some 5 MB that loads nothing; the same result gives the same bytes."""
    yield optimization_html(result).encode()


def optimization_html(result: OptimizationResult) -> str:
    """Render an optimisation: verdict, surfaces, the best points, what choosing among them was worth."""
    found = result.overfitting
    identity = (
        f"optimisation {result.id}",
        f"{', '.join(result.symbols)}, {result.timeframe}, {result.days:,} days",
        words.tried_words(result),
    )
    charts = {
        "target": result.target,
        "unit": " %" if result.target == "return" else "",
        "scale": 100 if result.target == "return" else 1,
        "surfaces": [msgspec.to_builtins(each) for each in result.surfaces],
        "peak": result.peak.parameters if result.peak else None,
        "plateau": result.plateau.point.parameters if result.plateau else None,
        "logits": logits(found) if found is not None and found.logit_counts else None,
    }
    return render(
        "optimization_report.html",
        title=escape(f"{result.name}, optimised"),
        verdict=verdict_block(result.verdict),
        identity="".join(f"<div>{escape(each)}</div>" for each in identity),
        figures=pairs_table(words.figures(result)),
        ranges=pairs_table(words.range_rows(result)),
        points=table("numbers", words.POINT_HEADINGS, map(line, words.point_rows(result, result.top))),
        overfitting=overfitting_section(found) if found is not None else "",
        notes=f'<ul class="plain">{listed(result.notes)}</ul>' if result.notes else "",
        config=escape(msgspec.json.format(msgspec.json.encode(result.config), indent=2).decode()),
        charts=embedded(charts),
    )


def point_blocks(env: Environment, optimization_id: str) -> Iterator[tuple[list[str], list[list[Any]]]]:
    """Read what is stored in snapshots of their own: names, and rows of the number, the parameters and FIGURES."""
    with env.read() as transaction:
        ranges = [each.name for each in records.stored_plan(transaction, optimization_id).ranges]
    names = ["number", *ranges, *FIGURES]
    place = 0
    while True:
        with env.read() as transaction:
            rows = records.rows_from(transaction, optimization_id, place)
        if rows is None:
            break
        values, figures = rows.table(len(ranges))
        place = rows.first + len(values)
        numbers = np.arange(rows.first, place)
        kept = figures.astype(object)
        kept[np.isnan(figures)] = None
        trades = [int(each) for each in figures[:, -1]]
        yield (
            names,
            [
                [number, *row, *of_it[:-1], count]
                for number, row, of_it, count in zip(
                    numbers.tolist(), values.tolist(), kept.tolist(), trades, strict=True
                )
            ],
        )
    if place == 0:
        yield names, []


def _quoted(name: str) -> str:
    return f'"{name}"' if any(letter in name for letter in ',"\n') else name
