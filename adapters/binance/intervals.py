"""Binance's names of the timeframes, which requests, streams and the archive share."""

from __future__ import annotations

from typing import Final

from daemon.core.market import Timeframe

INTERVALS: Final = {
    Timeframe.SEC_1: "1s",
    Timeframe.MIN_1: "1m",
    Timeframe.MIN_5: "5m",
    Timeframe.MIN_15: "15m",
    Timeframe.HOUR_1: "1h",
    Timeframe.DAY_1: "1d",
}
