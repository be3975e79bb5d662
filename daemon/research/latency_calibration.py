"""A symbol's own feed latency: measured on the local and the venue's times of its stored ticks, taken by backtests.

`docs/backtest.md` says how the clocks are told apart; `engine.clock_offset` does it.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta

from daemon.core.errors import Code, InvalidRequest, NotFound
from daemon.core.market import NS_PER_SECOND, Int64s, Timeframe
from daemon.core.ticks import UNKNOWN_NS, Stream
from daemon.research.moments import time_range
from daemon.research.plans import parse_timeframe
from daemon.store import documents

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.core.market import Instrument, TsNs
    from daemon.engine.clock_offset import LeastDelays
    from daemon.engine.latency import MeasuredLatency
    from daemon.store.bars import BarStore
    from daemon.store.env import Transaction

FLOOR_MS: Final = 1.0
"""The least latency there is, unless the user says another."""

LEAST_MESSAGES: Final = 100
"""Fewer are no ground for telling clocks apart."""

MOST_BUCKETS: Final = 1_000_000
"""Of a stored series: 16 MB."""

LatencyStream: TypeAlias = Literal["depth", "quotes", "trades", "agg_trades"]

_DOCUMENT: Final = "latency"
_SERIES: Final = "latency-series"
_NS_PER_MS: Final = 1_000_000
_STREAMS: Final = (Stream.DEPTH, Stream.QUOTES, Stream.TRADES, Stream.AGG_TRADES)
_DTYPE: Final = np.dtype("<i8")


class LatencyRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to measure.

    stream: None for the first of depth, quotes and trades that has both times. bucket: a timeframe, None for the
    finest that makes no more than MOST_BUCKETS. floor_ms: the least latency there is. start, end: as
    `moments.time_range` reads them, None for all there is.
    """

    symbol: str
    stream: LatencyStream | None = None
    bucket: str | None = None
    floor_ms: Annotated[float, Meta(ge=0, le=10_000)] = FLOOR_MS
    start: str | None = None
    end: str | None = None


class LatencyCalibration(msgspec.Struct, frozen=True, rename="camel"):
    """A symbol's feed latency, in figures; the series itself is `series_of`.

    made_at, first, last: Unix ms; first and last message. rows: with both times, messages: those of them that arrived
    together counted once. buckets: points of the series, of how much time each. offset_ms: local clock less the venue's
    at the first message, taking floor_ms for the least latency. drift_ppm: how much the offset grows, us a second.
    wander_ms: what the fastest message of a tenth of the time took over the line at most. p50_ms to max_ms: of the
    messages.
    """

    symbol: str
    made_at: int
    first: int
    last: int
    stream: str
    rows: int
    messages: int
    bucket: str
    buckets: int
    floor_ms: float
    offset_ms: float
    drift_ppm: float
    wander_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float


class _Points(msgspec.Struct, frozen=True):
    """A stored series: int64 little-endian, ns."""

    time_ns: bytes
    delay_ns: bytes


def calibrate_latency(bars: BarStore, request: LatencyRequest) -> LatencyCalibration:
    """Measure a symbol's feed latency on its stored ticks and store it over the one from before.

    InvalidRequest INVALID_TIMEFRAME, INVALID_DATE_RANGE, INVALID_SYMBOL or AMBIGUOUS_SYMBOL; NotFound NO_ROWS where too
    few rows have a local time beside the venue's.
    Reads the ticks twice. Memory: 32 bytes a bucket and what one bucket's messages take, whatever the ticks.
    """
    from daemon.engine.clock_offset import Latencies

    width = None if request.bucket is None else parse_timeframe(request.bucket)
    start_ns, stop_ns = time_range(request.start, request.end)
    instrument = bars.resolve(request.symbol)
    stream, least, rows = _least(bars, instrument, request.stream, start_ns, stop_ns)
    bucket = _bucket(width, least.last_ns - least.first_ns)
    line, floor_ns = least.line(), round(request.floor_ms * _NS_PER_MS)
    latencies = Latencies(line, least.last_ns, floor_ns, bucket.ns)
    # No further than the first reading came: a recording may go on meanwhile.
    messages = _Messages(bars, instrument, stream, least.first_ns, least.last_ns + 1)
    for time_ns, delay_ns in messages:
        latencies.feed(time_ns, delay_ns)
    series = latencies.finish()
    p50_ns, p90_ns, p99_ns = (latencies.quantile_ns(share) for share in (0.5, 0.9, 0.99))
    made = LatencyCalibration(
        symbol=instrument.key,
        made_at=time.time_ns() // _NS_PER_MS,
        first=least.first_ns // _NS_PER_MS,
        last=least.last_ns // _NS_PER_MS,
        stream=stream,
        rows=rows,
        messages=least.messages,
        bucket=bucket,
        buckets=series.time_ns.size,
        floor_ms=request.floor_ms,
        offset_ms=(line.offset_ns - floor_ns) / _NS_PER_MS,
        drift_ppm=line.drift * 1e6,
        wander_ms=latencies.wander_ns / _NS_PER_MS,
        p50_ms=p50_ns / _NS_PER_MS,
        p90_ms=p90_ns / _NS_PER_MS,
        p99_ms=p99_ns / _NS_PER_MS,
        max_ms=latencies.most_ns / _NS_PER_MS,
    )
    points = _Points(*(each.astype(_DTYPE).tobytes() for each in series))

    def put(transaction: Transaction) -> None:
        documents.put(transaction, _DOCUMENT, instrument.key, made)
        documents.put(transaction, _SERIES, instrument.key, points)

    bars.ticks.env.write(put)
    return made


def latency_of(transaction: Transaction, instrument: Instrument) -> LatencyCalibration | None:
    """Read what was measured of a symbol, None where nothing was."""
    return documents.get(transaction, _DOCUMENT, instrument.key, LatencyCalibration)


def series_of(transaction: Transaction, instrument: Instrument) -> MeasuredLatency | None:
    """Read a symbol's series of feed latency, None where it has none."""
    from daemon.engine.latency import MeasuredLatency

    found = documents.get(transaction, _SERIES, instrument.key, _Points)
    if found is None:
        return None
    columns = (np.frombuffer(each, dtype=_DTYPE).astype(np.int64) for each in (found.time_ns, found.delay_ns))
    return MeasuredLatency(*columns)


def stored_latency(bars: BarStore, symbol: str) -> LatencyCalibration:
    """Read what was measured of a symbol as users name it; NotFound CALIBRATION_NOT_FOUND where nothing was."""
    instrument = bars.resolve(symbol)
    with bars.ticks.env.read() as transaction:
        found = latency_of(transaction, instrument)
    if found is None:
        raise not_measured(instrument)
    return found


def not_measured(instrument: Instrument) -> NotFound:
    """Return the refusal of a symbol without a series."""
    why = f"the latency of {instrument.key} has not been measured: `atlasd calibrate latency {instrument.key}`"
    return NotFound(Code.CALIBRATION_NOT_FOUND, why, {"symbol": instrument.key})


def spoken_latency(calibration: LatencyCalibration) -> str:
    """Say of when and on what a series is, and how long messages took."""
    made, first, last = (
        f"{datetime.fromtimestamp(at_ms / 1_000, UTC):%Y-%m-%d %H:%M:%S}"
        for at_ms in (calibration.made_at, calibration.first, calibration.last)
    )
    return (
        f"p50 {calibration.p50_ms:.3g} ms, p99 {calibration.p99_ms:.3g} ms, measured on {made[:10]} on "
        f"{calibration.messages:,} messages ({calibration.stream}), {first} to {last}, before and after as at the "
        f"ends; {calibration.floor_ms:g} ms are taken for the least"
    )


# Reading ticks.


class _Messages:
    """Messages of a stream that have both times: venue time and local - venue time, chunk by chunk, again and again.

    Rows of one message have the same times, and count once. rows: read by the last walk that have both.
    """

    def __init__(
        self, bars: BarStore, instrument: Instrument, stream: Stream, start_ns: TsNs | None, stop_ns: TsNs | None
    ) -> None:
        self._bars = bars
        self._wanted = (instrument, stream, ("time_ns", "local_ns"), start_ns, stop_ns)
        self.rows = 0

    def __iter__(self) -> Iterator[tuple[Int64s, Int64s]]:
        self.rows = 0
        before = (UNKNOWN_NS, UNKNOWN_NS)
        for time_ns, local_ns in self._bars.ticks.scan(*self._wanted):
            is_known = local_ns != UNKNOWN_NS
            times, locals_ = time_ns[is_known], local_ns[is_known]
            if not times.size:
                continue
            self.rows += times.size
            is_first = np.diff(times, prepend=before[0]) != 0
            is_first |= np.diff(locals_, prepend=before[1]) != 0
            before = int(times[-1]), int(locals_[-1])
            yield times[is_first], (locals_ - times)[is_first]


def _least(
    bars: BarStore, instrument: Instrument, wanted: str | None, start_ns: TsNs | None, stop_ns: TsNs | None
) -> tuple[Stream, LeastDelays, int]:
    """Find the first stream with both times, and the least delays of its messages; returns the count of rows, too."""
    from daemon.engine.clock_offset import LeastDelays

    stored = bars.ticks.streams(instrument)
    streams = [each for each in _STREAMS if each in stored and wanted in (None, each)]
    found = []
    for stream in streams:
        least, messages = LeastDelays(), _Messages(bars, instrument, stream, start_ns, stop_ns)
        for time_ns, delay_ns in messages:
            least.feed(time_ns, delay_ns)
        if least.messages >= LEAST_MESSAGES and not least.is_local:
            return stream, least, messages.rows
        what = "no time of the venue's" if least.messages and least.is_local else f"{least.messages} messages"
        found.append(f"{stream.replace('_', ' ')} {what}")
    details: dict[str, Any] = {"symbol": instrument.key, "least": LEAST_MESSAGES}
    seen = f" ({', '.join(found)})" if found else ""
    raise NotFound(
        Code.NO_ROWS,
        f"{instrument.key} has no stored {wanted or 'ticks'} to measure latency on{seen}: at "
        f"least {LEAST_MESSAGES} messages with a local time beside the venue's are needed, as `atlasd record` and "
        "`atlasd import` of captures store them",
        details,
    )


def _bucket(wanted: Timeframe | None, span_ns: int) -> Timeframe:
    fitting = [each for each in Timeframe if span_ns // each.ns < MOST_BUCKETS]
    if wanted is None:
        return fitting[0]
    if wanted not in fitting:
        raise InvalidRequest(
            Code.INVALID_TIMEFRAME,
            f"{span_ns / NS_PER_SECOND:,.0f} s are more than {MOST_BUCKETS:,} buckets of {wanted}: take {fitting[0]} "
            "or longer ones, or a shorter range",
            {"field": "bucket"},
        )
    return wanted
