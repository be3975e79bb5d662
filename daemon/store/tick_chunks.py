"""Ticks to chunk values and back: which column follows which, and what a reader gets who asks for some."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from daemon.core import ticks as core_ticks
from daemon.core.errors import Code, SourceDataInvalid
from daemon.core.ticks import COLUMNS, NO_ID, UNKNOWN_NS, Kind, Stream, Ticks
from daemon.store import codec, keys
from daemon.store.codec import Buffers, Field

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from daemon.core.ticks import Column

KEY_STREAMS: Final = {stream: keys.Stream[stream.name] for stream in Stream}
STREAMS: Final = {number: stream for stream, number in KEY_STREAMS.items()}

# A column that stays close to another one is stored as the difference to it.
_FOLLOWS: Final = {"local_ns": "time_ns", "ask": "bid", "last_id": "first_id"}
_ABSENT: Final[dict[Kind, np.generic]] = {
    Kind.TIME: np.int64(UNKNOWN_NS),
    Kind.ID: np.int64(NO_ID),
    Kind.CODE: np.int8(0),
    Kind.PRICE: np.int64(0),
    Kind.SIZE: np.int64(0),
}


def encode(rows: Ticks) -> bytes:
    """Encode rows to a chunk's value."""
    names = list(COLUMNS[rows.stream])
    fields = []
    for (name, kind), column in zip(COLUMNS[rows.stream].items(), rows.columns, strict=True):
        decimals = rows.decimals(kind) if kind in (Kind.PRICE, Kind.SIZE) else None
        follows = _FOLLOWS.get(name)
        relative_to = names.index(follows) if follows in names and column.dtype == np.int64 else None
        fields.append(Field(column, decimals, relative_to, is_time=kind is Kind.TIME))
    return codec.encode_fields(fields)


def decode(
    value: bytes | memoryview, stream: Stream, names: Sequence[str] | None = None, buffers: Buffers | None = None
) -> Ticks:
    """Decode a chunk exactly.

    names: the columns wanted; the others are constant columns that cost nothing. buffers: what to decode into, valid
    until the next call with them.
    """
    kinds = COLUMNS[stream]
    wanted = [place for place, name in enumerate(kinds) if names is None or name in names]
    decoded = dict(zip(wanted, codec.decode_exactly(value, wanted, buffers), strict=True))
    row_count = codec.rows(value)
    columns = [
        decoded[place].column if place in decoded else np.broadcast_to(_ABSENT[kind], row_count)
        for place, kind in enumerate(kinds.values())
    ]
    settled = {}
    for kind in (Kind.PRICE, Kind.SIZE):
        places = [place for place in wanted if list(kinds.values())[place] is kind]
        settled[kind] = _settle(columns, places, [decoded[place].decimals for place in places])
    return Ticks(stream, tuple(columns), settled[Kind.PRICE], settled[Kind.SIZE])


def _settle(columns: list[Column], places: Sequence[int], decimals: Sequence[int | None]) -> int | None:
    """Bring columns of one kind, which floats may have come to different decimals, to common ones in place."""
    if not places:
        return 0
    numbers = [each for each in decimals if each is not None]
    most = max(numbers, default=None) if len(numbers) == len(decimals) else None
    if most is not None and not all(
        _fits(columns[place], most - each) for place, each in zip(places, numbers, strict=True)
    ):
        most = None
    for place, each in zip(places, decimals, strict=True):
        if each == most or each is None:
            continue
        columns[place] = codec.to_floats(columns[place], each) if most is None else columns[place] * 10 ** (most - each)
    return most


def _fits(column: Column, more_decimals: int) -> bool:
    """Tell whether integers fit 64 bits with more decimals."""
    if not column.size or not more_decimals:
        return True
    largest = max(abs(int(column.min())), abs(int(column.max())))
    return largest * int(10**more_decimals) < 1 << 63


def cut(times: Column) -> Iterator[tuple[int, int]]:
    """Split ascending times into chunks of about CHUNK_ROWS; rows of one time never part, so no two keys are equal."""
    start = 0
    while times.size - start > codec.CHUNK_ROWS:
        stop = int(np.searchsorted(times, times[start + codec.CHUNK_ROWS], side="left"))
        if stop <= start:
            stop = int(np.searchsorted(times, times[start], side="right"))
        yield start, stop
        start = stop
    if start < times.size:
        yield start, int(times.size)


def joined(parts: Sequence[Ticks], stream: Stream) -> Ticks:
    """Join parts in their order; no parts are no rows.

    Where one part has floats that no decimals give back, or integers would not fit at common decimals, all become
    floats. SourceDataInvalid TICKS_INVALID where an integer among them has no float of its own.
    """
    filled = [part for part in parts if part.size]
    if not filled:
        return core_ticks.empty(stream)
    for kind in (Kind.PRICE, Kind.SIZE):
        if not _fit_together(filled, kind):
            filled = [_with_floats(part, kind) for part in filled]
    return core_ticks.concatenate(filled)


def _fit_together(parts: Sequence[Ticks], kind: Kind) -> bool:
    """Tell whether the columns of a kind are all floats, or integers that fit at common decimals."""
    decimals = [part.decimals(kind) for part in parts]
    numbers = [each for each in decimals if each is not None]
    if len(numbers) < len(decimals):
        return not numbers
    most = max(numbers)
    places = [place for place, each in enumerate(COLUMNS[parts[0].stream].values()) if each is kind]
    return all(
        _fits(part.columns[place], most - each)
        for part, each in zip(parts, numbers, strict=True)
        for place in places
        if each < most
    )


def _have_floats(column: Column) -> bool:
    """Tell whether integers, without the zeros at their ends, have no more digits than a float64 holds."""
    large = column[(column > codec.EXACT_INTEGER) | (column < -codec.EXACT_INTEGER)]
    while large.size and not (large % 10).any():
        large = large // 10
        large = large[(large > codec.EXACT_INTEGER) | (large < -codec.EXACT_INTEGER)]
    return not large.size


def _with_floats(rows: Ticks, kind: Kind) -> Ticks:
    decimals = rows.decimals(kind)
    if decimals is None:
        return rows
    columns = list(rows.columns)
    for place, each in enumerate(COLUMNS[rows.stream].values()):
        if each is kind:
            if not _have_floats(columns[place]):
                raise SourceDataInvalid(
                    Code.TICKS_INVALID,
                    f"a {kind} of more than 15 digits cannot stand beside stored ones that are floats or have other "
                    "decimals: import them under a symbol of their own",
                    {"field": str(kind)},
                )
            columns[place] = codec.to_floats(columns[place], decimals)
    price = None if kind is Kind.PRICE else rows.price_decimals
    size = None if kind is Kind.SIZE else rows.size_decimals
    return Ticks(rows.stream, tuple(columns), price, size)
