"""The command line's way to a running daemon: found by the ready file, spoken to over HTTP."""

from __future__ import annotations

import http.client
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

import msgspec

from daemon.api import messages
from daemon.api.health import Health
from daemon.app.lock import is_held, read_owner
from daemon.app.tokens import TokenFile
from daemon.core.errors import (
    DATA_CODES,
    AtlasError,
    Code,
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    SourceDataInvalid,
    SourceUnavailable,
    StoreCorrupt,
    StoreFull,
    TooManyRequests,
    Unauthorized,
)
from daemon.ingest import uploads
from daemon.ingest.bars import UNKNOWN_ORIGIN, ImportReport, Origin
from daemon.ingest.funding import FundingReport
from daemon.ingest.ticks import TickReport, TickUpload
from daemon.research.backtest_result import BacktestStatus
from daemon.research.calibration import Calibration
from daemon.research.latency_calibration import LatencyCalibration
from daemon.research.monte_carlo_records import Simulation
from daemon.research.optimization.result import OptimizationStatus
from daemon.research.runs import SPOOL_FOLDER

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from daemon.core.market import BarTable, FundingTable, Instrument, Timeframe, VolumeUnit
    from daemon.research.backtest_result import Priority
    from daemon.research.calibration import CalibrationRequest
    from daemon.research.latency_calibration import LatencyRequest
    from daemon.research.monte_carlo_records import MonteCarloRequest
    from daemon.research.optimization.request import OptimizationRequest
    from daemon.research.plans import ProbeRequest
    from daemon.store.ticks import TickStore

T = TypeVar("T")

READY_FILE: Final = "ready.json"
_TIMEOUT_S: Final = 60.0
_HEALTH_S: Final = 10.0
_BACKTEST: Final = "/api/v1/backtest"
_OPTIMIZE: Final = "/api/v1/optimize"
_BY_CODE: Final[dict[Code, type[AtlasError]]] = {Code.STORE_FULL: StoreFull, Code.STORE_CORRUPT: StoreCorrupt}
_REMEDIES: Final[dict[int, type[AtlasError]]] = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    429: TooManyRequests,
}


def _failure(status: int, failure: messages.ErrorBody) -> AtlasError:
    """Raise again what the daemon raised, by its remedy; a code of a later release is INTERNAL here."""
    known = {str(code): code for code in Code}
    code = known.get(failure.code, Code.INTERNAL)
    if code in DATA_CODES:
        remedy: type[AtlasError] = SourceDataInvalid
    else:
        remedy = _BY_CODE.get(code) or _REMEDIES.get(status, SourceUnavailable)
    return remedy(code, failure.message, failure.details)


class Ready(msgspec.Struct, frozen=True):
    """The ready file: where a daemon answers."""

    url: str
    port: int
    pid: int
    version: str


def find(folder: Path) -> Ready | None:
    """Return the daemon that holds a folder's writer lock, None where the holder is no daemon that is ready."""
    try:
        ready = msgspec.json.decode((folder / READY_FILE).read_bytes(), type=Ready)
    except (OSError, msgspec.MsgspecError):
        return None
    owner = read_owner(folder)
    return ready if owner is not None and owner.pid == ready.pid else None


def running(folder: Path) -> Ready:
    """Return the daemon that runs over a folder; SourceUnavailable DAEMON_UNREACHABLE where there is none.

    A daemon that was killed leaves its ready file: what listens there by now may be anybody's, and is told nothing.
    """
    ready = find(folder)
    if ready is None or not is_held(folder):
        raise SourceUnavailable(Code.DAEMON_UNREACHABLE, f"no daemon runs over {folder}: `atlasd serve` starts one")
    return ready


def ask(
    ready: Ready,
    folder: Path,
    method: str,
    path: str,
    kind: type[T],
    body: msgspec.Struct | None = None,
    timeout_s: float | None = _TIMEOUT_S,
) -> T:
    """Send a daemon one request, with the folder's token, and decode its answer.

    AtlasError as the daemon said; SourceUnavailable DAEMON_UNREACHABLE where it does not answer.
    """
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TokenFile(folder).read()}"}
    content = None if body is None else msgspec.json.encode(body)
    while True:
        status, answer = _exchange(ready, method, path, content, headers, timeout_s)
        if status < http.client.BAD_REQUEST:
            return msgspec.json.decode(answer or b"null", type=kind)
        failure = _failure(status, msgspec.json.decode(answer, type=messages.ErrorAnswer).error)
        if not isinstance(failure, TooManyRequests):
            raise failure
        # Others are starting jobs as well: a command line waits its turn.
        time.sleep(float(str((failure.details or {}).get("retry_after_s", 1.0))))


def health(ready: Ready, folder: Path) -> Health:
    """Ask a daemon how it is; raises as `ask` does."""
    return ask(ready, folder, "GET", "/api/v1/health", Health, timeout_s=_HEALTH_S)


def feeds(ready: Ready, folder: Path) -> list[messages.FeedStatus]:
    """Ask a daemon how its feeds are doing; raises as `ask` does."""
    return ask(ready, folder, "GET", "/api/v1/feeds", messages.FeedList, timeout_s=_HEALTH_S).results


def _exchange(
    ready: Ready, method: str, path: str, content: bytes | None, headers: dict[str, str], timeout_s: float | None
) -> tuple[int, bytes]:
    host = ready.url.removeprefix("http://").rpartition(":")[0].strip("[]")
    connection = http.client.HTTPConnection(host, ready.port, timeout=timeout_s)
    try:
        connection.request(method, path, content, headers)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise SourceUnavailable(
            Code.DAEMON_UNREACHABLE,
            f"the daemon (process {ready.pid}) does not answer at {ready.url}: {error}",
        ) from error
    finally:
        connection.close()


class DaemonClient:
    """Writes by asking the daemon to."""

    def __init__(self, ready: Ready, folder: Path, ticks: TickStore) -> None:
        self.ticks = ticks
        self._ready = ready
        self._folder = folder

    def import_bars(
        self,
        table: BarTable,
        instrument: Instrument,
        timeframe: Timeframe,
        source: str,
        *,
        replace: bool,
        origin: Origin = UNKNOWN_ORIGIN,
        volume_unit: VolumeUnit | None = None,
    ) -> ImportReport:
        """Hand a checked table's columns over through the data folder."""
        request = messages.ImportRequest(
            upload=uploads.leave(self._folder / SPOOL_FOLDER, table),
            venue=instrument.venue,
            symbol=instrument.symbol,
            timeframe=timeframe,
            source=source,
            replace=replace,
            notes=list(table.notes),
            origin=origin,
            volume_unit=volume_unit,
        )
        return self._ask("POST", "/api/v1/imports", ImportReport, request)

    def import_funding(
        self, table: FundingTable, instrument: Instrument, source: str, *, replace: bool
    ) -> FundingReport:
        """Hand a read table's columns over through the data folder."""
        request = messages.FundingImport(
            upload=uploads.leave(self._folder / SPOOL_FOLDER, table),
            venue=instrument.venue,
            symbol=instrument.symbol,
            source=source,
            replace=replace,
            notes=list(table.notes),
        )
        return self._ask("POST", "/api/v1/imports/funding", FundingReport, request)

    @property
    def spool_folder(self) -> Path:
        """Where spools of ticks are laid for the daemon."""
        return self._folder / SPOOL_FOLDER

    def import_ticks(self, upload: TickUpload) -> TickReport:
        """Have a spool's ticks stored; that may take as long as it takes."""
        return self._ask("POST", "/api/v1/imports/ticks", TickReport, upload, timeout_s=None)

    def calibrate(self, request: CalibrationRequest) -> Calibration:
        """Have a symbol's parameters fitted; that may take as long as its trades are many."""
        return self._ask("POST", "/api/v1/calibrate", Calibration, request, timeout_s=None)

    def calibrate_latency(self, request: LatencyRequest) -> LatencyCalibration:
        """Have a symbol's feed latency measured; that may take as long as its ticks are many."""
        return self._ask("POST", "/api/v1/calibrate/latency", LatencyCalibration, request, timeout_s=None)

    def start(self, request: ProbeRequest) -> str:
        """Submit a run; returns its id."""
        return self._ask("POST", "/api/v1/runs", messages.RunAccepted, request).run_id

    def status(self, run_id: str) -> messages.RunStatus:
        """Ask how a run is doing."""
        return self._ask("GET", f"/api/v1/runs/{run_id}", messages.RunStatus)

    def cancel(self, run_id: str) -> None:
        """Stop a run."""
        self._ask("DELETE", f"/api/v1/runs/{run_id}", messages.RunStatus)

    def delete(self, run_id: str) -> None:
        """Remove a finished run."""
        self._ask("DELETE", f"/api/v1/runs/{run_id}?purge=1", type(None))

    def backtest_start(self, config: Mapping[str, Any], priority: Priority, name: str | None = None) -> str:
        """Queue a backtest; returns its id."""
        request = messages.BacktestRequest(config=dict(config), priority=priority, name=name)
        return self._ask("POST", f"{_BACKTEST}/run", messages.BacktestAccepted, request).id

    def backtest_status(self, backtest_id: str) -> BacktestStatus:
        """Ask how a backtest is doing."""
        return self._ask("GET", f"{_BACKTEST}/{quote(backtest_id, safe='')}/status", BacktestStatus)

    def backtest_cancel(self, backtest_id: str) -> BacktestStatus:
        """End a backtest that is queued or running."""
        return self._ask("POST", f"{_BACKTEST}/{quote(backtest_id, safe='')}/cancel", BacktestStatus)

    def backtest_delete(self, backtest_id: str) -> None:
        """Remove a backtest that has ended."""
        self._ask("DELETE", f"{_BACKTEST}/{quote(backtest_id, safe='')}", type(None))

    def monte_carlo(self, request: MonteCarloRequest) -> Simulation:
        """Have the trades of a backtest simulated; that takes as long as they are many."""
        return self._ask("POST", "/api/v1/montecarlo", Simulation, request, timeout_s=None)

    def optimization_start(self, request: OptimizationRequest) -> str:
        """Queue an optimisation; returns its id."""
        return self._ask("POST", _OPTIMIZE, OptimizationStatus, request).id

    def optimization_resume(self, optimization_id: str) -> OptimizationStatus:
        """Queue an optimisation again that was cancelled or failed."""
        return self._ask("POST", f"{_OPTIMIZE}/{quote(optimization_id, safe='')}/resume", OptimizationStatus)

    def optimization_status(self, optimization_id: str) -> OptimizationStatus:
        """Ask how an optimisation is doing."""
        return self._ask("GET", f"{_OPTIMIZE}/{quote(optimization_id, safe='')}/status", OptimizationStatus)

    def optimization_cancel(self, optimization_id: str) -> OptimizationStatus:
        """End an optimisation that is queued or running."""
        return self._ask("POST", f"{_OPTIMIZE}/{quote(optimization_id, safe='')}/cancel", OptimizationStatus)

    def optimization_delete(self, optimization_id: str) -> None:
        """Remove an optimisation that has ended."""
        self._ask("DELETE", f"{_OPTIMIZE}/{quote(optimization_id, safe='')}", type(None))

    def _ask(
        self,
        method: str,
        path: str,
        kind: type[T],
        body: msgspec.Struct | None = None,
        timeout_s: float | None = _TIMEOUT_S,
    ) -> T:
        return ask(self._ready, self._folder, method, path, kind, body, timeout_s)
