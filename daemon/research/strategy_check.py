"""Checking a strategy in a process of its own, which is killed when it takes too long: nobody has checked its code."""

from __future__ import annotations

import multiprocessing
import signal
from multiprocessing import connection
from typing import TYPE_CHECKING, Any, Final

import msgspec

from daemon.core.errors import AtlasError, Code, InvalidRequest
from daemon.research.own.failing import strategy_failed
from daemon.research.own.listing import OwnParameter
from daemon.research.own.printing import print_aside
from daemon.research.spawning import start_alone

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from pathlib import Path

    from daemon.core.backtest import BacktestSpec
    from daemon.store.env import StoreConfig

USUAL_S: Final = 60.0


class Compiled(msgspec.Struct, frozen=True):
    """Whether a handler runs compiled, and why it does not where it does not."""

    handler: str
    is_compiled: bool
    why: str


class Cut(msgspec.Struct, frozen=True):
    """Whether a strategy does the same on the beginnings of the data as on all of them, in words."""

    is_checked: bool
    words: str


class Checked(msgspec.Struct, frozen=True):
    """What was found out about a file. compiled: by handler, in their order."""

    name: str
    digest: str
    parameters: list[OwnParameter]
    columns: list[str]
    handlers: list[str]
    state: list[str]
    every_ms: float
    compiled: list[Compiled]
    look_ahead: Cut | None = None


class Rehearsal(msgspec.Struct, frozen=True):
    """A specification that must not look ahead, and where its data and its strategy lie."""

    spec: BacktestSpec
    data_dir: Path
    store: StoreConfig
    folder: Path


def check(source: bytes, file: str, rehearsal: Rehearsal | None = None, *, seconds: float = USUAL_S) -> Checked:
    """Load a strategy in a worker process, and say what it is. file: its name, for messages.

    rehearsal: what to check for look-ahead as well. InvalidRequest STRATEGY_INVALID as of `loading.load`, and where it
    is not done within so many seconds or takes the process down; LOOK_AHEAD; StrategyFailed.
    """
    found: Checked = apart(_checked, (source, file, rehearsal), file, seconds=seconds)
    return found


def apart(function: Callable[..., Any], arguments: tuple[Any, ...], file: str, *, seconds: float) -> Any:
    """Call a function that runs a strategy's code in a worker process; killed when it takes too long. Errors as above.

    file: the strategy's, for messages.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(theirs, function, arguments, file), daemon=True)
    start_alone(process)
    theirs.close()
    try:
        ready = connection.wait([ours, process.sentinel], seconds)
        if ours in ready:
            outcome = ours.recv()
            if isinstance(outcome, AtlasError):
                raise outcome
            return outcome
        if ready:
            raise EOFError
    except EOFError:
        process.join()
        raise _invalid(file, f"took its process down while it ran (exit code {process.exitcode})") from None
    finally:
        process.kill()
        process.join()
        ours.close()
    raise _invalid(file, f"was not done within {seconds:g} s: move what takes so long out of the file, or allow more")


def _invalid(file: str, why: str) -> InvalidRequest:
    return InvalidRequest(Code.STRATEGY_INVALID, f"{file}: {why}", {"file": file, "line": None})


def _main(pipe: Connection, function: Callable[..., Any], arguments: tuple[Any, ...], file: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is the parent's to handle
    print_aside()
    try:
        outcome: Any = function(*arguments)
    except AtlasError as error:
        outcome = error
    except Exception as error:  # noqa: BLE001 - the boundary of the process
        outcome = strategy_failed(error, file)
    pipe.send(outcome)


def _checked(source: bytes, file: str, rehearsal: Rehearsal | None) -> Checked:
    found = _found(source, file)
    return found if rehearsal is None else msgspec.structs.replace(found, look_ahead=_cut(rehearsal))


def _found(source: bytes, file: str) -> Checked:
    from daemon.engine.own import compile_strategy
    from daemon.research.own.declaring import HANDLERS
    from daemon.research.own.loading import load
    from daemon.research.own_runs import compiled_folder

    made = load(source, file)
    names = list(HANDLERS)
    reasons = {int(each.handler): each.why for each in compile_strategy(made, compiled_folder()).uncompiled}
    compiled = [Compiled(names[each], each not in reasons, reasons.get(each, "")) for each in sorted(made.handlers)]
    return Checked(
        name=made.name,
        digest=made.digest,
        parameters=[
            OwnParameter(name, each.default, each.low, each.high, each.step) for name, each in made.parameters.items()
        ],
        columns=sorted(set(made.columns.values())),
        handlers=[name for place, name in enumerate(names) if place in made.handlers],
        state=list(made.state),
        every_ms=made.timer_ns / 1e6,
        compiled=compiled,
    )


def _cut(rehearsal: Rehearsal) -> Cut:
    from daemon.research.backtest_market import read_series, year_days
    from daemon.research.look_ahead import check_look_ahead
    from daemon.research.own.folder import StrategyFolder
    from daemon.research.own_runs import needed_bars
    from daemon.store.bars import BarStore
    from daemon.store.env import Environment

    spec = rehearsal.spec
    with Environment(rehearsal.data_dir, rehearsal.store, readonly=True) as env:
        bars = BarStore(env)
        folder = StrategyFolder(rehearsal.folder)
        series = [read_series(bars, spec, market, needed_bars(spec, folder)) for market in spec.markets]
        days = spec.calendar_days or max(year_days(each.bars.start_ns) for each in series)
        found = check_look_ahead(spec, series, days, folder=folder, store=bars)
    return Cut(found.is_checked, found.words)
