"""How long messages take: until the strategy sees an event, until its order is at the venue."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from daemon.core.market import Int64s
from daemon.engine.jit import kernel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.core.backtest import Latency


class Delays(NamedTuple):
    constants: Int64s


@kernel
def feed_delay(delays: Delays, symbol: int, now_ns: int) -> int:
    return delays.constants[0]


@kernel
def order_delay(delays: Delays, symbol: int, now_ns: int) -> int:
    return delays.constants[1]


def delays_of(latency: Latency, series: Sequence[None]) -> Delays:
    return Delays(np.array([latency.feed_ns, latency.order_ns], dtype=np.int64))
