"""Trades summed up by stretches of time, one trade after another."""

import math


def buckets(trades, width_ns):
    """Return rows of (start, price before, last price, worth, volume, signed volume, volume without a side)."""
    rows = {}
    last = math.nan
    for time_ns, price, size, side in trades:
        if price <= 0 or size <= 0:
            continue
        start = time_ns // width_ns * width_ns
        row = rows.setdefault(start, [start, last, 0.0, 0.0, 0.0, 0.0, 0.0])
        last = row[2] = price
        row[3] += price * size
        row[4] += size
        row[5] += side * size
        row[6] += size if side == 0 else 0.0
    return list(rows.values())
