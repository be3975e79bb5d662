"""Binance's archive: which files there are, and how they come here, against a local server of files."""

import asyncio
import hashlib
from datetime import date
from random import Random

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from adapters.binance.config import BinanceConfig
from adapters.binance.download import (
    QUARANTINE,
    Fetched,
    Missing,
    Quarantined,
    archive_files,
    archive_rest,
    days_of,
    download,
)
from adapters.shared.backoff import Waits
from daemon.core.errors import Code, InvalidRequest, RateLimited, SourceUnavailable
from daemon.core.market import Timeframe
from daemon.core.ports import Verification
from daemon.core.ticks import Stream

TODAY = date(2024, 8, 12)
DAY = "/data/spot/daily/trades/BTCUSDT/BTCUSDT-trades-2024-08-{:02}.zip"
MONTH = "/data/spot/monthly/trades/BTCUSDT/BTCUSDT-trades-2024-{:02}.zip"


async def at_once(_seconds):
    """Sleep no time."""


WAITS = Waits(lambda: 0.0, lambda: 0.0, at_once, Random(7))  # noqa: S311 - jitter


class Archive:
    """Files by path; a checksum is right unless `checksums` has another; `failures` answer first, by path."""

    def __init__(self):
        self.files = {}
        self.checksums = {}
        self.failures = {}
        self.asked = []
        self.ranges = []
        self.takes_s = 0.0
        self.under_way = self.most_under_way = 0

    async def handle(self, request):
        self.asked.append(request.path)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(self.takes_s)
            return await self.answer(request)
        finally:
            self.under_way -= 1

    async def answer(self, request):
        if self.failures.get(request.path):
            return await self.failures[request.path].pop(0)(request)
        path = request.path.removesuffix(".CHECKSUM")
        if path not in self.files:
            return web.Response(status=404, body=b"<Error><Code>NoSuchKey</Code></Error>")
        body = self.files[path]
        if path == request.path:
            wanted = request.headers.get("Range")
            self.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            headers = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if start else {}
            return web.Response(body=body[start:], status=206 if start else 200, headers=headers)
        right = f"{hashlib.sha256(body).hexdigest()}  {path.rpartition('/')[2]}\n"
        line = self.checksums.get(path, right)
        return web.Response(text=line) if line else web.Response(status=404)

    def holds(self, *paths):
        for path in paths:
            self.files[path] = f"zip of {path}".encode() * 1_000


@pytest.fixture
async def archive():
    made = Archive()
    app = web.Application()
    app.router.add_get("/{path:.*}", made.handle)
    server = TestServer(app)
    await server.start_server()
    made.rest = archive_rest(BinanceConfig(archive=str(server.make_url("")), attempts=3), WAITS)
    yield made
    await made.rest.close()
    await server.close()


def days(start, stop):
    return archive_files("BTCUSDT", Stream.TRADES, date(2024, 8, start), date(2024, 8, stop), today=TODAY)


def answers(status=200, body=b"", **headers):
    async def answer(_request):
        told = {key.replace("_", "-"): each for key, each in headers.items()}
        return web.Response(status=status, body=body, headers=told)

    return answer


async def hangs_up_midway(request):
    response = web.StreamResponse(headers={"Content-Length": "100000"})
    await response.prepare(request)
    await response.write(b"zip of /da")
    request.transport.close()
    return response


def paths(files):
    return [file.path for file in files]


def test_whole_past_months_are_months_and_the_rest_are_days():
    files = archive_files("BTCUSDT", Stream.TRADES, date(2024, 5, 30), date(2024, 8, 3), today=TODAY)
    daily = "/data/spot/daily/trades/BTCUSDT/BTCUSDT-trades-2024-05-{}.zip"
    assert paths(files) == [
        daily.format(30),
        daily.format(31),
        MONTH.format("06"),
        MONTH.format("07"),
        DAY.format(1),
        DAY.format(2),
    ]
    assert (files[2].first_day, files[2].last_day) == (date(2024, 6, 1), date(2024, 6, 30))


def test_a_month_that_is_wanted_in_part_comes_by_days():
    files = archive_files("BTCUSDT", Stream.TRADES, date(2024, 2, 1), date(2024, 2, 29), today=TODAY)
    assert len(files) == 28
    assert not any(file.is_month for file in files)


def test_the_month_that_runs_and_days_from_today_on_are_no_files_yet():
    files = archive_files("BTCUSDT", Stream.TRADES, date(2024, 8, 1), date(2024, 9, 10), today=TODAY)
    assert paths(files) == [DAY.format(day) for day in range(1, 12)]
    assert archive_files("BTCUSDT", Stream.TRADES, TODAY, date(2025, 1, 1), today=TODAY) == []


@pytest.mark.parametrize(
    ("symbol", "stream", "timeframe", "path"),
    [
        ("BTC/USDT", Stream.AGG_TRADES, None, "spot/daily/aggTrades/BTCUSDT/BTCUSDT-aggTrades-2024-08-09.zip"),
        ("BTCUSDT-PERP", Stream.TRADES, None, "futures/um/daily/trades/BTCUSDT/BTCUSDT-trades-2024-08-09.zip"),
        ("BTCUSD-PERP", Stream.TRADES, None, "futures/cm/daily/trades/BTCUSD_PERP/BTCUSD_PERP-trades-2024-08-09.zip"),
        ("ETHUSDT", Stream.BARS, Timeframe.MIN_15, "spot/daily/klines/ETHUSDT/15m/ETHUSDT-15m-2024-08-09.zip"),
    ],
)
def test_files_lie_where_the_venue_puts_them(symbol, stream, timeframe, path):
    day = date(2024, 8, 9)
    files = archive_files(symbol, stream, day, date(2024, 8, 10), today=TODAY, timeframe=timeframe)
    assert paths(files) == [f"/data/{path}"]


@pytest.mark.parametrize(
    ("stream", "timeframe"), [(Stream.BARS, None), (Stream.TRADES, Timeframe.MIN_1), (Stream.QUOTES, None)]
)
def test_streams_that_the_archive_has_not_are_refused(stream, timeframe):
    with pytest.raises(InvalidRequest):
        archive_files("BTCUSDT", stream, date(2024, 8, 1), date(2024, 8, 2), today=TODAY, timeframe=timeframe)


async def test_files_come_verified_with_their_checksum_beside_them(archive, tmp_path):
    archive.holds(DAY.format(1), DAY.format(2))
    told = []
    outcomes = await download(archive.rest, days(1, 3), tmp_path / "new", progress=told.append)
    assert [type(outcome) for outcome in outcomes] == [Fetched, Fetched]
    for outcome in outcomes:
        content = archive.files[outcome.file.path]
        assert outcome.path.read_bytes() == content
        assert outcome.sha256 == hashlib.sha256(content).hexdigest()
        assert outcome.verification is Verification.VERIFIED
        beside = outcome.path.with_name(outcome.path.name + ".CHECKSUM").read_text()
        assert beside == f"{outcome.sha256}  {outcome.path.name}\n"
    assert sorted(told) == sorted(outcomes)
    assert len(list((tmp_path / "new").iterdir())) == 4


async def test_what_is_here_and_verified_is_not_asked_for_again(archive, tmp_path):
    archive.holds(DAY.format(1))
    await download(archive.rest, days(1, 2), tmp_path)
    archive.asked.clear()
    again = await download(archive.rest, days(1, 2), tmp_path)
    assert [outcome.was_here for outcome in again] == [True]
    assert archive.asked == []


async def test_a_file_that_changed_here_is_fetched_again(archive, tmp_path):
    archive.holds(DAY.format(1))
    (first,) = await download(archive.rest, days(1, 2), tmp_path)
    first.path.write_bytes(b"rotten")
    (again,) = await download(archive.rest, days(1, 2), tmp_path)
    assert (again.sha256, again.was_here) == (first.sha256, False)
    assert first.path.read_bytes() == archive.files[first.file.path]


async def test_a_file_that_lies_here_unverified_is_verified_not_fetched(archive, tmp_path):
    archive.holds(DAY.format(1))
    (tmp_path / "BTCUSDT-trades-2024-08-01.zip").write_bytes(archive.files[DAY.format(1)])
    (outcome,) = await download(archive.rest, days(1, 2), tmp_path)
    assert (outcome.verification, outcome.was_here) == (Verification.VERIFIED, True)
    assert archive.asked == [DAY.format(1) + ".CHECKSUM"]


async def test_half_a_file_is_gone_on_with(archive, tmp_path):
    archive.holds(DAY.format(1))
    archive.failures[DAY.format(1)] = [hangs_up_midway]
    (outcome,) = await download(archive.rest, days(1, 2), tmp_path)
    assert outcome.verification is Verification.VERIFIED
    assert archive.ranges == ["bytes=10-"]


async def test_half_a_file_of_another_version_is_fetched_whole_in_the_end(archive, tmp_path):
    archive.holds(DAY.format(1))
    (tmp_path / "BTCUSDT-trades-2024-08-01.zip.part").write_bytes(b"of an older version")
    (outcome,) = await download(archive.rest, days(1, 2), tmp_path)
    assert outcome.verification is Verification.VERIFIED
    assert outcome.path.read_bytes() == archive.files[DAY.format(1)]


async def test_a_checksum_that_differs_twice_is_kept_apart_and_the_rest_goes_on(archive, tmp_path):
    archive.holds(*(DAY.format(day) for day in (1, 2, 3)))
    archive.checksums[DAY.format(2)] = f"{'0' * 64}  BTCUSDT-trades-2024-08-02.zip\n"
    first, second, third = await download(archive.rest, days(1, 4), tmp_path)
    assert isinstance(first, Fetched)
    assert isinstance(third, Fetched)
    assert isinstance(second, Quarantined)
    assert second.code is Code.CHECKSUM_DIFFERS
    assert second.expected_sha256 == "0" * 64
    assert second.path == tmp_path / QUARANTINE / "BTCUSDT-trades-2024-08-02.zip"
    assert hashlib.sha256(second.path.read_bytes()).hexdigest() == second.sha256
    assert not (tmp_path / second.path.name).exists()
    assert archive.asked.count(DAY.format(2)) == 2
    del archive.checksums[DAY.format(2)]
    (again,) = await download(archive.rest, days(2, 3), tmp_path)
    assert isinstance(again, Fetched)


async def test_a_wrong_file_that_lay_here_does_not_count_as_one_of_two_tries(archive, tmp_path):
    archive.holds(DAY.format(1))
    archive.checksums[DAY.format(1)] = f"{'0' * 64}  BTCUSDT-trades-2024-08-01.zip\n"
    (tmp_path / "BTCUSDT-trades-2024-08-01.zip").write_bytes(b"rotten")
    (outcome,) = await download(archive.rest, days(1, 2), tmp_path)
    assert isinstance(outcome, Quarantined)
    assert archive.asked.count(DAY.format(1)) == 2


async def test_a_file_without_a_published_checksum_is_unverified(archive, tmp_path):
    archive.holds(DAY.format(1))
    archive.checksums[DAY.format(1)] = ""
    (outcome,) = await download(archive.rest, days(1, 2), tmp_path)
    assert outcome.verification is Verification.UNVERIFIED
    assert outcome.path.exists()


@pytest.mark.parametrize("line", ["<html>", f"{'0' * 64}  OTHER.zip\n", "short  BTCUSDT-trades-2024-08-01.zip"])
async def test_a_checksum_that_is_none_or_of_another_file_is_not_believed(archive, tmp_path, line):
    archive.holds(DAY.format(1))
    archive.checksums[DAY.format(1)] = line
    with pytest.raises(SourceUnavailable) as error:
        await download(archive.rest, days(1, 2), tmp_path)
    assert error.value.code is Code.SOURCE_ANSWER_INVALID
    assert not list(tmp_path.glob("*.CHECKSUM"))


async def test_days_that_the_venue_lacks_are_told_and_the_rest_goes_on(archive, tmp_path):
    archive.holds(DAY.format(1), DAY.format(3))
    outcomes = await download(archive.rest, days(1, 4), tmp_path)
    assert [type(outcome) for outcome in outcomes] == [Fetched, Missing, Fetched]
    assert outcomes[1].file.first_day == date(2024, 8, 2)


async def test_a_month_that_is_not_there_is_taken_by_its_days_in_order(archive, tmp_path):
    files = archive_files("BTCUSDT", Stream.TRADES, date(2024, 6, 30), date(2024, 8, 3), today=TODAY)
    july = [DAY.replace("08-{:02}", "07-{:02}").format(day) for day in range(1, 32)]
    archive.holds(*(day for day in july if not day.endswith("07-15.zip")), *(DAY.format(day) for day in (1, 2)))
    archive.holds(DAY.replace("08-{:02}", "06-30"))
    told = []
    outcomes = await download(archive.rest, files, tmp_path, progress=told.append)
    assert [outcome.file.first_day for outcome in outcomes] == [
        date(2024, 6, 30),
        *(date(2024, 7, day) for day in range(1, 32)),
        date(2024, 8, 1),
        date(2024, 8, 2),
    ]
    assert [outcome.file.first_day for outcome in outcomes if isinstance(outcome, Missing)] == [date(2024, 7, 15)]
    assert paths(days_of(files[1])) == july
    assert len(told) == len(outcomes)


async def test_no_more_files_than_allowed_are_under_way(archive, tmp_path):
    archive.holds(*(DAY.format(day) for day in range(1, 12)))
    archive.takes_s = 0.005
    await download(archive.rest, days(1, 12), tmp_path, parallel=3)
    assert archive.most_under_way == 3


async def test_a_venue_that_stops_answering_ends_it_and_what_came_stays(archive, tmp_path):
    archive.holds(*(DAY.format(day) for day in (1, 2, 3)))
    archive.failures[DAY.format(3)] = [answers(503)] * 3
    with pytest.raises(SourceUnavailable) as error:
        await download(archive.rest, days(1, 4), tmp_path, parallel=1)
    assert error.value.code is Code.SOURCE_UNAVAILABLE
    again = await download(archive.rest, days(1, 4), tmp_path)
    assert [outcome.was_here for outcome in again] == [True, True, False]


async def test_a_limit_beyond_our_patience_is_told_with_its_seconds(archive, tmp_path):
    archive.holds(DAY.format(1))
    archive.failures[DAY.format(1)] = [answers(429, Retry_After="7200")]
    with pytest.raises(RateLimited) as error:
        await download(archive.rest, days(1, 2), tmp_path)
    assert error.value.details == {"retry_after_s": 7200}


async def test_server_errors_that_pass_cost_nothing(archive, tmp_path):
    archive.holds(DAY.format(1))
    archive.failures[DAY.format(1)] = [answers(500)]
    archive.failures[DAY.format(1) + ".CHECKSUM"] = [answers(502)]
    (outcome,) = await download(archive.rest, days(1, 2), tmp_path)
    assert outcome.verification is Verification.VERIFIED
