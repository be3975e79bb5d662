"""What a trader's own strategy sees and does: the context that its handlers get, the same compiled and as Python.

Methods are written for both: numba compiles them as they stand into a compiled strategy (`engine.own`), Python runs
them on the same arrays. Nothing here reaches beyond the present: columns hold what was known at the last close.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from daemon.core.ticks import BUY, SELL
from daemon.engine.levels import NO_ASK, NO_BID
from daemon.engine.orders import Force, Kind

if TYPE_CHECKING:
    from daemon.core.market import Float64s, Int64s
    from daemon.engine.orders import Records

HERE: Final = -1
"""The symbol that a handler was called for."""

MARKET: Final = 0.0
"""In place of a price: a market order."""

MOST_REQUESTS: Final = 1_024
"""Orders, cancels and replacements that one call of a handler may ask for."""

GTC: Final = int(Force.GTC)
IOC: Final = int(Force.IOC)
FOK: Final = int(Force.FOK)

NEW: Final = 0
CANCEL: Final = 1
REPLACE: Final = 2

REQUEST: Final = np.dtype(
    [
        ("what", "i8"),
        ("order", "i8"),
        ("symbol", "i8"),
        ("kind", "i8"),
        ("side", "i8"),
        ("force", "i8"),
        ("quantity", "f8"),
        ("price", "f8"),
        ("stop", "f8"),
        ("good_ns", "i8"),
        ("post_only", "i8"),
        ("reduce_only", "i8"),
    ],
    align=True,
)
"""What a handler asks for. order: its id; of CANCEL nothing else counts, of REPLACE quantity and price do."""

EVENT: Final = np.dtype(
    [
        ("kind", "i8"),
        ("symbol", "i8"),
        ("now_ns", "i8"),  # when the strategy sees it
        ("price", "f8"),
        ("size", "f8"),
        ("side", "i8"),
        ("order", "i8"),
        ("is_maker", "i8"),
    ],
    align=True,
)
"""What a handler is called for. size: of a trade or a fill, base units."""

_MARKET_KIND, _LIMIT_KIND, _STOP_KIND, _STOP_LIMIT_KIND = (
    int(Kind.MARKET),
    int(Kind.LIMIT),
    int(Kind.STOP),
    int(Kind.STOP_LIMIT),
)


class Bar(NamedTuple):
    """The bar that has closed. volume: base units."""

    open: float
    high: float
    low: float
    close: float
    volume: float


class Trade(NamedTuple):
    """A trade of the market. side: of the aggressor, BUY, SELL, or 0 where unknown."""

    price: float
    size: float
    side: int


class Fill(NamedTuple):
    """A fill of one of the strategy's orders. side: BUY or SELL."""

    order: int
    side: int
    quantity: float
    price: float
    is_maker: bool


class Context(NamedTuple):
    """What a handler gets beside its event. `symbol` is a place in the configuration's symbols, HERE by default.

    Prices and money are quote currency, quantities base units, times ns UTC. What is not known is NaN.
    """

    account: Records
    symbols: Records
    orders: Records
    books: Records
    sizes: Int64s
    requests: Records
    event: Records
    values: Float64s
    columns: Float64s

    # What is known.

    def now(self) -> int:
        """Return the strategy's clock: the venue's time of the event, and the feed latency."""
        return self.event["now_ns"][0]  # type: ignore[no-any-return]

    def symbol(self) -> int:
        """Return the place of the symbol that the handler was called for."""
        return self.event["symbol"][0]  # type: ignore[no-any-return]

    def symbol_count(self) -> int:
        """Return how many symbols there are."""
        return self.symbols.size

    def cash(self) -> float:
        """Return the account's cash."""
        return self.account["cash"][0]  # type: ignore[no-any-return]

    def equity(self) -> float:
        """Return cash plus what positions are worth at the last prices."""
        worth = self.account["cash"][0]
        for each in range(self.symbols.size):
            worth += self.symbols["quantity"][each] * self.symbols["mark"][each]
        return worth  # type: ignore[no-any-return]

    def position(self, symbol: int = HERE) -> float:
        """Return the base units held, negative when short."""
        at = self._at(symbol)
        return self.symbols["quantity"][at]  # type: ignore[no-any-return]

    def entry_price(self, symbol: int = HERE) -> float:
        """Return the position's average price, NaN when flat."""
        at = self._at(symbol)
        if self.symbols["quantity"][at] == 0.0:
            return np.nan
        return self.symbols["entry_price"][at]  # type: ignore[no-any-return]

    def tick(self, symbol: int = HERE) -> float:
        """Return the step of prices, 0 where there is none."""
        at = self._at(symbol)
        return self.symbols["tick"][at]  # type: ignore[no-any-return]

    def lot(self, symbol: int = HERE) -> float:
        """Return the step of quantities, 0 where there is none."""
        at = self._at(symbol)
        return self.symbols["lot"][at]  # type: ignore[no-any-return]

    # Prices.

    def price(self, symbol: int = HERE) -> float:
        """Return the last price: of a trade, or of a bar's close; NaN before the first."""
        at = self._at(symbol)
        mark = self.symbols["mark"][at]
        return mark if mark > 0.0 else np.nan

    def bid(self, symbol: int = HERE) -> float:
        """Return the best bid of the book, or of the last quote."""
        at = self._at(symbol)
        if self.books["scale"][at] > 0.0:
            best = self.books["bid"][at]
            return best / self.books["scale"][at] if best != NO_BID else np.nan
        quoted = self.symbols["bid"][at]
        return quoted if quoted > 0.0 else np.nan

    def ask(self, symbol: int = HERE) -> float:
        """Return the best ask of the book, or of the last quote."""
        at = self._at(symbol)
        if self.books["scale"][at] > 0.0:
            best = self.books["ask"][at]
            return best / self.books["scale"][at] if best != NO_ASK else np.nan
        quoted = self.symbols["ask"][at]
        return quoted if quoted > 0.0 else np.nan

    def depth(self, side: int, price: float, symbol: int = HERE) -> float:
        """Return what a side of the book shows from its best level up to a price; NaN without a book.

        side: BUY for bids. Levels farther from the market than `engine.levels.WINDOW` do not count.
        """
        at = self._at(symbol)
        scale = self.books["scale"][at]
        if not scale > 0.0:
            return np.nan
        row = 0 if side > 0 else 1
        best = self.books["bid"][at] if side > 0 else self.books["ask"][at]
        if best in (NO_BID, NO_ASK):
            return 0.0
        base, window = self.books["base"][at], self.sizes.shape[2]
        last = np.int64(np.rint(price * scale)) - base
        first = best - base
        low, high = (max(last, 0), min(first, window - 1)) if side > 0 else (max(first, 0), min(last, window - 1))
        shown = 0
        for slot in range(low, high + 1):
            shown += self.sizes[at, row, slot]
        return shown / self.books["size_scale"][at]  # type: ignore[no-any-return]

    # Columns, as known at the last close.

    def bar_count(self, symbol: int = HERE) -> int:
        """Return how many bars of a symbol have closed."""
        at = self._at(symbol)
        return self.symbols["row"][at] - self.symbols["first_row"][at]  # type: ignore[no-any-return]

    def close(self, back: int = 0, symbol: int = HERE) -> float:
        """Return the close of the last bar, or of `back` bars before it; NaN before the first, ValueError below 0."""
        row = self._row(back, symbol)
        return self.values[3, row] if row >= 0 else np.nan

    def value(self, column: int, back: int = 0, symbol: int = HERE) -> float:
        """Return a declared column as of the last bar's close, or of `back` bars before; NaN before the first bar.

        ValueError for a `back` below 0, a bar that has not closed yet, and for a column that is not declared.
        """
        row = self._row(back, symbol)
        if not 0 <= column < self.columns.shape[0]:
            raise ValueError("there is no such column: declare it in the class, and give what stands there")
        return self.columns[column, row] if row >= 0 else np.nan

    def _at(self, symbol: int) -> int:
        # Compiled, nothing else would stop who reads beyond the arrays.
        at = self.event["symbol"][0] if symbol < 0 else symbol
        if at >= self.symbols.size:
            raise ValueError("there is no such symbol: the configuration has fewer, and the first is 0")
        return at

    def _row(self, back: int, symbol: int) -> int:
        if back < 0:
            raise ValueError("a strategy cannot look ahead: `back` is below 0")
        at = self._at(symbol)
        row = self.symbols["row"][at] - 1 - back
        return row if row >= self.symbols["first_row"][at] else -1

    # Orders.

    def submit(
        self,
        side: int,
        quantity: float,
        price: float = MARKET,
        symbol: int = HERE,
        stop: float = 0.0,
        force: int = GTC,
        post_only: bool = False,  # noqa: FBT001, FBT002 - kernels take scalars by place
        reduce_only: bool = False,  # noqa: FBT001, FBT002
        good_ns: int = 0,
    ) -> int:
        """Send an order and return its id: a limit at `price`, or a market order; `stop` makes it wait for that price.

        side: BUY or SELL. force: GTC, IOC or FOK. good_ns: for how long it stays, 0 for ever. What no venue would take
        (a quantity that is not above 0, NaN, no such side) is reported as rejected and has an id as well.
        ValueError beyond MOST_REQUESTS in one call, or for a symbol that there is not.
        """
        at = self._at(symbol)
        order = self.account["next_id"][0] + self.account["new_requests"][0] + 1
        row = self._request(NEW, order)
        self.account["new_requests"][0] += 1
        self.requests["symbol"][row] = at
        if stop == 0.0:
            self.requests["kind"][row] = _MARKET_KIND if price == MARKET else _LIMIT_KIND
        else:
            self.requests["kind"][row] = _STOP_KIND if price == MARKET else _STOP_LIMIT_KIND
        self.requests["side"][row] = side
        self.requests["force"][row] = force
        self.requests["quantity"][row] = quantity
        self.requests["price"][row] = price
        self.requests["stop"][row] = stop
        self.requests["post_only"][row] = post_only
        self.requests["reduce_only"][row] = reduce_only
        self.requests["good_ns"][row] = good_ns
        return order  # type: ignore[no-any-return]

    def cancel(self, order: int) -> None:
        """Ask for an order's end. One that is not there when the cancel arrives is counted, nothing else happens."""
        self._request(CANCEL, order)

    def replace(self, order: int, quantity: float, price: float) -> None:
        """Ask for another quantity (what is still to fill) and price of a limit order, which keeps its id."""
        row = self._request(REPLACE, order)
        self.requests["quantity"][row] = quantity
        self.requests["price"][row] = price

    def remaining(self, order: int) -> float:
        """Return what is still to fill of an order, on its way or at the venue; 0 for one that has ended."""
        for symbol in range(self.symbols.size):
            for place in range(self.symbols["orders"][symbol]):
                if self.orders["id"][symbol, place] == order and not self.orders["is_done"][symbol, place]:
                    return self.orders["quantity"][symbol, place]  # type: ignore[no-any-return]
        return 0.0

    def order_count(self, symbol: int = HERE) -> int:
        """Return how many orders of a symbol work or are on their way."""
        at = self._at(symbol)
        return self.symbols["orders"][at]  # type: ignore[no-any-return]

    def _request(self, what: int, order: int) -> int:
        row = self.account["requests"][0]
        if row >= MOST_REQUESTS:
            raise ValueError("more orders, cancels and replacements in one call than a strategy may ask for")
        self.account["requests"][0] = row + 1
        self.requests["what"][row] = what
        self.requests["order"][row] = order
        self.requests["symbol"][row] = self.event["symbol"][0]
        return row  # type: ignore[no-any-return]


class Parameter:
    """A number that a run may set and an optimisation vary, between low and high in steps.

    Written in a strategy's class: `half_spread = Parameter(2.0, low=1.0, high=8.0, step=0.5)`; handlers read
    `self.half_spread`, a float. ValueError for a range that is none, or that does not hold its default.
    """

    def __init__(self, default: float, *, low: float, high: float, step: float) -> None:
        if not (low <= default <= high and step > 0.0):
            raise ValueError(f"{default} from {low} to {high} in steps of {step}: low <= default <= high, step above 0")
        self.default, self.low, self.high, self.step = float(default), float(low), float(high), float(step)


class Column:
    """A column of the engine's, by name: `rsi = Column("rsi_14")`, read as `context.value(self.rsi)`."""

    def __init__(self, name: str) -> None:
        self.name = name


class Strategy:
    """What a trader's own strategy derives from: a class with at least one of the handlers below.

    Class attributes that are a Parameter or a Column are read-only numbers for handlers; others that are a bool, int,
    float or array of those are the strategy's state, which handlers may set. every_ms: how often `on_timer` is called.

    Handlers, each with the context first: `on_bar(self, context, bar)` at a symbol's close, `on_trade(self, context,
    trade)`, `on_book(self, context)` after each event of a book that is sound, `on_fill(self, context, fill)`,
    `on_timer(self, context)`.
    """

    every_ms: float = 1_000.0


__all__ = [
    "BUY",
    "CANCEL",
    "EVENT",
    "FOK",
    "GTC",
    "HERE",
    "IOC",
    "MARKET",
    "MOST_REQUESTS",
    "NEW",
    "REPLACE",
    "REQUEST",
    "SELL",
    "Bar",
    "Column",
    "Context",
    "Fill",
    "Parameter",
    "Strategy",
    "Trade",
]
