"""A specification's own strategy, made ready to be run over series. This loads a trader's code: workers alone ask."""

from __future__ import annotations

import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

import daemon
from daemon.core.backtest import Own
from daemon.core.errors import AtlasError, Code, NotFound, StrategyFailed
from daemon.engine import context as context_of
from daemon.engine.columns import lookback
from daemon.engine.indicators import IndicatorColumns
from daemon.engine.own import NAMES
from daemon.engine.simulate import OwnRun
from daemon.research.backtest_config.own import declared_by
from daemon.research.backtest_market import warmup_bars
from daemon.research.own.failing import strategy_failed
from daemon.research.own.loading import loaded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from daemon.core.backtest import BacktestSpec
    from daemon.core.market import Float64s, TsNs
    from daemon.engine.own import Compiled
    from daemon.research.backtest_market import Series
    from daemon.research.own.folder import StrategyFolder

_COMPILED: Final = "own"


def own_run(own: Own, folder: StrategyFolder, series: Sequence[Series]) -> OwnRun:
    """Load a strategy, and compute its columns of each series, as far as that is traded.

    Memory: 8 bytes a bar for each column that the strategy declares. Errors as of `loading.loaded`.
    """
    made = loaded(own, folder)
    return OwnRun(
        strategy=made,
        parameters=own.parameters,
        columns=[_columns(each, list(made.columns.values())) for each in series],
        folder=compiled_folder(),
        start_ns=min(int(each.bars.start_ns[0]) for each in series),
    )


def own_runs(spec: BacktestSpec, folder: StrategyFolder | None, series: Sequence[Series]) -> OwnRun | None:
    """Return `own_run` of a specification, None where its program is another."""
    if not isinstance(spec.program, Own):
        return None
    if folder is None:
        raise NotFound(Code.STRATEGY_NOT_FOUND, f"there is no strategy folder to look for {spec.program.id} in")
    return own_run(spec.program, folder, series)


def needed_bars(spec: BacktestSpec, folder: StrategyFolder | None) -> int:
    """Say how many bars before the first a specification looks back on, its own strategy's columns among them."""
    needed = warmup_bars(spec)
    if isinstance(spec.program, Own):
        needed = max(needed, own_warmup(spec.program, folder, spec.timeframe.ns) + 1)
    return needed


@contextmanager
def failing(run: OwnRun | None) -> Iterator[None]:
    """Turn what an own strategy raises into StrategyFailed; what is neither of its lines nor of what it calls stays.

    What compiled code raises in a library has no line of the strategy where the same call does not fail as Python: it
    had changed the strategy's state before.
    """
    try:
        yield
    except AtlasError:
        raise
    except Exception as error:
        if run is None:
            raise
        told = strategy_failed(error, run.strategy.file)
        if not (told.details or {}).get("traceback") and not isinstance(error, MemoryError):
            if _is_ours(error):
                raise
            why = f"{told.message} (in compiled code, which does not tell the line)"
            raise StrategyFailed(told.code, why, told.details) from error
        raise told from error


def _is_ours(error: Exception) -> bool:
    """Tell whether an error was raised by the daemon's own code, what strategies call of it left out."""
    frames = traceback.extract_tb(error.__traceback__)
    last = Path(frames[-1].filename)
    return last.is_relative_to(Path(daemon.__file__).parent) and last != Path(context_of.__file__)


def as_python(compiled: Compiled | None) -> tuple[str, ...]:
    """Say which handlers run as Python, and why."""
    uncompiled = compiled.uncompiled if compiled else ()
    return tuple(f"{NAMES[each.handler]} runs as Python, {each.why}" for each in uncompiled)


def own_warmup(own: Own, folder: StrategyFolder | None, bar_ns: TsNs) -> int:
    """Say how many bars before the first a strategy's columns look back on; errors as of `declared_by`."""
    said = declared_by(own, folder)
    return max((lookback(name, bar_ns=bar_ns) for name in said.columns.values()), default=0)


def compiled_folder() -> str:
    """Return where compiled strategies are kept, beside the kernels: what lies there is code, so for its user alone."""
    folder = daemon.KERNEL_CACHE / _COMPILED
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return str(folder)


def _columns(series: Series, names: list[str]) -> Float64s:
    """Return (k, bars) float64, in the order of the declarations."""
    columns = IndicatorColumns(series.whole)
    out = np.empty((len(names), series.bars.size))
    for row, name in enumerate(names):
        out[row] = columns[name][series.warmup :]
    return out
