"""Routes of stored market data: what there is, its history in four formats, and its known holes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiohttp import web

from daemon.api import answers, messages
from daemon.api.data_views import described_series, gap_rows
from daemon.api.rows import json_pieces, msgpack_pieces, packed_limit
from daemon.core.errors import Code, InvalidRequest
from daemon.research.history import History, Query
from daemon.research.tables import arrow_pieces, csv_pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
        return answers.answer(messages.SeriesList(await asyncio.to_thread(described_series, self._bars)))

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
        return answers.answer(
            messages.GapList(await asyncio.to_thread(gap_rows, self._bars, symbol, repaired=with_repaired))
        )


def _limit(given: dict[str, str], page_rows: int | None) -> int | None:
    return page_rows if "limit" not in given else answers.limit(given)
