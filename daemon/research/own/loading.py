"""A strategy's file to a class that the engine can call. This runs a trader's code.

Only worker processes, and the command line's own check, import this module: the daemon reads declarations from the text
(`declaring`). Nothing is half-loaded: a file that fails leaves no module behind.
"""

from __future__ import annotations

import linecache
import math
import sys
import traceback
import types
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from daemon.core.market import NS_PER_SECOND
from daemon.engine.context import Column, Parameter, Strategy
from daemon.engine.own import Handler, OwnStrategy
from daemon.research.own.declaring import EVERY_MS, HANDLERS, Declared, declared, invalid
from daemon.research.own.folder import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.core.backtest import Own
    from daemon.research.own.folder import StrategyFolder

_NS_PER_MS: Final = NS_PER_SECOND // 1_000
_MOST_MS: Final = 86_400_000.0
_LARGEST: Final = 1 << 63
_ARRAYS: Final = "biuf"
_METHODS: Final = (types.FunctionType, staticmethod, classmethod, property)
_KEPT: Final = 16

_loaded: dict[tuple[str, str], OwnStrategy] = {}


def load(source: bytes, file: str) -> OwnStrategy:
    """Run a file, and return its strategy. file: its name, for tracebacks, which show its lines.

    InvalidRequest STRATEGY_INVALID with file and line, and what to do, as `declared` says and where the file cannot be
    imported, raises meanwhile, has state that is none, or turns out to be something else than its text declares.
    """
    said = declared(source, file)
    digest = digest_of(source)
    show_lines(source, file)
    with _module(file, digest) as module:
        _run(source, file, module)
        return _checked(module, said, file, digest)._replace(anew=partial(_class_of, source, file, said.name))


def loaded(own: Own, folder: StrategyFolder) -> OwnStrategy:
    """Return the strategy of a specification; errors as of `load` and `StrategyFolder.source_of`.

    A process keeps what it has loaded: the digest says that it is the same.
    """
    key = own.id, own.digest
    if key not in _loaded:
        made = load(folder.source_of(own), f"{own.id}.py")
        while len(_loaded) >= _KEPT:
            _loaded.pop(next(iter(_loaded)))
        _loaded[key] = made
    return _loaded[key]


def show_lines(source: bytes, file: str) -> None:
    """Have tracebacks quote a source that lies in no file of that name."""
    text = source.decode("utf-8", "replace")
    linecache.cache[file] = (len(source), None, text.splitlines(keepends=True), file)


def _class_of(source: bytes, file: str, name: str) -> type[Strategy]:
    """Run a file once more, and return its class: nothing that an earlier run left is in it."""
    with _module(file, digest_of(source)) as module:
        _run(source, file, module)
        return module.__dict__[name]  # type: ignore[no-any-return]


@contextmanager
def _module(file: str, digest: str) -> Iterator[types.ModuleType]:
    """Make an empty module that others find by its name, as dataclasses do; whoever fails in it leaves none behind."""
    module = types.ModuleType(f"atlasd_own_{digest[:12]}")
    module.__file__ = file
    before = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module
    try:
        yield module
    except BaseException:
        sys.modules.pop(module.__name__)
        if before is not None:
            sys.modules[module.__name__] = before
        raise


def _run(source: bytes, file: str, module: types.ModuleType) -> None:
    try:
        code = compile(source, file, "exec", dont_inherit=True)
        exec(code, module.__dict__)  # noqa: S102 - what the module is for
    except MemoryError:
        raise
    except ImportError as error:
        raise invalid(file, _line(error, file), f"imports what is not there: {error}") from error
    except (Exception, SystemExit) as error:
        why = f"raises while it is imported: {type(error).__name__}: {error}"
        raise invalid(file, _line(error, file), why) from error


def _line(error: BaseException, file: str) -> int | None:
    """Return the last line of the file that an error went through."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return lines[-1] if lines else None


def _checked(module: types.ModuleType, said: Declared, file: str, digest: str) -> OwnStrategy:
    made = module.__dict__.get(said.name)
    if not (isinstance(made, type) and issubclass(made, Strategy)):
        raise invalid(file, said.line, f"{said.name} is no strategy once the file was run: something else has its name")
    found = {name: value for name, value in vars(made).items() if not name.startswith("__")}
    parameters = {name: value for name, value in found.items() if isinstance(value, Parameter)}
    columns = {name: value for name, value in found.items() if isinstance(value, Column)}
    handlers = {name for name in HANDLERS if getattr(made, name, None) is not None}
    for what, are, should in (
        ("parameters", {name: _numbers(each) for name, each in parameters.items()}, said.parameters),
        ("columns", columns.keys(), said.columns.keys()),
        ("handlers", handlers, set(said.handlers)),
    ):
        if are != should:
            why = f"the {what} of {said.name} are not those that its text declares: write them out in the class"
            raise invalid(file, said.line, why)
    every_ns = _timer_ns(made, said, file)
    return OwnStrategy(
        made=made,
        name=said.name,
        file=file,
        digest=digest,
        parameters=parameters,
        columns=dict(said.columns),
        state={name: _state(name, value, said, file) for name, value in found.items() if _is_state(name, value)},
        handlers=frozenset(Handler(place) for place, name in enumerate(HANDLERS) if name in handlers),
        timer_ns=every_ns if "on_timer" in handlers else 0,
    )


def _numbers(parameter: Parameter) -> tuple[float, ...]:
    return parameter.default, parameter.low, parameter.high, parameter.step


def _is_state(name: str, value: object) -> bool:
    return name != EVERY_MS and not isinstance(value, (Parameter, Column, *_METHODS))


def _state(name: str, value: object, said: Declared, file: str) -> object:
    """Return a value that strategies may keep: a bool, int or float, or an array of those, copied."""
    line = said.lines.get(name, said.line)
    match value:
        case bool() | float():
            return value
        case int() if -_LARGEST <= value < _LARGEST:
            return value
        case np.generic() if value.dtype.kind in _ARRAYS:
            return value.item()
        case np.ndarray() if value.dtype.kind in _ARRAYS and value.dtype.isnative:
            return np.array(value, order="C")
    kind = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
    raise invalid(
        file,
        line,
        f"{name} is {kind}: state is a bool, an int of 64 bits, a float or an array of those; constants of other "
        "kinds belong above the class",
    )


def _timer_ns(made: type[Strategy], said: Declared, file: str) -> int:
    every_ms: object = getattr(made, EVERY_MS)
    is_number = isinstance(every_ms, int | float) and not isinstance(every_ms, bool)
    if isinstance(every_ms, int | float) and is_number and math.isfinite(every_ms) and 0 < every_ms <= _MOST_MS:
        return max(1, round(every_ms * _NS_PER_MS))
    why = f"every_ms is {every_ms!r:.60}: milliseconds between calls of on_timer, above 0, at most a day"
    raise invalid(file, said.lines.get(EVERY_MS, said.line), why)
