"""A run of the backtester: what the loop over events needs, laid out; its pauses; what it leaves.

At one time: bars that end then are matched, funding is paid, listed orders sent before are there, strategies decide at
the closes, the equity is sampled, and then come quotes and trades of that time, in the order of their feeds. Ticks are
fed chunk by chunk; between chunks, and every so many events, the loop returns: its whole state is the records of
`orders`, so it goes on where it stopped, and memory does not grow with the ticks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import numpy as np

from daemon.core.backtest import NoSlippage, OrderBook, slippages_of
from daemon.core.market import NS_PER_DAY, Float64s, Int64s
from daemon.engine import ladders
from daemon.engine.book import LAST, DepthRows, depth_rows, lay
from daemon.engine.calling import Caller, call_often, instance_of
from daemon.engine.context import Context
from daemon.engine.costs import record_of as costs_of
from daemon.engine.feeds import DEPTH, QUOTES, TRADES, Closes, Decisions, Feeds, Pause
from daemon.engine.jit import typed_entry
from daemon.engine.ladders import NO_LADDERS, Ladders
from daemon.engine.latency import delays_of
from daemon.engine.levels import make_books, rescale
from daemon.engine.loop import LOG_MARGIN, ORDERS_A_SYMBOL, step
from daemon.engine.orders import ACCOUNT, LOG, NEVER_NS, ORDER, SYMBOL, Records
from daemon.engine.own import compile_strategy, modes_of, record_of, table_of
from daemon.engine.requests import calls_of, no_calls
from daemon.engine.settings import listed_orders, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from daemon.core.backtest import BacktestSpec
    from daemon.engine.latency import Delays
    from daemon.engine.own import Compiled, Handler, OwnStrategy

_DONE, _CALL = int(Pause.DONE), int(Pause.CALL)
_LOG_ROWS: Final = 32_768
_SAMPLES: Final = 65_536
_EVENTS_A_STEP: Final = 2_000_000
_CALLS_A_BREATH: Final = 1_000


class Chunk(NamedTuple):
    """Ticks of one feed: (n,) int64 ns UTC ascending, and two (n,) float64 columns.

    aggressor: of trades against a book, (n,) int8, 1 bought, -1 sold, 0 unknown; None where nobody asks.
    """

    time_ns: Int64s
    first: Float64s
    second: Float64s
    aggressor: Records | None = None


class DepthChunk(NamedTuple):
    """Rows of depth as they are stored: (n,) columns, whole numbers of 10^-decimals."""

    time_ns: Int64s
    id: Int64s
    side: Records
    price: Int64s
    size: Int64s
    flags: Records
    price_decimals: int
    size_decimals: int


class Feed(NamedTuple):
    """A stream of ticks. symbol: place in the specification's markets. kind: TRADES, QUOTES or DEPTH.

    chunks: of Chunk, or of DepthChunk. Against a book a symbol's trades come before its depth.
    """

    symbol: int
    kind: int
    chunks: Iterator[Chunk] | Iterator[DepthChunk]


class OwnRun(NamedTuple):
    """An own strategy to be run. parameters: values by name, the others have their defaults.

    columns: by symbol (k, bars) float64, in the order in which the strategy declares them. folder: for what is
    compiled, "" to compile anew. start_ns: nothing is told before.
    """

    strategy: OwnStrategy
    parameters: Mapping[str, float]
    columns: Sequence[Float64s]
    folder: str = ""
    start_ns: int = 0


class Samples(NamedTuple):
    """The account at bars' closes: time_ns (n,) int64; equity, cash, worth of positions, their unrealised pnl."""

    time_ns: Int64s
    equity: Float64s
    cash: Float64s
    worth: Float64s
    unrealised: Float64s


class Outcome(NamedTuple):
    """What a run leaves. log: LOG records. events: bars and ticks. tries: bars that were walked both ways.

    books: STATE records of the symbols, empty for a run without. lost_cancels: cancels and replacements of orders that
    were not there.
    """

    log: Records
    samples: Samples
    events: int
    tries: int
    books: Records
    lost_cancels: int


class Progress(NamedTuple):
    """Where a run is: market time and events so far."""

    now_ns: int
    events: int


class Simulation:
    """One run. Make it, `run` it to the end; between steps a checkpoint may end it."""

    def __init__(
        self,
        spec: BacktestSpec,
        bars: Sequence[Decisions],
        feeds: Sequence[Feed] = (),
        *,
        optimistic: bool = False,
        year_days: int = 365,
        orders: Records | None = None,
        own: OwnRun | None = None,
        delays: Delays | None = None,
        chunk_rows: int = 65_536,
    ) -> None:
        """Prepare a run.

        bars: one a market of the specification, in its order. feeds: streams of ticks, none for fills on bars.
        orders: ORDER records in order of sent_ns, instead of those of the specification's own list. own: the strategy
        of a specification whose program is one. delays: of its messages, where they are not the specification's
        constants.
        """
        count = len(bars)
        self._feeds = list(feeds)
        columns = {name: _joined([getattr(each, name) for each in bars]) for name in Closes._fields}
        self._closes = Closes(**columns)
        self._ladders = _ladders_of(spec, bars)
        self._width_ns = spec.timeframe.ns
        self._settings = settings_of(spec, year_days, optimistic=optimistic)
        on_book = spec.fills == "book"
        # Who takes from a book pays its levels, and nothing beside.
        slippages = [NoSlippage()] * count if on_book else slippages_of(spec)
        self._costs = costs_of(spec.costs, slippages, spec.timeframe.ns / NS_PER_DAY)
        self._symbols = np.zeros(count, dtype=SYMBOL)
        self._orders = np.zeros((count, ORDERS_A_SYMBOL), dtype=ORDER)
        self._spare = np.zeros(ORDERS_A_SYMBOL, dtype=ORDER)
        self._account = np.zeros(1, dtype=ACCOUNT)
        self._account["cash"] = spec.account.initial_capital
        self._listed = listed_orders(spec) if orders is None else orders
        # Not cleared: rows are read once they are written, and most runs write few of these ten megabytes.
        self._log = np.empty(_LOG_ROWS + LOG_MARGIN * count, dtype=LOG)
        self._samples = np.empty((4, _SAMPLES))
        self._sample_ns = np.empty(_SAMPLES, dtype=np.int64)
        self._kept: list[Records] = []
        self._kept_samples: list[Samples] = []
        self._place(bars, spec)
        width = chunk_rows if feeds else 1
        rows = max(len(self._feeds), 1)
        self._ticks = Feeds(
            np.zeros((rows, width), dtype=np.int64),
            np.zeros((rows, width)),
            np.zeros((rows, width)),
            np.zeros((rows, width), dtype=np.int8),
            np.array([feed.symbol for feed in self._feeds] or [0], dtype=np.int64),
            np.array([feed.kind for feed in self._feeds] or [TRADES], dtype=np.int64),
            np.zeros(rows, dtype=np.int64),
            np.zeros(rows, dtype=np.int64),
            np.full(rows, not self._feeds, dtype=np.uint8),
        )
        self._depth = depth_rows(rows, width if on_book else 1)._replace(time_ns=self._ticks.time_ns)
        self._books = make_books(count) if on_book else make_books(count, window=64, most_far=1)
        self._laid = [_Laid(feed.symbol) for feed in self._feeds]
        self._delays = delays or delays_of(spec.latency, [None] * count)
        self._calls = no_calls()
        self._own = None if own is None else self._prepare(own, bars)
        # Of `step`, while they are the same arrays: a strategy that runs as Python goes in and out at every call.
        self._arguments: tuple[Any, ...] | None = None
        self._resume: Callable[..., int] = step

    def _prepare(self, own: OwnRun, bars: Sequence[Decisions]) -> _Own:
        """Lay out what a strategy sees, and compile it."""
        strategy = own.strategy
        compiled = compile_strategy(strategy, own.folder)
        first_ns = min(int(each.close_ns[0]) for each in bars if each.close_ns.size) - self._width_ns
        self._calls = calls_of(len(bars), modes_of(strategy, compiled), max(own.start_ns, first_ns), strategy.timer_ns)
        columns = (
            _joined([np.atleast_2d(each) for each in own.columns])
            if strategy.columns
            else np.zeros((1, self._closes.close_ns.size))
        )
        context = Context(
            self._account,
            self._symbols,
            self._orders,
            self._books.state,
            self._books.sizes,
            self._calls.requests,
            self._calls.event,
            self._closes.values,
            np.ascontiguousarray(columns),
        )
        record = record_of(strategy, own.parameters)
        table = table_of(context, record)
        self._calls.places[:] = compiled.address, table.ctypes.data
        if strategy.timer_ns:
            self._account["timer_ns"] = self._account["timer_at_ns"] = (
                -(-self._calls.start_ns[0] // strategy.timer_ns) * strategy.timer_ns
            )
        caller = Caller(strategy, instance_of(strategy, record, compiled), context)
        return _Own(compiled, caller, record, table)

    @property
    def compiled(self) -> Compiled | None:
        """What of an own strategy was compiled, and what was not and why; None for a run without one."""
        return None if self._own is None else self._own.compiled

    def call_often(self, handler: Handler, times: int) -> None:
        """Call a handler of the run's own strategy again and again, as things stand: to see how fast it is."""
        if self._own is not None and handler in self._own.compiled.handlers:
            call_often(self._own.compiled.address, self._own.table.ctypes.data, self._account, int(handler), times)
        elif self._own is not None:
            self._own.caller.call_often(handler, times)

    def run(self, checkpoint: Callable[[Progress], None] = lambda _: None) -> Outcome:
        """Run to the end of the data. checkpoint: called between steps; what it raises ends the run."""
        calls = 0
        while (pause := self._step()) != _DONE:
            if pause == _CALL and self._own is not None:
                self._own.caller.call()
                calls += 1
                if calls % _CALLS_A_BREATH:
                    continue
            elif pause == Pause.WANTS_TICKS:
                self._refill(int(self._account["wanted_feed"][0]))
            else:
                self._drain()
            checkpoint(Progress(int(self._account["now_ns"][0]), int(self._account["events"][0])))
        if self._account["lost_rows"][0]:
            raise OverflowError(f"one event made more than {self._log.size:,} fills: too many orders at one price")
        self._drain()
        samples = Samples._make(_joined(list(columns)) for columns in zip(*self._kept_samples, strict=True))
        events, tries = int(self._account["events"][0]), int(self._account["tries"][0])
        return Outcome(
            _joined(self._kept),
            samples,
            events,
            tries,
            self._books.state if self._settings["on_book"][0] else self._books.state[:0],
            int(self._account["lost_cancels"][0]),
        )

    def _step(self) -> int:
        try:
            return self._stepped()
        except Exception:
            # Compiled code knows the line that raised, but not who called it: as Python the same call says both.
            if self._own is not None and int(self._calls.event["kind"][0]) in self._own.compiled.handlers:
                self._own.caller.call()
            raise

    def _stepped(self) -> int:
        if self._arguments is None:
            self._arguments = (
                self._orders, self._symbols, self._account, self._settings, self._costs, self._listed, self._closes,
                self._ladders, self._ticks, self._depth, self._books, self._calls, self._delays, self._width_ns,
                _EVENTS_A_STEP, self._spare, self._log, self._sample_ns, self._samples,
            )  # fmt: skip
            pause: int = step(*self._arguments)
            self._resume = typed_entry(step)
            return pause
        return int(self._resume(*self._arguments))

    def _place(self, bars: Sequence[Decisions], spec: BacktestSpec) -> None:
        row = funding_row = 0
        for symbol, (each, market) in enumerate(zip(bars, spec.markets, strict=True)):
            values: dict[str, float] = {
                "first_row": row,
                "row": row,
                "stop_row": row + each.close_ns.size,
                "funding_row": funding_row,
                "funding_stop": funding_row + each.funding_ns.size,
                "tick": market.tick_size,
                "lot": market.lot_size,
                "min_notional": market.min_notional,
                "room": np.inf,
                "ask_room": np.inf,
                "bid_room": np.inf,
                "volume": np.nan,
                "sigma": np.nan,
                "day_volume": np.nan,
                "high_trigger": np.inf,
                "wake_ns": NEVER_NS,
            }
            for name, value in values.items():
                self._symbols[name][symbol] = value
            row += each.close_ns.size
            funding_row += each.funding_ns.size

    def _refill(self, feed: int) -> None:
        """Lay a feed's next chunk into its row."""
        chunk = next(self._feeds[feed].chunks, None)
        if self._feeds[feed].kind == DEPTH:
            self._refill_depth(feed, cast("DepthChunk | None", chunk))
            return
        ticks = self._ticks
        ticks.at[feed] = ticks.stop[feed] = 0
        if chunk is None:
            ticks.is_over[feed] = 1
            return
        size = chunk.time_ns.size
        if size > ticks.time_ns.shape[1]:
            self._widen(size)
            ticks = self._ticks
        for column, values in zip(ticks[:4], chunk, strict=True):
            if values is not None:
                column[feed, :size] = values
        ticks.stop[feed] = size

    def _refill_depth(self, feed: int, chunk: DepthChunk | None) -> None:
        """Lay a chunk of depth; its last row is kept back, for only the next one tells whether it ends an event."""
        laid, kept, last = self._laid[feed], int(self._laid[feed].is_kept), int(self._ticks.stop[feed])
        if kept:
            for column in self._depth:
                column[feed, 0] = column[feed, last]
        self._ticks.at[feed] = self._ticks.stop[feed] = 0
        if chunk is None:
            self._depth.marks[feed, 0] |= LAST
            self._ticks.stop[feed] = kept
            self._ticks.is_over[feed] = 0 if kept else 1
            laid.is_kept = False
            return
        factors = self._scale(feed, chunk)
        size = chunk.time_ns.size + kept
        if size > self._ticks.time_ns.shape[1]:
            self._widen(size)
        is_same = kept and laid.last_id == chunk.id[0] and self._depth.time_ns[feed, 0] == chunk.time_ns[0]
        if kept and not is_same:
            self._depth.marks[feed, 0] |= LAST
        flags_before = laid.last_flags if is_same else 0
        columns = chunk.time_ns, chunk.id, chunk.side, chunk.price, chunk.size, chunk.flags
        laid.last_flags = int(lay(self._depth, feed, columns, *factors, flags_before, kept))
        laid.last_id, laid.is_kept = int(chunk.id[-1]), True
        self._ticks.stop[feed] = size - 1

    def _scale(self, feed: int, chunk: DepthChunk) -> tuple[int, int]:
        """Bring a chunk and what was laid before to common decimals; returns the factors of the chunk's integers."""
        laid, symbol = self._laid[feed], self._laid[feed].symbol
        before = laid.decimals or (chunk.price_decimals, chunk.size_decimals)
        laid.decimals = max(before[0], chunk.price_decimals), max(before[1], chunk.size_decimals)
        ours = [10 ** (new - old) for new, old in zip(laid.decimals, before, strict=True)]
        if ours != [1, 1]:
            rescale(self._books, symbol, *ours)
            self._orders["level"][symbol] *= ours[0]
            self._depth.tick[feed, 0] *= ours[0]
            self._depth.size[feed, 0] *= ours[1]
        state = self._books.state[symbol]
        state["scale"], state["size_scale"] = 10.0 ** laid.decimals[0], 10.0 ** laid.decimals[1]
        if self._symbols["tick"][symbol] == 0.0:
            self._symbols["tick"][symbol] = 1 / state["scale"]
        return 10 ** (laid.decimals[0] - chunk.price_decimals), 10 ** (laid.decimals[1] - chunk.size_decimals)

    def _widen(self, size: int) -> None:
        """Make room for larger chunks."""

        def wide(column: Records) -> Records:
            new = np.zeros((column.shape[0], size), dtype=column.dtype)
            new[:, : column.shape[1]] = column
            return new

        is_book = any(feed.kind == DEPTH for feed in self._feeds)
        time_ns, first, second, aggressor = map(wide, self._ticks[:4])
        self._ticks = Feeds(time_ns, first, second, aggressor, *self._ticks[4:])
        wider = [wide(column) if is_book else column for column in self._depth[1:]]
        self._depth = DepthRows(self._ticks.time_ns, *wider)
        self._arguments = None

    def _drain(self) -> None:
        rows, samples = int(self._account["log_rows"][0]), int(self._account["samples"][0])
        self._kept.append(self._log[:rows].copy())
        self._kept_samples.append(
            Samples(self._sample_ns[:samples].copy(), *(column[:samples].copy() for column in self._samples))
        )
        self._account["log_rows"] = self._account["told_rows"] = self._account["samples"] = 0


class _Laid:
    """Where a feed of depth is: decimals of its rows, and the one that is kept back."""

    def __init__(self, symbol: int) -> None:
        self.symbol = symbol
        self.decimals: tuple[int, int] | None = None
        self.is_kept = False
        self.last_id = -1
        self.last_flags = 0


class _Own(NamedTuple):
    """An own strategy under way. record, table: what compiled code reads by address, so they are kept."""

    compiled: Compiled
    caller: Caller
    record: Records
    table: Int64s


def _ladders_of(spec: BacktestSpec, bars: Sequence[Decisions]) -> Ladders:
    """Lay the books of all symbols one after another, where any pays by them."""
    if spec.fills == "book" or not any(isinstance(each, OrderBook) for each in slippages_of(spec)):
        return NO_LADDERS
    return ladders.joined([each.ladders for each in bars], [each.close_ns.size for each in bars])


def _joined(columns: list[Records]) -> Records:
    """Lay columns, or parts of one, one after another; a single one as it is.

    In C order, as kernels take them: of a bar here and none there NumPy may make a matrix in Fortran order.
    """
    return np.ascontiguousarray(columns[0] if len(columns) == 1 else np.concatenate(columns, axis=-1))


__all__ = ["DEPTH", "QUOTES", "TRADES", "Chunk", "Decisions", "Feed", "Outcome", "Progress", "Samples", "Simulation"]
