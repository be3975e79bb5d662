"""What the routes of HTTP take and answer, one line each: the OpenAPI document is made from this table.

A test holds it against the routes that are served: none without a line here, no line here without a route.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from daemon.api import messages
from daemon.api.described import (
    ARROW,
    CSV_TYPE,
    CURSOR,
    HISTORY_ERRORS,
    MOMENT,
    MSGPACK,
    PAGE,
    SERIES_ERRORS,
    Count,
    Flag,
    Ordinal,
    Parameter,
    Route,
)
from daemon.api.health import Health
from daemon.api.methods.data import HistoryPage
from daemon.api.methods.probes import ResultPage
from daemon.api.rest_studies import STUDIES
from daemon.api.shipping_routes import Price, SignalUpload, Uploaded
from daemon.core.errors import Code
from daemon.core.strategy import Strategy
from daemon.ingest.bars import ImportReport
from daemon.ingest.funding import FundingReport
from daemon.ingest.ticks import TickReport, TickUpload
from daemon.research.market_view import MarketView
from daemon.research.plans import ProbeRequest

_RUN_FILTERS: Final = (
    Parameter("symbol", str, "rows of this symbol"),
    Parameter("timeframe", str, "rows of this timeframe"),
    Parameter("strategy_id", Ordinal, "rows of this strategy"),
    Parameter("risk_profile", str, "rows of this risk profile"),
    *PAGE,
)
_HISTORY: Final = (
    Parameter("stream", str, "bars (unless given), trades, agg_trades, quotes or depth"),
    Parameter("timeframe", str, "of bars, and needed for them: 1Sec to 1Day, volume:N or notional:N"),
    Parameter("start", str, f"the first moment: {MOMENT}"),
    Parameter("end", str, f"the moment to stop before; a day is included whole: {MOMENT}"),
    Parameter("limit", Count | Literal["all"], "rows at most, or `all`"),
    CURSOR,
    Parameter("format", Literal["json", "msgpack", "arrow", "csv"], "json unless given"),
)
_VIEW: Final = (*_HISTORY[:4], Parameter("points", Ordinal, "points at most"))
_PRICES: Final = (
    Parameter("symbol", str, "the series", is_required=True),
    Parameter("start", str, f"the first moment: {MOMENT}"),
    Parameter("end", str, f"the moment to stop before: {MOMENT}"),
    Parameter("interval", str, "1s, 1m, 5m, 15m, 1h, 1d, or as timeframes are called; 1m unless given"),
)
_REPAIRED: Final = (Parameter("repaired", Flag, "1 shows those that were filled as well"),)
_UPLOAD_ERRORS: Final = (Code.INVALID_SYMBOL, Code.INVALID_TIMEFRAME, Code.SOURCE_VALUE_INVALID)
_RUN: Final = "/api/v1/runs/{run_id}"
_HEALTH: Final = "Tell how the daemon is: without a token the status alone."

ROUTES: Final = (
    Route("GET", "/health", _HEALTH, (Health, messages.Alive), is_open=True),
    Route("GET", "/api/v1/health", _HEALTH, (Health, messages.Alive), is_open=True),
    Route("GET", "/metrics", "Tell all figures in Prometheus' format.", files=("text/plain",)),
    Route("GET", "/api/v1/openapi.json", "Return this document.", (dict[str, Any],)),
    Route("GET", "/api/v1/schema.json", "Return the JSON Schema of all methods, frames and events.", (dict[str, Any],)),
    # Sessions of the console's page.
    Route(
        "POST",
        "/api/v1/session/code",
        "Make a code that the page trades for a token.",
        (messages.SessionCode,),
        status=201,
    ),
    Route(
        "POST",
        "/api/v1/session",
        "Trade a code for a session's token.",
        (messages.SessionToken,),
        request=messages.SessionRequest,
        errors=(Code.UNAUTHORIZED,),
        is_open=True,
    ),
    Route("DELETE", "/api/v1/session", "End the session that asks."),
    # Probe runs.
    Route(
        "POST",
        "/api/v1/runs",
        "Start a probe run, or go on with one.",
        (messages.RunAccepted,),
        status=202,
        request=ProbeRequest,
        errors=(
            *SERIES_ERRORS,
            Code.INVALID_TIMEFRAME,
            Code.INVALID_RISK_PROFILE,
            Code.INVALID_STRATEGY,
            Code.INVALID_DATE_RANGE,
            Code.INVALID_RUN_ID,
            Code.NO_BARS,
            Code.RUN_CONFLICT,
            Code.RUN_ACTIVE,
        ),
        starts_job=True,
    ),
    Route(
        "GET",
        "/api/v1/runs",
        "List runs, the newest first.",
        (messages.RunList,),
        query=PAGE,
        errors=(Code.INVALID_CURSOR,),
    ),
    Route(
        "GET", _RUN, "Tell how a run is doing.", (messages.RunStatus,), errors=(Code.RUN_NOT_FOUND, Code.INVALID_RUN_ID)
    ),
    Route(
        "DELETE",
        _RUN,
        "Cancel an active run, or delete a finished one.",
        (messages.RunStatus,),
        query=(Parameter("purge", Flag, "1 deletes a finished one"),),
        errors=(Code.RUN_NOT_FOUND, Code.INVALID_RUN_ID, Code.RUN_ACTIVE, Code.RUN_FINISHED),
        may_be_empty=True,
    ),
    Route(
        "GET",
        f"{_RUN}/results",
        "Return groups by hour of entry and side.",
        (ResultPage,),
        query=_RUN_FILTERS,
        errors=(
            Code.RUN_NOT_FOUND,
            Code.INVALID_RUN_ID,
            Code.INVALID_CURSOR,
            *SERIES_ERRORS,
            Code.INVALID_TIMEFRAME,
            Code.INVALID_RISK_PROFILE,
            Code.INVALID_STRATEGY,
        ),
    ),
    Route(
        "GET",
        f"{_RUN}/trades",
        "Return trades, where the run kept them.",
        (ResultPage,),
        query=(*_RUN_FILTERS, Parameter("justify", Flag, "1 says why each was made")),
        errors=(
            Code.RUN_NOT_FOUND,
            Code.INVALID_RUN_ID,
            Code.INVALID_CURSOR,
            *SERIES_ERRORS,
            Code.INVALID_TIMEFRAME,
            Code.INVALID_RISK_PROFILE,
            Code.INVALID_STRATEGY,
        ),
    ),
    Route(
        "GET",
        "/api/v1/strategies",
        "List strategies without their rules.",
        (messages.StrategyList,),
        query=(Parameter("category", str, "those of this category"),),
    ),
    Route(
        "GET",
        "/api/v1/strategies/{strategy_id}",
        "Return one strategy, whole.",
        (Strategy,),
        errors=(Code.INVALID_STRATEGY,),
    ),
    *STUDIES,
    # Market data.
    Route("GET", "/api/v1/data/symbols", "List the stored series.", (messages.SeriesList,)),
    Route(
        "GET",
        "/api/v1/data/history/{symbol}",
        "Return rows of a series.",
        (HistoryPage,),
        files=(MSGPACK, ARROW, CSV_TYPE),
        query=_HISTORY,
        errors=HISTORY_ERRORS,
    ),
    Route(
        "GET",
        "/api/v1/data/view/{symbol}",
        "Return a series' points for a chart, as many as a screen shows.",
        (MarketView,),
        query=_VIEW,
        errors=HISTORY_ERRORS,
    ),
    Route("GET", "/api/v1/data/gaps", "List rows that are known to be missing.", (messages.GapList,), query=_REPAIRED),
    Route(
        "GET",
        "/api/v1/data/gaps/{symbol}",
        "List rows of a symbol that are known to be missing.",
        (messages.GapList,),
        query=_REPAIRED,
        errors=SERIES_ERRORS,
    ),
    Route("GET", "/api/v1/feeds", "List the feeds that the daemon records.", (messages.FeedList,)),
    Route(
        "POST",
        "/api/v1/imports",
        "Store bars that the command line left in the data folder.",
        (ImportReport,),
        request=messages.ImportRequest,
        errors=(*_UPLOAD_ERRORS, Code.BARS_INVALID, Code.BARS_CONFLICT),
    ),
    Route(
        "POST",
        "/api/v1/imports/ticks",
        "Store ticks that the command line left in the data folder.",
        (TickReport,),
        request=TickUpload,
        errors=(*_UPLOAD_ERRORS, Code.TICKS_INVALID, Code.TICKS_CONFLICT),
    ),
    Route(
        "POST",
        "/api/v1/imports/funding",
        "Store funding rates that the command line left in the data folder.",
        (FundingReport,),
        request=messages.FundingImport,
        errors=(*_UPLOAD_ERRORS, Code.FUNDING_INVALID, Code.FUNDING_CONFLICT),
    ),
    # Routes of the shipping client.
    Route(
        "POST",
        "/api/signals/{source}",
        "Take signals of a source.",
        (Uploaded,),
        request=SignalUpload,
        is_available=False,
    ),
    Route(
        "GET",
        "/api/prices",
        "Return bars of a series.",
        (list[Price],),
        query=_PRICES,
        errors=HISTORY_ERRORS,
    ),
)
