"""A trader's own strategy, as the loop calls it: its fields in one record, its handlers compiled or as Python.

All handlers that numba can compile become one function, which the loop calls by its address: the loop itself is
compiled once, whatever the strategies. The function is cached under the digest of the strategy's source.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numba as untyped_numba
import numpy as np
from numba.core import caching, types
from numba.core.typing import templates as untyped_templates

from daemon.engine import context as context_of
from daemon.engine import methods
from daemon.engine.context import EVENT, MOST_REQUESTS, REQUEST, Bar, Context, Fill, Trade
from daemon.engine.intrinsics import HANDLER_SIGNATURE, address_of, pointer
from daemon.engine.levels import STATE
from daemon.engine.methods import NO_TEXT, compiler, functions_of, whole_fields
from daemon.engine.orders import ACCOUNT, ORDER, SYMBOL
from daemon.engine.requests import COMPILED, IN_PYTHON

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from daemon.core.market import Int64s
    from daemon.engine.context import Parameter, Strategy
    from daemon.engine.orders import Records


# This module works with parts of numba that have no types, or too few.
numba: Any = untyped_numba
templates: Any = untyped_templates


class Handler(IntEnum):
    """What a strategy may be called for."""

    BAR = 0
    TRADE = 1
    BOOK = 2
    FILL = 3
    TIMER = 4


NAMES: Final = {
    Handler.BAR: "on_bar",
    Handler.TRADE: "on_trade",
    Handler.BOOK: "on_book",
    Handler.FILL: "on_fill",
    Handler.TIMER: "on_timer",
}


class OwnStrategy(NamedTuple):
    """A class that was read from a file, and checked.

    file: its name, for tracebacks. digest: SHA-256 of the source, hex. parameters, columns: as declared, by name;
    columns are names of the engine's. state: bool, int, float or array, by name. handlers: those it has.
    timer_ns: between calls of `on_timer`. anew: runs the file again and returns its class, for runs whose handlers may
    change what stands above the class; None where `made` is as good.
    """

    made: type[Strategy]
    name: str
    file: str
    digest: str
    parameters: Mapping[str, Parameter]
    columns: Mapping[str, str]
    state: Mapping[str, object]
    handlers: frozenset[Handler]
    timer_ns: int
    anew: Callable[[], type[Strategy]] | None = None


class Uncompiled(NamedTuple):
    """A handler that runs as Python, and why: the compiler's reason with its line."""

    handler: Handler
    why: str


class Compiled(NamedTuple):
    """Handlers as machine code. address: for `call_at`, 0 without any. keeps: what must live as long as it is used."""

    address: int
    handlers: frozenset[Handler]
    uncompiled: tuple[Uncompiled, ...]
    keeps: Any


def fields_of(own: OwnStrategy) -> np.dtype[np.void]:
    """Return the record that holds a strategy's parameters, columns and state."""
    fields: list[Any] = [(name, "f8") for name in own.parameters]
    fields += [(name, "i8") for name in own.columns]
    for name, value in own.state.items():
        if isinstance(value, np.ndarray):
            fields.append((name, value.dtype, value.shape))
        else:
            fields.append((name, "b1" if isinstance(value, bool) else "i8" if isinstance(value, int) else "f8"))
    return np.dtype(fields or [("nothing", "i8")], align=True)


def record_of(own: OwnStrategy, values: Mapping[str, float]) -> Records:
    """Return the record of a run, of shape (1,). values: of parameters, their defaults where one is not given."""
    record = np.zeros(1, dtype=fields_of(own))
    for name, parameter in own.parameters.items():
        record[name] = values.get(name, parameter.default)
    for place, name in enumerate(own.columns):
        record[name] = place
    for name, value in own.state.items():
        record[name][0] = value
    return record


# As machine code.

# Of all that a compiled strategy takes from us: where it changes, what was compiled before is of no use.
_CONTRACT: Final = hashlib.sha256(
    (
        inspect.getsource(context_of)
        + inspect.getsource(methods)
        + repr([each.descr for each in (ACCOUNT, SYMBOL, ORDER, STATE)])
    ).encode()
).hexdigest()

# Places of the table that a compiled strategy finds its arrays by: addresses, then sizes.
_PLACES: Final = (
    "account", "symbols", "orders", "books", "sizes", "requests", "event", "values", "columns", "record",
    "symbol_count", "order_places", "window", "rows", "column_count", "book_count",
)  # fmt: skip
_TABLE: Final = len(_PLACES)


def table_of(context: Context, record: Records) -> Int64s:
    """Return where a context's arrays and a strategy's record lie; they must live as long as the table is used."""
    arrays = [*context, record]
    sizes = [
        context.symbols.size,
        context.orders.shape[1],
        context.sizes.shape[2],
        context.values.shape[1],
        context.columns.shape[0],
        context.books.size,
    ]
    return np.array([*(each.ctypes.data for each in arrays), *sizes], dtype=np.int64)


_MOST_KEPT: Final = 64
_compiled_before: dict[Any, Compiled] = {}


def compile_strategy(own: OwnStrategy, folder: str = "") -> Compiled:
    """Compile a strategy's handlers, or load them from a folder that is there; those that cannot be say why.

    A process compiles a class once.
    """
    key = own.digest, own.made, folder
    if key not in _compiled_before:
        while len(_compiled_before) >= _MOST_KEPT:
            _compiled_before.pop(next(iter(_compiled_before)))
        _compiled_before[key] = _compiled_as_far(own, folder)
    return _compiled_before[key]


def _compiled_as_far(own: OwnStrategy, folder: str) -> Compiled:
    try:
        return _compiled(own, own.handlers, (), folder)
    except Exception:  # noqa: BLE001, S110 - compilers raise anything; which handler cannot, and why, is found below
        pass
    good: set[Handler] = set()
    bad = []
    for handler in sorted(own.handlers):
        try:
            _compiled(own, frozenset([handler]), (), folder)
        except Exception as error:  # noqa: BLE001 - it is told, and the handler runs as Python
            bad.append(Uncompiled(handler, _reason(error, own.file)))
        else:
            good.add(handler)
    if not good:
        return Compiled(0, frozenset(), tuple(bad), None)
    return _compiled(own, frozenset(good), tuple(bad), folder)


def modes_of(own: OwnStrategy, compiled: Compiled) -> Int64s:
    """Return how each handler is called, (5,) int64."""
    modes = np.zeros(len(Handler), dtype=np.int64)
    for handler in own.handlers:
        modes[handler] = COMPILED if handler in compiled.handlers else IN_PYTHON
    return modes


def _compiled(own: OwnStrategy, handlers: frozenset[Handler], bad: tuple[Uncompiled, ...], folder: str) -> Compiled:
    dispatcher = numba.njit(nogil=True)(_entry(own, handlers))
    if folder:
        kinds = "".join(str(int(each)) for each in sorted(handlers))
        name = f"{own.digest[:40]}-{_CONTRACT[:12]}-{kinds}"
        dispatcher._cache = _Cache(dispatcher.py_func, name, folder)  # noqa: SLF001 - there is no other way to name one
    dispatcher.compile(HANDLER_SIGNATURE)
    made = dispatcher.overloads[HANDLER_SIGNATURE.args]
    return Compiled(address_of(made), handlers, bad, dispatcher)


def _entry(own: OwnStrategy, handlers: frozenset[Handler]) -> Callable[[int, int], int]:
    """Make the function that the loop calls: it finds its arrays by the table, and calls the handler."""
    fields = fields_of(own)
    functions = functions_of(own.made, whole_fields(fields))

    def handler_of(kind: Handler) -> Any:
        stand_in = _without_event if kind in (Handler.BOOK, Handler.TIMER) else _with_event
        return compiler(functions[NAMES[kind]] if kind in handlers else stand_in)

    on_bar, on_trade, on_book, on_fill, on_timer = (handler_of(kind) for kind in Handler)
    bar, trade, book, fill = int(Handler.BAR), int(Handler.TRADE), int(Handler.BOOK), int(Handler.FILL)
    places = _TABLE

    def entry(table: int, handler: int) -> int:
        at = numba.carray(pointer(table), places, np.int64)
        symbols, orders, window, rows, columns, books = at[10], at[11], at[12], at[13], at[14], at[15]
        context = Context(
            numba.carray(pointer(at[0]), 1, ACCOUNT),
            numba.carray(pointer(at[1]), symbols, SYMBOL),
            numba.carray(pointer(at[2]), (symbols, orders), ORDER),
            numba.carray(pointer(at[3]), books, STATE),
            numba.carray(pointer(at[4]), (books, 2, window), np.int64),
            numba.carray(pointer(at[5]), MOST_REQUESTS, REQUEST),
            numba.carray(pointer(at[6]), 1, EVENT),
            numba.carray(pointer(at[7]), (5, rows), np.float64),
            numba.carray(pointer(at[8]), (columns, rows), np.float64),
        )
        own_record = numba.carray(pointer(at[9]), 1, fields)[0]
        event = context.event[0]
        if handler == trade:
            on_trade(own_record, context, Trade(event.price, event.size, event.side))
        elif handler == book:
            on_book(own_record, context)
        elif handler == bar:
            values, row = context.values, context.symbols[event.symbol].row - 1
            on_bar(
                own_record,
                context,
                Bar(values[0, row], values[1, row], values[2, row], values[3, row], values[4, row]),
            )
        elif handler == fill:
            on_fill(own_record, context, Fill(event.order, event.side, event.size, event.price, event.is_maker != 0))
        else:
            on_timer(own_record, context)
        return 0

    return entry


def _with_event(self: Any, context: Any, event: Any) -> None:
    """Stand for a handler that a strategy does not have."""


def _without_event(self: Any, context: Any) -> None:
    """Stand for a handler that a strategy does not have."""


def _offer(owner: type, function: Callable[..., Any], is_ours: Callable[[Any], bool]) -> None:
    """Let numba find a method of the values that `is_ours` knows by their type: it compiles the function as it stands.

    `numba.extending.overload_method` offers a name to all types of a kind, where it would hide fields of that name.
    """

    @functools.wraps(function)
    def typed(self: Any, *_: Any, **__: Any) -> Any:
        return function if is_ours(self) else None

    general = templates.make_overload_method_template(owner, function.__name__, typed, "never")

    class Template(general):  # type: ignore[misc, valid-type]
        def _resolve(self, value: Any, name: str) -> Any:
            return super()._resolve(value, name) if is_ours(value) else None

    templates.infer_getattr(Template)
    numba.extending.overload(typed)(typed)


for _function in vars(Context).copy().values():
    if inspect.isfunction(_function) and not _function.__name__.startswith("__"):
        _offer(types.NamedTuple, _function, lambda each: each.instance_class is Context)


def _reason(error: Exception, file: str) -> str:
    """Say in a line why the compiler refused: its last words, and the last line of the strategy that it names."""
    text = str(error)
    lines = [each.strip() for each in text.splitlines() if each.strip()]
    said = next(
        (each for each in lines if not each.startswith(("Failed in", "-", "During", "File", "Rejected"))), lines[0]
    )
    if NO_TEXT in text:
        said = NO_TEXT
    elif field := re.fullmatch(r"'(\w+)'", said):
        said = f"self.{field[1]} is not declared in the class"
    name = file.rpartition("/")[2]
    places = [each for each in lines if (name in each and "line" in each) or f"{name} (" in each]
    return f"{said} ({places[-1]})" if places else said


# The cache.


class _Locator:
    """Where compiled strategies lie."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def get_cache_path(self) -> str:
        return self._folder

    def get_source_stamp(self) -> str:
        return "the name holds the digest of the source"

    def ensure_cache_path(self) -> None:
        """Whoever gives the folder has made it."""


class _Implementation(caching.CompileResultCacheImpl):
    def __init__(self, key: str, folder: str) -> None:
        self._key = key
        self._own_locator = _Locator(folder)

    @property
    def locator(self) -> _Locator:
        return self._own_locator

    @property
    def filename_base(self) -> str:
        return self._key


class _Cache(caching.Cache):
    """A cache under a name that we give: numba's own takes a closure for another one in each process."""

    def __init__(self, function: Any, key: str, folder: str) -> None:
        self._key = key
        self._impl_class: Any = lambda _: _Implementation(key, folder)
        super().__init__(function)  # type: ignore[no-untyped-call]

    def _index_key(self, signature: Any, codegen: Any) -> Any:
        return signature, codegen.magic_tuple(), self._key
