"""Latency from two clocks that differ: the local time of messages less the venue's, less what the clocks are apart.

Nothing arrives before it was sent, and delays only add: the least of local - venue time over a while is how far the
clocks are apart, plus the least latency there is. Where one clock runs faster that least value moves along a line. The
line taken is the one below all messages that lies nearest to them on average: the edge of their lower convex hull over
the mean of their times (Moon, Skelly and Towsley (1999), "Estimation and removal of clock skew from network delay
measurements"). What the least latency itself is no single clock can tell: it is the caller's floor.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from daemon.core.market import NS_PER_SECOND, Float64s, Int64s, TsNs
from daemon.engine.jit import kernel
from daemon.engine.latency import MeasuredLatency

LEAST_SPAN_NS: Final = 60 * NS_PER_SECOND
"""Over less time the noise of the least delays makes more of a slope than clocks do: the drift is 0 then."""

PARTS: Final = 10
"""Of the time: whether each has messages near the line tells how steadily the clocks ran."""

# A histogram by exponent and the upper bits of the fraction: bins 0.1 % wide at most, the same on any machine.
_BINS: Final = 1_024
_EXPONENTS: Final = 65


class ClockLine(NamedTuple):
    """Local - venue time of the fastest messages: offset_ns at start_ns, and drift ns more with every ns."""

    start_ns: TsNs
    offset_ns: float
    drift: float

    def at(self, time_ns: Int64s) -> Float64s:
        """Return the line at times of the venue: (n,) ns."""
        line: Float64s = self.offset_ns + self.drift * (time_ns - self.start_ns).astype(np.float64)
        return line


class LeastDelays:
    """The lower convex hull of delays, fed chunk by chunk; memory grows with the hull's corners, which are few."""

    def __init__(self) -> None:
        self._corner_ns = np.empty(0, dtype=np.int64)
        self._corner_delay_ns = np.empty(0, dtype=np.int64)
        self._most_delay_ns = 0
        self._sum_ns = 0
        self.first_ns = 0
        self.last_ns = 0
        self.messages = 0

    def feed(self, time_ns: Int64s, delay_ns: Int64s) -> None:
        """Take the next messages: venue time, ascending, and local - venue time; (n,) ns each."""
        if not time_ns.size:
            return
        if not self.messages:
            self.first_ns = int(time_ns[0])
            self._most_delay_ns = int(delay_ns[0])
        self.last_ns = int(time_ns[-1])
        self._most_delay_ns = max(self._most_delay_ns, int(delay_ns.max()))
        # Python's numbers: the sum of many times does not fit 64 bits.
        self._sum_ns += int(np.mean((time_ns - self.first_ns).astype(np.float64)) * time_ns.size)
        self.messages += time_ns.size
        times = np.concatenate([self._corner_ns, time_ns])
        delays = np.concatenate([self._corner_delay_ns, delay_ns])
        rows = np.empty(times.size, dtype=np.int64)
        kept = rows[: lower_hull(times - self.first_ns, delays, rows)]
        self._corner_ns, self._corner_delay_ns = times[kept], delays[kept]

    @property
    def is_local(self) -> bool:
        """Whether no message says anything: the venue gave no time, so the local one stands for it."""
        return not self.messages or (self._most_delay_ns == 0 and not self._corner_delay_ns.any())

    def line(self) -> ClockLine:
        """Return the line below all messages; there is one at least."""
        corners, delays = self._corner_ns - self.first_ns, self._corner_delay_ns
        least = ClockLine(self.first_ns, float(delays.min()), 0.0)
        if self.last_ns - self.first_ns < LEAST_SPAN_NS:
            return least
        mean_ns = self._sum_ns / self.messages
        right = min(max(int(np.searchsorted(corners, mean_ns)), 1), corners.size - 1)
        drift = float(delays[right] - delays[right - 1]) / float(corners[right] - corners[right - 1])
        return ClockLine(self.first_ns, float(delays[right]) - drift * float(corners[right]), drift)


@kernel
def lower_hull(time_ns: Int64s, delay_ns: Int64s, rows: Int64s) -> int:
    """Write the rows of the lower convex hull's corners, in order of time; returns how many.

    time_ns: (n,) ascending, from the first message on. delay_ns: (n,). rows: (n,), written.
    Source: Andrew's monotone chain (1979).
    """
    count = 0
    for row in range(time_ns.size):
        if count > 0 and time_ns[row] == time_ns[rows[count - 1]]:
            if delay_ns[row] >= delay_ns[rows[count - 1]]:
                continue
            count -= 1
        while count > 1:
            middle, before = rows[count - 1], rows[count - 2]
            # As floats: the product of two spans of ns may exceed 64 bits.
            run = np.float64(time_ns[row] - time_ns[before]) * np.float64(delay_ns[middle] - delay_ns[before])
            rise = np.float64(time_ns[middle] - time_ns[before]) * np.float64(delay_ns[row] - delay_ns[before])
            if rise > run:
                break
            count -= 1
        rows[count] = row
        count += 1
    return count


class Latencies:
    """Latencies over a line, fed chunk by chunk: medians of stretches of time, and how they spread.

    Memory: 16 bytes a stretch, and 16 a message of the one that is open.
    """

    def __init__(self, line: ClockLine, last_ns: TsNs, floor_ns: int, width_ns: int) -> None:
        self._line = line
        self._floor_ns = floor_ns
        self._width_ns = width_ns
        self._part_ns = max(-(-(last_ns + 1 - line.start_ns) // PARTS), 1)
        self._part_least = np.full(PARTS, np.inf)
        self._histogram = np.zeros(_EXPONENTS * _BINS, dtype=np.int64)
        self._open = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        self._stretches: list[Int64s] = []
        self._medians: list[Int64s] = []
        self.most_ns = 0

    def feed(self, time_ns: Int64s, delay_ns: Int64s) -> None:
        """Take the next messages, as of `LeastDelays`."""
        if not time_ns.size:
            return
        over = np.maximum(np.rint(delay_ns - self._line.at(time_ns)).astype(np.int64), 0)
        latency_ns = over + self._floor_ns
        self.most_ns = max(self.most_ns, int(latency_ns.max()))
        part = np.clip((time_ns - self._line.start_ns) // self._part_ns, 0, PARTS - 1)
        np.minimum.at(self._part_least, part, over)
        np.add.at(self._histogram, _bins(latency_ns), 1)
        stretch = np.concatenate([self._open[0], time_ns // self._width_ns])
        latency_ns = np.concatenate([self._open[1], latency_ns])
        still_open = int(np.searchsorted(stretch, stretch[-1]))
        self._open = stretch[still_open:], latency_ns[still_open:]
        self._close(stretch[:still_open], latency_ns[:still_open])

    def finish(self) -> MeasuredLatency:
        """Return the median of each stretch that has messages, at the stretch's middle."""
        self._close(*self._open)
        self._open = self._open[0][:0], self._open[1][:0]
        stretches, medians = np.concatenate(self._stretches), np.concatenate(self._medians)
        return MeasuredLatency(stretches * self._width_ns + self._width_ns // 2, medians)

    def quantile_ns(self, share: float) -> int:
        """Return the latency that this share of the messages does not exceed, to 0.1 %."""
        reached = np.cumsum(self._histogram)
        bin_ = int(np.searchsorted(reached, share * reached[-1]))
        exponent, place = divmod(bin_, _BINS)
        middle = np.ldexp(0.5 + (place + 0.5) / (2 * _BINS), exponent)
        return min(max(round(float(middle)), self._floor_ns), self.most_ns)

    @property
    def wander_ns(self) -> int:
        """How far above the line the fastest message of a tenth of the time lies at most: 0 for steady clocks."""
        return int(self._part_least[np.isfinite(self._part_least)].max())

    def _close(self, stretch: Int64s, latency_ns: Int64s) -> None:
        if not stretch.size:
            return
        order = np.lexsort((latency_ns, stretch))
        stretches, starts, counts = np.unique(stretch, return_index=True, return_counts=True)
        # The lower of two middle ones: a latency that was measured.
        self._stretches.append(stretches)
        self._medians.append(latency_ns[order][starts + (counts - 1) // 2])


def _bins(latency_ns: Int64s) -> Int64s:
    fraction, exponent = np.frexp(latency_ns.astype(np.float64))
    place = ((fraction - 0.5) * (2 * _BINS)).astype(np.int64)
    return np.where(latency_ns > 0, exponent.astype(np.int64) * _BINS + place, 0)
