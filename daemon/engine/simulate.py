"""A run of the backtester: what the loop over events needs, laid out; its pauses; what it leaves.

At one time: bars that end then are matched, funding is paid, listed orders sent before are there, strategies decide at
the closes, the equity is sampled, and then come quotes and trades of that time, in the order of their feeds. Ticks are
fed chunk by chunk; between chunks, and every so many events, the loop returns: its whole state is the records of
`orders`, so it goes on where it stopped, and memory does not grow with the ticks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from daemon.core.backtest import OrderBook, slippages_of
from daemon.core.market import NS_PER_DAY, Float64s, Int64s
from daemon.engine import ladders
from daemon.engine.costs import record_of
from daemon.engine.ladders import NO_LADDERS, Ladders
from daemon.engine.loop import LOG_MARGIN, ORDERS_A_SYMBOL, QUOTES, TRADES, Decisions, Feeds, Pause, step
from daemon.engine.orders import ACCOUNT, LOG, NEVER_NS, ORDER, SYMBOL, Records, listed_orders, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from daemon.core.backtest import BacktestSpec

_COLUMNS: Final = tuple(name for name in Decisions._fields if name != "ladders")
_LOG_ROWS: Final = 32_768
_SAMPLES: Final = 65_536
_EVENTS_A_STEP: Final = 2_000_000


class Chunk(NamedTuple):
    """Ticks of one feed: (n,) int64 ns UTC ascending, and two (n,) float64 columns."""

    time_ns: Int64s
    first: Float64s
    second: Float64s


class Feed(NamedTuple):
    """A stream of ticks. symbol: place in the specification's markets. kind: TRADES or QUOTES."""

    symbol: int
    kind: int
    chunks: Iterator[Chunk]


class Samples(NamedTuple):
    """The account at bars' closes: time_ns (n,) int64; equity, cash, worth of positions, their unrealised pnl."""

    time_ns: Int64s
    equity: Float64s
    cash: Float64s
    worth: Float64s
    unrealised: Float64s


class Outcome(NamedTuple):
    """What a run leaves. log: LOG records. events: bars and ticks. tries: bars that were walked both ways."""

    log: Records
    samples: Samples
    events: int
    tries: int


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
        chunk_rows: int = 65_536,
    ) -> None:
        """Prepare a run.

        bars: one a market of the specification, in its order. feeds: streams of ticks, none for fills on bars.
        orders: ORDER records in order of sent_ns, instead of those of the specification's own list.
        """
        count = len(bars)
        self._feeds = list(feeds)
        columns = {name: _joined([getattr(each, name) for each in bars]) for name in _COLUMNS}
        self._decisions = Decisions(**columns, ladders=_ladders_of(spec, bars))
        self._width_ns = spec.timeframe.ns
        self._settings = settings_of(spec, year_days, optimistic=optimistic)
        self._costs = record_of(spec.costs, slippages_of(spec), spec.timeframe.ns / NS_PER_DAY)
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
            np.array([feed.symbol for feed in self._feeds] or [0], dtype=np.int64),
            np.array([feed.kind for feed in self._feeds] or [TRADES], dtype=np.int64),
            np.zeros(rows, dtype=np.int64),
            np.zeros(rows, dtype=np.int64),
            np.full(rows, not self._feeds, dtype=np.uint8),
        )

    def run(self, checkpoint: Callable[[Progress], None] = lambda _: None) -> Outcome:
        """Run to the end of the data. checkpoint: called between steps; what it raises ends the run."""
        while (pause := self._step()) is not Pause.DONE:
            if pause is Pause.WANTS_TICKS:
                self._refill(int(self._account["wanted_feed"][0]))
            else:
                self._drain()
            checkpoint(Progress(int(self._account["now_ns"][0]), int(self._account["events"][0])))
        if self._account["lost_rows"][0]:
            raise OverflowError(f"one event made more than {self._log.size:,} fills: too many orders at one price")
        self._drain()
        samples = Samples._make(_joined(list(columns)) for columns in zip(*self._kept_samples, strict=True))
        events, tries = int(self._account["events"][0]), int(self._account["tries"][0])
        return Outcome(_joined(self._kept), samples, events, tries)

    def _step(self) -> Pause:
        return Pause(
            step(
                self._orders,
                self._symbols,
                self._account,
                self._settings,
                self._costs,
                self._listed,
                self._decisions,
                self._ticks,
                self._width_ns,
                _EVENTS_A_STEP,
                self._spare,
                self._log,
                self._sample_ns,
                self._samples,
            )
        )

    def _place(self, bars: Sequence[Decisions], spec: BacktestSpec) -> None:
        row = funding_row = 0
        for symbol, (each, market) in enumerate(zip(bars, spec.markets, strict=True)):
            values: dict[str, float] = {
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
        ticks = self._ticks
        chunk = next(self._feeds[feed].chunks, None)
        ticks.at[feed] = ticks.stop[feed] = 0
        if chunk is None:
            ticks.is_over[feed] = 1
            return
        size = chunk.time_ns.size
        if size > ticks.time_ns.shape[1]:
            self._ticks = ticks = self._wider(size)
        for column, values in zip(ticks[:3], chunk, strict=True):
            column[feed, :size] = values
        ticks.stop[feed] = size

    def _wider(self, size: int) -> Feeds:
        old = self._ticks
        rows, width = old.time_ns.shape
        wide = old._replace(
            time_ns=np.zeros((rows, size), dtype=np.int64), first=np.zeros((rows, size)), second=np.zeros((rows, size))
        )
        for new, column in zip(wide[:3], old[:3], strict=True):
            new[:, :width] = column
        return wide

    def _drain(self) -> None:
        rows, samples = int(self._account["log_rows"][0]), int(self._account["samples"][0])
        self._kept.append(self._log[:rows].copy())
        self._kept_samples.append(
            Samples(self._sample_ns[:samples].copy(), *(column[:samples].copy() for column in self._samples))
        )
        self._account["log_rows"] = self._account["samples"] = 0


def _ladders_of(spec: BacktestSpec, bars: Sequence[Decisions]) -> Ladders:
    """Lay the books of all symbols one after another, where any pays by them."""
    if not any(isinstance(each, OrderBook) for each in slippages_of(spec)):
        return NO_LADDERS
    return ladders.joined([each.ladders for each in bars], [each.close_ns.size for each in bars])


def _joined(columns: list[Records]) -> Records:
    """Lay columns, or parts of one, one after another; a single one as it is."""
    return columns[0] if len(columns) == 1 else np.concatenate(columns, axis=-1)


__all__ = ["QUOTES", "TRADES", "Chunk", "Decisions", "Feed", "Outcome", "Progress", "Samples", "Simulation"]
