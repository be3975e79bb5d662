"""What differs between two backtests: what was asked, what was read, what came of it, and where they part.

Of configuration and data only what differs is listed, of figures all: that one did not change says something too.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np

from daemon.research import backtest_records as records
from daemon.research.backtest_views import BacktestRows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.research.backtest_result import BacktestResult
    from daemon.store.env import Environment

# Figures beside the metrics, by section of the result.
_FIGURES: Final = (
    ("tradeStats", ("totalTrades", "winningTrades", "losingTrades", "averageHoldTime")),
    ("riskMetrics", ("volatility", "beta", "alpha")),
    ("costs", ("fees", "slippage", "funding", "netPnl", "turnover", "breakEvenCostPercent")),
    ("buyAndHold", ("totalReturnPercent",)),
    ("gaps", ("knownHoles", "crossedWithPosition", "pnl")),
)


class Difference(NamedTuple):
    """A field of a section, and what the two backtests have there; None where one has nothing."""

    section: str
    field: str
    first: Any
    second: Any


class Comparison(NamedTuple):
    """Two backtests side by side. is_same: of one fingerprint: same data, configuration, engine, trades and equity.

    trade: number of the first trade that differs, None where all are alike.
    """

    is_same: bool
    differences: list[Difference]
    trade: int | None


def compare(env: Environment, first_id: str, second_id: str) -> Comparison:
    """Compare two completed backtests; NotFound BACKTEST_NOT_FOUND, Conflict BACKTEST_NOT_FINISHED."""
    with env.read() as transaction:
        first = records.stored_result(transaction, first_id)
        second = records.stored_result(transaction, second_id)
    trade, of_trade = _first_trade(env, first_id, second_id)
    return Comparison(
        first.fingerprint == second.fingerprint,
        [*_inputs(first, second), *_figures(first, second), *of_trade],
        trade,
    )


def _inputs(first: BacktestResult, second: BacktestResult) -> Iterator[Difference]:
    engines = ({"engineVersion": each.engine_version, "fingerprint": each.fingerprint} for each in (first, second))
    yield from unlike("engine", *engines)
    yield from unlike("configuration", *(dict(leaves("", each.resolved)) for each in (first, second)))
    series = []
    for result in (first, second):
        used = {f"{each.symbol} {each.source}": msgspec.to_builtins(each) for each in result.data}
        series.append({f"{name} {field}": value for name, each in used.items() for field, value in each.items()})
    yield from unlike("data", *series)


def _figures(first: BacktestResult, second: BacktestResult) -> Iterator[Difference]:
    sides = [msgspec.to_builtins(each) for each in (first, second)]
    for section, names in (("metrics", tuple(sides[0]["metrics"])), *_FIGURES):
        for name in names:
            yield Difference(section, name, *(side[section][name] for side in sides))


def unlike(section: str, first: dict[str, Any], second: dict[str, Any]) -> Iterator[Difference]:
    """Yield what differs between two flat objects."""
    for name in dict.fromkeys([*first, *second]):
        if first.get(name) != second.get(name):
            yield Difference(section, name, first.get(name), second.get(name))


def leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Walk what lies in objects and lists by its path, such as `costs.slippage.impact` or `markets[0].tick_size`."""
    if isinstance(value, dict) and value:
        for name, each in value.items():
            yield from leaves(f"{path}.{name}" if path else name, each)
    elif isinstance(value, list) and value:
        for place, each in enumerate(value):
            yield from leaves(f"{path}[{place}]", each)
    else:
        yield path, value


def _first_trade(env: Environment, first_id: str, second_id: str) -> tuple[int | None, list[Difference]]:
    walks = [_trades(BacktestRows(env, each, "trades")) for each in (first_id, second_id)]
    for number, (first, second) in enumerate(zip_longest(*walks, fillvalue={})):
        if found := [each for each in unlike(f"trade {number}", first, second) if not _are_nan(each)]:
            return number, found
    return None, []


def _trades(rows: BacktestRows) -> Iterator[dict[str, Any]]:
    names = [column.name for column in rows.columns]
    times = {column.name for column in rows.columns if column.kind == "time"}
    for block in rows.blocks():
        plain = [_spoken(block[name]) if name in times else block[name].tolist() for name in names]
        for row in zip(*plain, strict=True):
            yield dict(zip(names, row, strict=True))


def _spoken(times: np.typing.NDArray[np.int64]) -> list[str]:
    return [f"{text}Z" for text in np.datetime_as_string(times.astype("datetime64[ns]"), unit="ms").tolist()]


def _are_nan(difference: Difference) -> bool:
    return all(isinstance(each, float) and np.isnan(each) for each in difference[2:])
