"""Routes of stored market data: what there is, its history in four formats, and its known holes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from daemon.api import answers, messages
from daemon.api.messages import milliseconds
from daemon.api.rows import json_pieces, msgpack_pieces, packed_limit
from daemon.core.errors import Code, InvalidRequest
from daemon.core.ticks import Stream
from daemon.research.history import History, Query
from daemon.research.holes import holes, open_counts
from daemon.research.tables import arrow_pieces, csv_pieces
from daemon.store.funding import FundingStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daemon.core.market import VolumeUnit
    from daemon.store.bars import BarStore

PAGE_ROWS: Final = 10_000
_ALL: Final = "all"

# By format: media type, what makes it, and how many rows it has where the request does not say.
_FORMATS: Final[dict[str, tuple[str, Callable[[History], Iterator[bytes]], int | None]]] = {
    "json": (answers.JSON, json_pieces, PAGE_ROWS),
    "msgpack": ("application/msgpack", msgpack_pieces, PAGE_ROWS),
    "arrow": ("application/vnd.apache.arrow.stream", arrow_pieces, None),
    "csv": ("text/csv; charset=utf-8", csv_pieces, None),
}


class DataRoutes:
    """Handlers; each decodes, asks the store on a thread, and encodes."""

    def __init__(self, bars: BarStore) -> None:
        self._bars = bars

    def table(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/api/v1/data/symbols", self.symbols),
            web.get("/api/v1/data/history/{symbol}", self.history),
            web.get("/api/v1/data/gaps", self.gaps),
            web.get("/api/v1/data/gaps/{symbol}", self.gaps),
        ]

    async def symbols(self, request: web.Request) -> web.Response:
        """List the stored series."""
        answers.query(request)
        return answers.answer(messages.SeriesList(await asyncio.to_thread(self._series)))

    async def history(self, request: web.Request) -> web.StreamResponse:
        """Stream rows of one series."""
        given = answers.query(request, "stream", "timeframe", "start", "end", "limit", "cursor", "format")
        form = given.pop("format", "json")
        if form not in _FORMATS:
            raise InvalidRequest(
                Code.INVALID_REQUEST, f"format `{form}` is not one of {', '.join(_FORMATS)}", {"field": "format"}
            )
        media_type, pieces, page_rows = _FORMATS[form]
        limit = None if given.get("limit", "") == _ALL else _limit(given, page_rows)
        if form == "msgpack":
            limit = packed_limit(limit)
        given.pop("limit", None)
        query = Query(symbol=request.match_info["symbol"], limit=limit, **given)
        history = await asyncio.to_thread(History, self._bars, query)
        return await answers.stream(request, pieces(history), media_type)

    async def gaps(self, request: web.Request) -> web.Response:
        """List known holes, of all or of one symbol."""
        with_repaired = answers.flag(answers.query(request, "repaired"), "repaired")
        symbol = request.match_info.get("symbol")
        return answers.answer(messages.GapList(await asyncio.to_thread(self._gaps, symbol, repaired=with_repaired)))

    def _series(self) -> list[messages.Series]:
        env = self._bars.ticks.env
        gaps = open_counts(env)
        bars = [
            _described(
                each, Stream.BARS, each.timeframe, gaps[each.instrument, Stream.BARS, each.timeframe], each.volume_unit
            )
            for each in self._bars.series()
        ]
        funding = [_described(each, "funding", None, 0) for each in FundingStore(env).series()]
        ticks = [_described(each, each.stream, None, each.open_holes) for each in self._bars.ticks.series()]
        return sorted([*bars, *ticks, *funding], key=lambda each: each.symbol)

    def _gaps(self, symbol: str | None, *, repaired: bool) -> list[messages.Gap]:
        instrument = None if symbol is None else self._bars.resolve(symbol)
        return [
            messages.Gap(
                symbol=each.instrument.key,
                stream=each.stream,
                timeframe=each.timeframe,
                start=milliseconds(each.hole.start_ns),
                stop=milliseconds(each.hole.stop_ns),
                missing=each.hole.missing or None,
                after_id=None if each.hole.after_id < 0 else each.hole.after_id,
                before_id=None if each.hole.before_id < 0 else each.hole.before_id,
                reason=each.hole.reason,
                repaired=milliseconds(each.repaired_at_ns) if each.repaired_at_ns else None,
            )
            for each in holes(self._bars.ticks.env, instrument, repaired=repaired)
        ]


def _limit(given: dict[str, str], page_rows: int | None) -> int | None:
    return page_rows if "limit" not in given else answers.limit(given)


def _described(
    series: Any, stream: str, timeframe: str | None, gaps: int, volume_unit: VolumeUnit | None = None
) -> messages.Series:
    return messages.Series(
        symbol=series.instrument.key,
        stream=stream,
        timeframe=timeframe,
        rows=series.rows,
        first=milliseconds(series.first_ns),
        last=milliseconds(series.last_ns),
        bytes=series.stored_bytes,
        gaps=gaps,
        volume_unit=volume_unit,
    )
