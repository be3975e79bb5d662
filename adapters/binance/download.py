"""Binance's archive of whole days and months: which files there are, and how they come here and are trusted.

A file counts once its SHA-256 is the one that the venue publishes beside it. What differs even after a second try is
kept apart, for the venue is known to have had such files; what is missing is said; a year goes on without one bad day.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from datetime import date, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from adapters.binance.config import BinanceConfig
from adapters.binance.intervals import INTERVALS
from adapters.binance.symbols import venue_symbol
from adapters.shared.backoff import RateLimit, Waits
from adapters.shared.rest import Refused, Rest
from daemon.core.errors import AtlasError, Code, InvalidRequest, NotFound, SourceUnavailable
from daemon.core.ports import Verification
from daemon.core.ticks import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemon.core.market import Timeframe

QUARANTINE: Final = "quarantine"

_BRANCHES: Final = {"spot": "spot", "um": "futures/um", "cm": "futures/cm"}
_KINDS: Final = {Stream.TRADES: "trades", Stream.AGG_TRADES: "aggTrades", Stream.BARS: "klines"}
_CHECKSUM: Final = re.compile(r"(?P<sha256>[0-9a-fA-F]{64}) [ *](?P<name>\S+)\s*")
_NOT_FOUND: Final = 404
_TRIES: Final = 2  # a file may be rewritten between its own download and its checksum's
_DAY: Final = timedelta(days=1)


class ArchiveFile(NamedTuple):
    """A file that the archive should hold: all of a symbol's rows from first_day to last_day, both included.

    path: below the archive's host.
    """

    path: str
    first_day: date
    last_day: date

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.path.rpartition("/")[2]

    @property
    def is_month(self) -> bool:
        """Whether it holds more than one day."""
        return self.first_day != self.last_day


class Fetched(NamedTuple):
    """A file that is here now, or was before (`was_here`); UNVERIFIED where the venue publishes no checksum for it."""

    file: ArchiveFile
    path: Path
    sha256: str
    verification: Verification
    was_here: bool = False


class Missing(NamedTuple):
    """A day that the venue has no file for; of days that have not been published yet as well."""

    file: ArchiveFile


class Quarantined(NamedTuple):
    """A file that is not what the venue says it published (CHECKSUM_DIFFERS), kept apart at `path`."""

    file: ArchiveFile
    path: Path
    sha256: str
    expected_sha256: str
    code: Code = Code.CHECKSUM_DIFFERS


Outcome: TypeAlias = Fetched | Missing | Quarantined


def archive_files(
    symbol: str, stream: Stream, start: date, stop: date, *, today: date, timeframe: Timeframe | None = None
) -> list[ArchiveFile]:
    """List the files that hold the days [start, stop) before `today` (UTC), months where they are whole and past.

    stream: TRADES, AGG_TRADES, or BARS with their timeframe. Raises InvalidRequest for others.
    """
    market, name = venue_symbol(symbol)
    if stream not in _KINDS or (stream is Stream.BARS) != (timeframe is not None):
        why = f"binance's archive has trades, agg_trades, and bars of a timeframe, but no {stream} like this"
        raise InvalidRequest(Code.INVALID_REQUEST, why)
    folder, stem = f"{_KINDS[stream]}/{name}", f"{name}-{_KINDS[stream]}"
    if timeframe is not None:
        folder, stem = f"{folder}/{INTERVALS[timeframe]}", f"{name}-{INTERVALS[timeframe]}"
    root = f"/data/{_BRANCHES[market]}"
    files = []
    day, stop = start, min(stop, today)
    while day < stop:
        following = _next_month(day)
        if day.day == 1 and following <= stop:
            path = f"{root}/monthly/{folder}/{stem}-{day:%Y-%m}.zip"
            files.append(ArchiveFile(path, day, following - _DAY))
            day = following
        else:
            files.append(ArchiveFile(f"{root}/daily/{folder}/{stem}-{day:%Y-%m-%d}.zip", day, day))
            day += _DAY
    return files


def days_of(month: ArchiveFile) -> list[ArchiveFile]:
    """List the daily files that hold the same days as a monthly one."""
    stem = month.path.replace("/monthly/", "/daily/", 1).removesuffix(".zip")
    count = (month.last_day - month.first_day).days + 1
    days = [month.first_day + number * _DAY for number in range(count)]
    return [ArchiveFile(f"{stem}-{day:%d}.zip", day, day) for day in days]


def archive_rest(config: BinanceConfig, waits: Waits | None = None) -> Rest:
    """Open the archive; the caller closes it."""
    return Rest(
        "binance archive",
        config.archive,
        limit=RateLimit(burst=config.archive_per_s, per_s=config.archive_per_s),
        timeout_s=config.timeout_s,
        attempts=config.attempts,
        patience_s=config.patience_s,
        waits=waits,
    )


async def download(
    rest: Rest,
    files: Sequence[ArchiveFile],
    folder: Path,
    *,
    parallel: int = 4,
    progress: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Bring files into a folder, `parallel` at a time, and say what became of each, in their order.

    What is there and verified is not asked for again; half a file is gone on with. A month that the venue lacks is
    taken by its days. progress: told of each outcome as it comes.
    Raises RateLimited and SourceUnavailable where the venue stops answering, OSError where the disk is full; what was
    fetched stays, and calling again goes on.
    """
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    places = asyncio.Semaphore(parallel)

    async def bring(file: ArchiveFile) -> Outcome:
        async with places:
            outcome = await _bring_one(rest, file, folder)
        if progress is not None and not (isinstance(outcome, Missing) and file.is_month):
            progress(outcome)
        return outcome

    async def bring_all(wanted: Sequence[ArchiveFile]) -> list[Outcome]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(bring(file)) for file in wanted]
        except BaseExceptionGroup as failures:  # not `except*`: Python before 3.11.4 wraps what is raised there
            expected, others = failures.split((AtlasError, OSError))
            if expected is None or others is not None:
                raise
            raise _first(expected) from None
        return [task.result() for task in tasks]

    outcomes = await bring_all(files)
    gone = {each.file: days_of(each.file) for each in outcomes if isinstance(each, Missing) and each.file.is_month}
    by_day = iter(await bring_all([day for days in gone.values() for day in days]))
    said: list[Outcome] = []
    for outcome in outcomes:
        said.extend(islice(by_day, len(gone[outcome.file])) if outcome.file in gone else [outcome])
    return said


async def _bring_one(rest: Rest, file: ArchiveFile, folder: Path) -> Outcome:
    target, beside = folder / file.name, folder / f"{file.name}.CHECKSUM"
    here = await asyncio.to_thread(_sha256, target)
    if here and here == await asyncio.to_thread(_recorded, beside, file.name):
        return Fetched(file, target, here, Verification.VERIFIED, was_here=True)
    tries = _TRIES
    while True:
        try:
            sha256 = here or await rest.download(file.path, target)
        except NotFound:
            return Missing(file)
        expected = await published(rest, file)
        if expected is None:
            return Fetched(file, target, sha256, Verification.UNVERIFIED, was_here=bool(here))
        if sha256 == expected:
            # Last of all: its presence says that the file beside it was verified.
            await asyncio.to_thread(beside.write_text, f"{sha256}  {file.name}\n")
            return Fetched(file, target, sha256, Verification.VERIFIED, was_here=bool(here))
        tries -= not here
        if not tries:
            return Quarantined(file, await asyncio.to_thread(_put_apart, target), sha256, expected)
        here = ""


async def published(rest: Rest, file: ArchiveFile) -> str | None:
    """Return the SHA-256 that the venue publishes for a file; None where it publishes none."""
    try:
        reply = await rest.get(f"{file.path}.CHECKSUM")
    except Refused as refused:
        if refused.status == _NOT_FOUND:
            return None
        why = f"binance archive refuses the checksum of {file.name} ({refused}); try again later"
        raise SourceUnavailable(Code.SOURCE_UNAVAILABLE, why) from None
    if (line := _checksum(reply.body.decode("ascii", "replace"), file.name)) is None:
        why = f"binance archive answers with no checksum of {file.name}; try again"
        raise SourceUnavailable(Code.SOURCE_ANSWER_INVALID, why)
    return line


def _checksum(text: str, name: str) -> str | None:
    """Read a line of sha256sum about a file of this name."""
    line = _CHECKSUM.fullmatch(text)
    return line["sha256"].lower() if line and line["name"] == name else None


def _sha256(target: Path) -> str:
    """Return the SHA-256 of a file, "" where there is none."""
    if not target.exists():
        return ""
    with target.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _recorded(beside: Path, name: str) -> str | None:
    """Return the SHA-256 that a file had when it was verified."""
    return _checksum(beside.read_text("ascii", "replace"), name) if beside.exists() else None


def _put_apart(target: Path) -> Path:
    apart = target.parent / QUARANTINE / target.name
    apart.parent.mkdir(exist_ok=True)
    return target.replace(apart)


def _next_month(day: date) -> date:
    return (day.replace(day=28) + 4 * _DAY).replace(day=1)


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return one of the errors: those of files that ran side by side have one cause, and the rest were cancelled."""
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
