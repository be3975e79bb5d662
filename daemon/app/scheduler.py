"""The daemon's regular work on what is stored: compaction, retention, repair of gaps.

One after another on a thread, never two at once; one that was missed (the machine slept) runs once when it can.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from typing import TYPE_CHECKING, Any, Final

import msgspec

from adapters import registry
from daemon.core.errors import AtlasError, Code, ConfigError, SourceDataInvalid, StoreCorrupt, StoreFull
from daemon.ingest.recording import fill_holes
from daemon.store.ledger import CONTIGUOUS
from daemon.store.upkeep import compact, retain

if TYPE_CHECKING:
    from collections.abc import Callable

    from adapters.registry import VenueSettings
    from daemon.app.stores import Store
    from daemon.ingest.recording import RecordConfig
    from daemon.store.upkeep import RetentionConfig

_log = logging.getLogger(__name__)

_LATE_S: Final = 24 * 3_600
_LOOK_S: Final = 0.2  # between looks whether to stop
_WEEK: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
_NUMBERED_DAYS: Final = re.compile(r"(?P<first>[0-7*])(?:-(?P<last>[0-7]))?(?:/(?P<step>[1-7]))?")


class ScheduleConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `[schedule]` of config.toml: five fields of crontab in UTC, empty for never."""

    compact: str = ""
    retention: str = ""
    repair_gaps: str = ""


class Upkeep:
    """What is done to a store on schedule; also callable by itself."""

    def __init__(self, store: Store, retention: RetentionConfig, record: RecordConfig, settings: VenueSettings) -> None:
        self._store = store
        self._retention = retention
        self._record = record
        self._settings = settings
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End what is under way at the next series or request; what is missing then is done another time."""
        self._stopped.set()

    def compact(self) -> None:
        """Lay tails over chunks and join small chunks, series by series."""
        for series in self._store.ticks.series():
            if self._stopped.is_set():
                return
            try:
                done = compact(self._store.ticks, series.instrument, series.stream)
            except SourceDataInvalid as error:  # of this series; the others are compacted
                _log.error("%s %s: not compacted: %s", series.instrument.key, series.stream, error.message)
                continue
            if done.chunks_before != done.chunks_after:
                _log.info("%s %s: compacted to %d chunks", series.instrument.key, series.stream, done.chunks_after)

    def retain(self) -> None:
        """Let go of what is older or more than configured."""
        for (instrument, stream), rows in retain(self._store.ticks, self._retention).items():
            _log.info("%s %s: %d old rows deleted, as [retention] says", instrument.key, stream, rows)

    def repair_gaps(self) -> None:
        """Ask venues for the rows of open holes between ids."""
        asyncio.run(self._repair_until_stopped())

    async def _repair_until_stopped(self) -> None:
        repairing = asyncio.create_task(self._repair())
        while not repairing.done():
            await asyncio.wait([repairing], timeout=_LOOK_S)
            if self._stopped.is_set():
                repairing.cancel()
                await asyncio.wait([repairing])
                return
        await repairing

    async def _repair(self) -> None:
        for series in self._store.ticks.series():
            if series.instrument.venue not in registry.VENUES or series.stream not in CONTIGUOUS:
                continue
            if not series.open_holes:
                continue
            source = registry.history_of(series.instrument.venue, series.instrument.symbol, self._settings)
            try:
                if series.stream in source.streams:
                    most = self._record.backfill_rows
                    rows = await fill_holes(self._store.ticks, source, series.instrument, series.stream, most)
                    _log.info("%s %s: %d missing rows fetched", series.instrument.key, series.stream, rows)
            except (StoreFull, StoreCorrupt):
                raise
            except AtlasError as error:
                _log.warning("%s: holes stay open: %s", series.instrument.key, error.message)
            finally:
                await source.close()


class Scheduler:
    """Runs upkeep as configured, between `start` and `stop`.

    ConfigError CONFIG_INVALID for five fields that are none.
    """

    def __init__(self, upkeep: Upkeep, config: ScheduleConfig) -> None:
        self._upkeep = upkeep
        jobs: dict[str, tuple[str, Callable[[], None]]] = {
            "compact": (config.compact, upkeep.compact),
            "retention": (config.retention, upkeep.retain),
            "repair_gaps": (config.repair_gaps, upkeep.repair_gaps),
        }
        self._jobs = {name: (_trigger(name, fields), action) for name, (fields, action) in jobs.items() if fields}
        self._scheduler: Any = None

    def start(self) -> None:
        """Begin; without any schedule nothing is started."""
        if not self._jobs:
            return
        from apscheduler.executors.pool import ThreadPoolExecutor
        from apscheduler.schedulers.background import BackgroundScheduler

        logging.getLogger("apscheduler").setLevel(logging.WARNING)  # what it runs says so itself
        self._scheduler = BackgroundScheduler(timezone="UTC", executors={"default": ThreadPoolExecutor(1)})
        for name, (trigger, action) in self._jobs.items():
            self._scheduler.add_job(
                _said(name, action), trigger, id=name, max_instances=1, coalesce=True, misfire_grace_time=_LATE_S
            )
        self._scheduler.start()

    def stop(self) -> None:
        """End, and what is under way with it as soon as it can be left."""
        self._upkeep.stop()
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=True)


def _trigger(name: str, fields: str) -> Any:
    from apscheduler.triggers.cron import CronTrigger

    *others, days = fields.split() or [""]
    try:
        return CronTrigger.from_crontab(" ".join([*others, _named_days(days)]), timezone="UTC")
    except ValueError as error:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"schedule.{name}: `{fields}` is not five fields of crontab, such as `30 3 * * *` ({error})",
            {"key": f"schedule.{name}"},
        ) from None


def _named_days(field: str) -> str:
    """Name the days of a week that crontab numbers from Sunday: the scheduler numbers them from Monday."""
    named: list[str] = []
    for part in field.split(","):
        found = _NUMBERED_DAYS.fullmatch(part)
        if found is None or part == "*" or (found["first"] == "*" and found["last"]):
            named.append(part)
            continue
        first = 0 if found["first"] == "*" else int(found["first"])
        # A step without an end goes on to the end of the week.
        last = int(found["last"] or (6 if found["first"] == "*" or found["step"] else first))
        if last < first:
            raise ValueError(f"{part} ends before it begins")
        named += [_WEEK[day] for day in range(first, last + 1, int(found["step"] or 1))]
    return ",".join(named)


def _said(name: str, action: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        try:
            action()
        except AtlasError as error:
            _log.error("%s: %s [%s]", name, error.message, error.code)

    return run
