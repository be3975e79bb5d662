"""`data:*`: what is stored, its rows, its holes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from daemon.api.data_views import described_series, gap_rows
from daemon.api.messages import Gap, Series
from daemon.api.protocol import Nothing, Part, Request, method
from daemon.api.rows import json_pieces
from daemon.core.errors import Code
from daemon.research.history import History, Query

if TYPE_CHECKING:
    from daemon.api.protocol import Call

MOST_ROWS = 10_000


class HistoryWanted(Request, frozen=True, kw_only=True):
    """Rows of one series, as HTTP's route of history has them. start, end: Unix ms, or as users write them."""

    symbol: str
    stream: str = "bars"
    timeframe: str | None = None
    start: int | str | None = None
    end: int | str | None = None
    limit: Annotated[int, Meta(ge=1, le=MOST_ROWS)] = 1_000
    cursor: str | None = None


class HistoryPage(Part, frozen=True, kw_only=True):
    """Some rows, and where the next are; the fields of a row are those of its stream."""

    symbol: str
    stream: str
    timeframe: str | None
    rows: list[dict[str, Any]]
    next_cursor: str | None = msgspec.field(name="next_cursor")


class LoadWanted(Request, frozen=True, kw_only=True):
    """A range that a client is about to use. resolution: a timeframe; start_time, end_time: Unix ms."""

    symbol: str
    start_time: int | str | None = None
    end_time: int | str | None = None
    resolution: str = "1Min"


class Loaded(Part, frozen=True, kw_only=True):
    """What is stored of a range. loaded: rows, of what `resolution` asks for or is made of."""

    loaded: int
    symbol: str


class GapsWanted(Request, frozen=True, kw_only=True):
    """Known holes of one symbol, or all. repaired: those that were filled as well."""

    symbol: str | None = None
    repaired: bool = False


@method("data:symbols")
async def symbols(call: Call, _request: Nothing) -> list[Series]:
    """List the stored series."""
    return await asyncio.to_thread(described_series, call.services.bars)


@method("data:history", Code.NO_BARS, Code.INVALID_SYMBOL, Code.INVALID_TIMEFRAME, Code.INVALID_DATE_RANGE)
async def history(call: Call, request: HistoryWanted) -> HistoryPage:
    """Return a page of a series' rows."""

    def made() -> Any:
        found = History(call.services.bars, _query(request))
        return msgspec.Raw(b"".join(json_pieces(found)))

    return await asyncio.to_thread(made)


@method("data:load", Code.NO_BARS, Code.INVALID_SYMBOL, Code.INVALID_TIMEFRAME, Code.INVALID_DATE_RANGE)
async def load(call: Call, request: LoadWanted) -> Loaded:
    """Count what is stored of a range; data are read in place, so there is nothing to load."""

    def counted() -> Loaded:
        query = Query(
            symbol=request.symbol,
            timeframe=request.resolution,
            start=_text(request.start_time),
            end=_text(request.end_time),
        )
        found = History(call.services.bars, query)
        rows = sum(len(next(iter(block.columns.values()))) for block in found.blocks())
        return Loaded(loaded=rows, symbol=request.symbol)

    return await asyncio.to_thread(counted)


@method("data:gaps", Code.INVALID_SYMBOL)
async def gaps(call: Call, request: GapsWanted) -> list[Gap]:
    """List rows that are known to be missing."""
    return await asyncio.to_thread(gap_rows, call.services.bars, request.symbol, repaired=request.repaired)


def _query(request: HistoryWanted) -> Query:
    return Query(
        symbol=request.symbol,
        stream=request.stream,
        timeframe=request.timeframe,
        start=_text(request.start),
        end=_text(request.end),
        limit=request.limit,
        cursor=request.cursor,
    )


def _text(moment: int | str | None) -> str | None:
    return None if moment is None else str(moment)
