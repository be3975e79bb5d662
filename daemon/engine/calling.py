"""An own strategy called from outside of the loop: as Python, and again and again to see how fast it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daemon.engine.context import Bar, Fill, Trade
from daemon.engine.intrinsics import call_at
from daemon.engine.jit import kernel
from daemon.engine.methods import fraction_lost, whole_fields
from daemon.engine.orders import Records
from daemon.engine.own import NAMES, Handler

if TYPE_CHECKING:
    from daemon.engine.context import Context, Strategy
    from daemon.engine.own import Compiled, OwnStrategy

# Comparing with a member of an enumeration costs more than the rest of a call.
_BAR, _TRADE, _FILL = int(Handler.BAR), int(Handler.TRADE), int(Handler.FILL)


def instance_of(own: OwnStrategy, record: Records, compiled: Compiled) -> Strategy:
    """Make the object that handlers get when they run as Python: its fields are those of the record.

    Where any does, the file is run anew: a list above the class would hold what another run has put there.
    """
    cls = own.anew() if own.anew is not None and compiled.uncompiled else own.made
    members: dict[str, Any] = {
        name: _field(record, name, is_state=name in own.state) for name in record.dtype.names or ()
    }
    made: Strategy = type(cls.__name__, (cls,), members)()
    return made


def _field(record: Records, name: str, *, is_state: bool) -> property:
    column = record[name]
    is_array = column.ndim > 1
    kind = whole_fields(record.dtype).get(name, "")

    def read(_: object) -> Any:
        return column[0] if is_array else column[0].item()

    def write(_: object, value: Any) -> None:
        if kind and value != column.dtype.type(value):
            raise ValueError(fraction_lost(name, kind))
        column[0] = value

    return property(read, write if is_state else None)


class Caller:
    """Calls handlers as Python, at every bar perhaps: what it reads is looked up once."""

    def __init__(self, own: OwnStrategy, instance: Strategy, context: Context) -> None:
        """Take a context whose arrays are those that the loop writes."""
        self._handlers: list[Any] = [
            getattr(instance, NAMES[kind]) if kind in own.handlers else None for kind in Handler
        ]
        self._context = context
        event: Any = context.event
        self._kind, self._symbol, self._row = event["kind"], event["symbol"], context.symbols["row"]
        self._trade = [event[name] for name in ("price", "size", "side")]
        self._fill = [event[name] for name in ("order", "side", "size", "price", "is_maker")]

    def call(self) -> None:
        """Call the handler that the context's event is for."""
        kind, context = self._kind.item(0), self._context
        handler = self._handlers[kind]
        if kind == _BAR:
            row = self._row.item(self._symbol.item(0)) - 1
            handler(context, Bar._make(context.values[:, row].tolist()))
        elif kind == _TRADE:
            handler(context, Trade._make(column.item(0) for column in self._trade))
        elif kind == _FILL:
            order, side, size, price, is_maker = (column.item(0) for column in self._fill)
            handler(context, Fill(order, side, size, price, bool(is_maker)))
        else:
            handler(context)

    def call_often(self, kind: Handler, times: int) -> None:
        """Call a handler again and again, as things stand; what it asks for is dropped."""
        account: Any = self._context.account
        requests, new_requests = account["requests"], account["new_requests"]
        self._kind[0] = kind
        for _ in range(times):
            requests[0] = new_requests[0] = 0
            self.call()


@kernel
def call_often(address: int, table: int, account: Records, handler: int, times: int) -> None:
    """Do as `Caller.call_often` with a compiled handler, at an address with its table."""
    for _ in range(times):
        account[0].requests = 0
        account[0].new_requests = 0
        call_at(address, table, handler)
