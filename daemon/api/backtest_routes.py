"""Routes of backtests: start, watch, read, cancel, delete.

Results and rows are streamed from the store as they lie there, so that a long one takes neither memory nor the event
loop. A report is a page with a script of its own: it is only ever handed out as a file, and fenced in besides.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args

import msgspec
from aiohttp import web

from daemon.api import answers, messages
from daemon.core.errors import Code, InvalidRequest
from daemon.research import backtest_formats as formats
from daemon.research.backtest_pages import report_document, report_page
from daemon.research.backtest_records import no_result, stored_validation
from daemon.research.backtest_result import Status
from daemon.research.backtest_views import BacktestRows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daemon.research.backtest_result import BacktestStatus
    from daemon.research.backtest_views import View
    from daemon.research.backtests import Backtests
    from daemon.store.bars import BarStore

T = TypeVar("T")

_BASE: Final = "/api/v1/backtest"

# By format: media type, what makes it, and how many rows it has where the request does not say.
_FORMATS: Final[dict[str, tuple[str, Callable[[BacktestRows], Iterator[bytes]], int | None]]] = {
    "json": (answers.JSON, formats.json_list, answers.DEFAULT_LIMIT),
    "csv": (answers.CSV, formats.csv_pieces, None),
    "arrow": ("application/vnd.apache.arrow.stream", formats.arrow_pieces, None),
}
_REPORTS: Final = ("json", "csv", "html", "pdf")


class BacktestRoutes:
    """Handlers; each decodes, asks the service on a thread, and encodes."""

    def __init__(self, bars: BarStore, backtests: Backtests) -> None:
        self._bars = bars
        self._env = bars.ticks.env
        self._backtests = backtests

    def table(self) -> list[web.RouteDef]:
        """Return the routes."""
        one = _BASE + "/{backtest_id}"
        return [
            web.post(f"{_BASE}/run", self.run),
            web.get(_BASE, self.all),
            web.get(one, self.result),
            web.delete(one, self.delete),
            web.get(f"{one}/status", self.status),
            web.post(f"{one}/cancel", self.cancel),
            web.get(f"{one}/trades", self.trades),
            web.get(f"{one}/receipts", self.receipts),
            web.get(f"{one}/equity", self.equity),
            web.get(f"{one}/validation", self.validation),
            web.get(f"{one}/report", self.report),
        ]

    async def run(self, request: web.Request) -> web.Response:
        """Queue a backtest."""
        answers.query(request)
        wanted = _request(await answers.body(request, dict[str, Any]))

        def submit() -> BacktestStatus:
            return self._backtests.submit(wanted.config, wanted.priority, name=wanted.name)

        status = await asyncio.to_thread(submit)
        return answers.answer(messages.BacktestAccepted(status.id, status.status, status.priority), status=202)

    async def all(self, request: web.Request) -> web.StreamResponse:
        """List backtests, the newest first."""
        given = answers.query(request, "status", "limit", "cursor")
        status = None if "status" not in given else answers.one_of(given["status"], "status", get_args(Status))
        limit = answers.limit(given)
        found = await asyncio.to_thread(self._backtests.all)
        return await answers.stream(request, _listed(found, status, limit, given.get("cursor")), answers.JSON)

    async def result(self, request: web.Request) -> web.StreamResponse:
        """Answer the result of a completed backtest, else how it is doing."""
        answers.query(request)
        status = await self._status(request)
        if status.status != "completed":
            return answers.answer(status)
        return await answers.stream(request, formats.result_pieces(self._env, status.id), answers.JSON)

    async def status(self, request: web.Request) -> web.Response:
        """Tell how a backtest is doing."""
        answers.query(request)
        return answers.answer(await self._status(request))

    async def cancel(self, request: web.Request) -> web.Response:
        """End a backtest that is queued or running."""
        answers.query(request)
        return answers.answer(await asyncio.to_thread(self._backtests.cancel, _id(request)))

    async def delete(self, request: web.Request) -> web.Response:
        """Remove a backtest that has ended."""
        answers.query(request)
        await asyncio.to_thread(self._backtests.delete, _id(request))
        return web.Response(status=204)

    async def trades(self, request: web.Request) -> web.StreamResponse:
        """Stream the trades."""
        return await self._rows(request, "trades")

    async def receipts(self, request: web.Request) -> web.StreamResponse:
        """Stream the receipts of fills, of all or of one trade."""
        return await self._rows(request, "receipts")

    async def equity(self, request: web.Request) -> web.StreamResponse:
        """Stream the account at every bar's close."""
        return await self._rows(request, "equity")

    async def validation(self, request: web.Request) -> web.Response:
        """Answer the verdict and what it rests on."""
        answers.query(request)
        backtest_id = (await self._completed(request)).id

        def read() -> bytes:
            with self._env.read() as transaction:
                return msgspec.json.encode(stored_validation(transaction, backtest_id))

        return web.Response(body=await asyncio.to_thread(read), content_type=answers.JSON)

    async def report(self, request: web.Request) -> web.StreamResponse:
        """Hand out the result, the trades, or a page or PDF of both as a file."""
        form = answers.one_of(answers.query(request, "format").get("format", "html"), "format", _REPORTS)
        backtest_id = (await self._completed(request)).id
        headers = answers.attachment(f"backtest-{backtest_id}.{form}")
        if form == "json":
            pieces, media_type = formats.result_pieces(self._env, backtest_id), answers.JSON
        elif form == "csv":
            rows = await asyncio.to_thread(BacktestRows, self._env, backtest_id, "trades")
            pieces, media_type = formats.csv_pieces(rows), answers.CSV
        elif form == "pdf":
            pieces, media_type = _document(self._bars, backtest_id), "application/pdf"
        else:
            pieces, media_type = _page(self._bars, backtest_id), "text/html; charset=utf-8"
        return await answers.stream(request, pieces, media_type, headers)

    async def _rows(self, request: web.Request, view: View) -> web.StreamResponse:
        given = answers.query(request, "limit", "cursor", "format", *(["trade"] if view == "receipts" else []))
        form = answers.one_of(given.get("format", "json"), "format", tuple(_FORMATS))
        media_type, pieces, usual = _FORMATS[form]
        limit = answers.limit(given) if "limit" in given else None if view == "equity" else usual
        trade = answers.whole(given, "trade")
        status = await self._completed(request)

        def opened() -> BacktestRows:
            return BacktestRows(self._env, status.id, view, trade=trade, limit=limit, cursor=given.get("cursor"))

        return await answers.stream(request, pieces(await asyncio.to_thread(opened)), media_type)

    async def _status(self, request: web.Request) -> BacktestStatus:
        return await asyncio.to_thread(self._backtests.status, _id(request))

    async def _completed(self, request: web.Request) -> BacktestStatus:
        """Ask the service, which knows more than the store of what has not ended; Conflict BACKTEST_NOT_FINISHED."""
        status = await self._status(request)
        if status.status != "completed":
            raise no_result(status)
        return status


def _id(request: web.Request) -> str:
    return request.match_info["backtest_id"]


def _request(body: dict[str, Any]) -> messages.BacktestRequest:
    """Tell a configuration from one in its envelope: no configuration has a field `config`."""
    if "config" not in body:
        return messages.BacktestRequest(config=body)
    try:
        return msgspec.convert(body, messages.BacktestRequest)
    except msgspec.ValidationError as error:
        raise InvalidRequest(Code.INVALID_REQUEST, str(error)) from None


def _listed(found: list[BacktestStatus], status: str | None, limit: int, cursor: str | None) -> Iterator[bytes]:
    """Make a page of a list. cursor: id of the last row of the page before."""
    if cursor is not None:
        after = next((place for place, each in enumerate(found, 1) if each.id == cursor), None)
        if after is None:
            raise InvalidRequest(
                Code.INVALID_CURSOR, "the cursor is not one that this list returned, or its backtest was deleted"
            )
        found = found[after:]
    wanted = [each for each in found if status in (None, each.status)]
    page = wanted[:limit]
    yield from answers.listed(page, page[-1].id if len(wanted) > limit else None)


def _page(bars: BarStore, backtest_id: str) -> Iterator[bytes]:
    yield report_page(bars, backtest_id).encode()


def _document(bars: BarStore, backtest_id: str) -> Iterator[bytes]:
    yield report_document(bars, backtest_id)
