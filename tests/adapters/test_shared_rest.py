"""The HTTP client of the venues, against a local server that misbehaves as they do; no test really waits."""

import asyncio
import hashlib
from email.utils import formatdate
from random import Random

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from adapters.shared.backoff import Backoff, Gate, RateLimit, Waits, retry_after_s
from adapters.shared.rest import Refused, Rest
from daemon.core.errors import Code, NotFound, RateLimited, SourceUnavailable

NOW_S = 1_700_000_000.0
FILE = bytes(range(256)) * 4_000


class Row(msgspec.Struct):
    price: str


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self):
        self.slept = []
        self.now = 0.0

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    @property
    def waits(self):
        return Waits(lambda: self.now, lambda: NOW_S + self.now, self.sleep, Random(7))  # noqa: S311 - jitter


class Venue:
    """Answers each request with the next of its answers, and the last one for ever after."""

    def __init__(self, clock):
        self.clock = clock
        self.answers = []
        self.requests = []
        self.server = None
        self.rests = []

    async def handle(self, request):
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request)

    def rest(self, *answers, base_url=None, **options):
        self.answers = list(answers)
        options = {"limit": RateLimit(1_000, 1_000), "waits": self.clock.waits} | options
        self.rests.append(Rest("venue", base_url or str(self.server.make_url("")), **options))
        return self.rests[-1]


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def venue(clock):
    made = Venue(clock)
    app = web.Application()
    app.router.add_get("/{path:.*}", made.handle)
    made.server = TestServer(app)
    await made.server.start_server()
    yield made
    for rest in made.rests:
        await rest.close()
    await made.server.close()


def says(body=b'{"price": "1.5"}', status=200, **headers):
    async def answer(_request):
        return web.Response(
            body=body, status=status, headers={key.replace("_", "-"): each for key, each in headers.items()}
        )

    return answer


async def hangs_up_midway(request):
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"price": ')
    request.transport.close()
    return response


async def never_answers(_request):
    await asyncio.sleep(30)


async def test_an_answer_comes_with_its_body_and_headers(venue):
    reply = await venue.rest(says(b"{}", X_Used="7")).get("/v1/x", {"symbol": "A", "limit": 5})
    assert reply.body == b"{}"
    assert reply.headers["x-used"] == "7"
    assert venue.requests[0].path_qs == "/v1/x?symbol=A&limit=5"


async def test_json_is_typed_and_new_fields_are_passed_over(venue):
    row, headers = await venue.rest(says(b'{"price": "1.5", "new": null}')).json("/x", None, Row)
    assert row == Row("1.5")
    assert "Content-Type" in headers


@pytest.mark.parametrize("status", [429, 418])
@pytest.mark.parametrize("header", ["7", formatdate(NOW_S + 7, usegmt=True)])
async def test_a_limit_is_waited_for_as_long_as_the_venue_asks(venue, clock, status, header):
    rest = venue.rest(says(status=status, Retry_After=header), says(b"ok"))
    assert (await rest.get("/x")).body == b"ok"
    assert clock.slept == [7.0]
    assert len(venue.requests) == 2


async def test_a_ban_beyond_our_patience_is_an_error_with_its_seconds_and_holds_later_requests(venue, clock):
    limit = RateLimit(burst=1, per_s=0.01)  # whoever took a turn without need would have to wait for the next
    rest = venue.rest(says(status=418, Retry_After="7200"), says(b"ok"), patience_s=300.0, limit=limit)
    for _ in range(2):
        with pytest.raises(RateLimited) as limited:
            await rest.get("/x")
        assert limited.value.code is Code.RATE_LIMITED
        assert limited.value.details == {"retry_after_s": 7200}
    assert len(venue.requests) == 1
    assert clock.slept == []
    clock.now += 7200
    assert (await rest.get("/x")).body == b"ok"


async def test_limits_without_an_end_exhaust_the_patience(venue, clock):
    rest = venue.rest(says(status=429, Retry_After="100"), patience_s=300.0)
    with pytest.raises(RateLimited):
        await rest.get("/x")
    assert sum(clock.slept) == 300
    assert len(venue.requests) == 4


@pytest.mark.parametrize("header", [None, "0", "soon"])
async def test_a_limit_without_a_time_backs_off_and_ends(venue, clock, header):
    headers = {"Retry_After": header} if header else {}
    rest = venue.rest(says(status=429, **headers), patience_s=60.0)
    with pytest.raises(RateLimited):
        await rest.get("/x")
    assert 2 < len(venue.requests) < 60
    assert sum(clock.slept) <= 60


async def test_one_request_that_is_limited_holds_those_beside_it(venue, clock):
    gone = asyncio.Event()

    async def limited_then_ok(request):
        if not gone.is_set():
            gone.set()
            return await says(status=429, Retry_After="9")(request)
        return await says(b"ok")(request)

    rest = venue.rest(limited_then_ok)
    first = asyncio.create_task(rest.get("/a"))
    await gone.wait()
    await asyncio.gather(first, rest.get("/b"))
    assert clock.now >= 9


@pytest.mark.parametrize("flaw", [says(status=503), says(status=500), hangs_up_midway, says(status=408)])
async def test_what_may_pass_is_asked_for_again(venue, clock, flaw):
    rest = venue.rest(flaw, flaw, says(b"ok"))
    assert (await rest.get("/x")).body == b"ok"
    assert len(clock.slept) == 2
    assert clock.slept[0] <= 0.5
    assert clock.slept[1] <= 1.0


@pytest.mark.parametrize("flaw", [says(status=502), hangs_up_midway])
async def test_a_venue_that_stays_broken_is_unavailable_after_so_many_attempts(venue, flaw):
    with pytest.raises(SourceUnavailable, match=r"asked 3 times") as error:
        await venue.rest(flaw, attempts=3).get("/x")
    assert error.value.code is Code.SOURCE_UNAVAILABLE
    assert len(venue.requests) == 3


async def test_a_venue_that_keeps_silent_is_asked_again(venue):
    rest = venue.rest(never_answers, says(b"ok"), timeout_s=0.05)
    assert (await rest.get("/x")).body == b"ok"


async def test_a_venue_that_is_not_there_is_unavailable(venue):
    rest = venue.rest(says(), base_url=f"http://127.0.0.1:{unused_port()}", attempts=2)
    with pytest.raises(SourceUnavailable) as error:
        await rest.get("/x")
    assert error.value.code is Code.SOURCE_UNAVAILABLE


async def test_a_base_url_that_is_no_address_is_not_asked_again(venue, clock):
    with pytest.raises(SourceUnavailable, match="correct the host"):
        await venue.rest(says(), base_url="venue.example").get("/x")
    assert clock.slept == []


@pytest.mark.parametrize("status", [403, 451])
async def test_a_blocked_place_is_told_at_once(venue, status):
    with pytest.raises(SourceUnavailable, match=str(status)) as error:
        await venue.rest(says(status=status)).get("/x")
    assert error.value.code is Code.SOURCE_BLOCKED
    assert len(venue.requests) == 1


@pytest.mark.parametrize("body", [b"<html>busy</html>", b'{"price": "1.', b"", b'{"price": "\xff"}'])
async def test_what_is_no_json_is_asked_for_again_and_then_invalid(venue, body):
    assert (await venue.rest(says(body), says()).json("/x", None, Row))[0] == Row("1.5")
    with pytest.raises(SourceUnavailable) as error:
        await venue.rest(says(body), attempts=2).json("/x", None, Row)
    assert error.value.code is Code.SOURCE_ANSWER_INVALID
    assert len(venue.requests) == 4


@pytest.mark.parametrize("body", [b'{"price": null}', b'{"cost": "1"}', b"[]"])
async def test_json_of_another_shape_is_invalid_at_once(venue, body):
    with pytest.raises(SourceUnavailable) as error:
        await venue.rest(says(body)).json("/x", None, Row)
    assert error.value.code is Code.SOURCE_ANSWER_INVALID
    assert len(venue.requests) == 1


async def test_other_refusals_are_the_adapters_to_translate(venue):
    with pytest.raises(Refused) as refused:
        await venue.rest(says(b'{"code":-1121}', status=400)).get("/x")
    assert (refused.value.status, refused.value.body) == (400, b'{"code":-1121}')


async def test_a_redirect_is_not_followed_with_our_key(venue):
    rest = venue.rest(says(status=302, Location="/elsewhere"), headers={"X-KEY": "sesame"})
    with pytest.raises(SourceUnavailable, match="correct the host"):
        await rest.get("/x")
    assert len(venue.requests) == 1


@pytest.mark.parametrize("answer", [says(status=400), says(status=451), says(status=500), says(b"<html>")])
async def test_a_key_is_sent_but_never_told(venue, answer):
    rest = venue.rest(answer, headers={"X-KEY": "sesame"}, attempts=1)
    with pytest.raises((Refused, SourceUnavailable)) as error:
        await rest.json("/x", None, Row)
    assert venue.requests[0].headers["X-KEY"] == "sesame"
    assert "sesame" not in repr(error.value)


async def test_requests_leave_no_faster_than_the_limit(venue, clock):
    rest = venue.rest(says(), limit=RateLimit(burst=4, per_s=2))
    for _ in range(5):
        await rest.get("/x", weight=2)
    assert clock.slept == [1.0, 1.0, 1.0]


async def test_requests_at_once_queue_up_behind_each_other(clock):
    gate = Gate(RateLimit(burst=4, per_s=2), clock.waits._replace(now_s=lambda: 0.0))
    await asyncio.gather(*(gate.enter(2) for _ in range(5)))
    assert clock.slept == [1.0, 2.0, 3.0]


async def test_idleness_earns_no_more_than_the_burst(clock):
    gate = Gate(RateLimit(burst=4, per_s=2), clock.waits)
    clock.now += 3_600
    await gate.enter(6)
    assert clock.slept == [1.0]


def test_a_shorter_wish_for_quiet_does_not_end_a_longer_one(clock):
    gate = Gate(RateLimit(burst=4, per_s=2), clock.waits)
    gate.quieten(60)
    gate.quieten(0)
    assert gate.quiet_s == 60
    clock.now += 61
    assert gate.quiet_s == 0


async def test_a_weight_above_the_burst_passes_when_it_is_earned(venue, clock):
    await venue.rest(says(), limit=RateLimit(burst=4, per_s=2)).get("/x", weight=10)
    assert clock.slept == [3.0]


async def test_a_new_limit_holds_from_then_on(venue, clock):
    rest = venue.rest(says(), limit=RateLimit(burst=100, per_s=100))
    rest.change_limit(RateLimit(burst=1, per_s=0.5))
    await rest.get("/x")
    await rest.get("/x")
    assert clock.slept == [2.0]


async def test_a_budget_that_is_nearly_used_up_holds_the_next_request(venue, clock):
    rest = venue.rest(
        says(X_Used="99"), says(X_Used="1"), quiet_s=lambda headers: 30.0 if headers["X-Used"] == "99" else 0
    )
    await rest.get("/x")
    assert clock.slept == []
    await rest.get("/x")
    await rest.get("/x")
    assert clock.slept == [30.0]


def ranged(body=FILE, *, most=None, ignore_range=False):
    """A server of files: `most` bytes of an answer, then it hangs up."""

    async def answer(request):
        wanted = request.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and not ignore_range else 0
        if wanted and start >= len(body):
            return web.Response(status=416)
        status = 206 if start else 200
        response = web.StreamResponse(status=status, headers={"Content-Length": str(len(body) - start)})
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        await response.prepare(request)
        if most is None:
            await response.write(body[start:])
        else:
            await response.write(body[start : start + most])
            await asyncio.sleep(0.01)
            request.transport.close()
        return response

    return answer


async def test_a_download_is_whole_and_leaves_no_part_behind(venue, tmp_path):
    digest = await venue.rest(ranged()).download("/f.zip", tmp_path / "f.zip")
    assert digest == hashlib.sha256(FILE).hexdigest()
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("f.zip", FILE)]


async def test_a_download_that_breaks_goes_on_where_it_broke(venue, tmp_path):
    digest = await venue.rest(ranged(most=300_000), ranged()).download("/f.zip", tmp_path / "f.zip")
    assert digest == hashlib.sha256(FILE).hexdigest()
    assert (tmp_path / "f.zip").read_bytes() == FILE
    assert [request.headers.get("Range") for request in venue.requests] == [None, "bytes=300000-"]


async def test_a_later_call_goes_on_with_what_an_earlier_one_left(venue, tmp_path):
    rest = venue.rest(ranged(most=300_000), attempts=1)
    with pytest.raises(SourceUnavailable):
        await rest.download("/f.zip", tmp_path / "f.zip")
    assert [each.name for each in tmp_path.iterdir()] == ["f.zip.part"]
    digest = await venue.rest(ranged()).download("/f.zip", tmp_path / "f.zip")
    assert digest == hashlib.sha256(FILE).hexdigest()
    assert venue.requests[-1].headers["Range"] == "bytes=300000-"


@pytest.mark.parametrize("left", [b"old", b"much too long" * 100_000])
async def test_a_part_that_cannot_be_gone_on_with_is_begun_anew(venue, tmp_path, left):
    (tmp_path / "f.zip.part").write_bytes(left)
    server = ranged() if len(left) > len(FILE) else ranged(ignore_range=True)
    digest = await venue.rest(server).download("/f.zip", tmp_path / "f.zip")
    assert digest == hashlib.sha256(FILE).hexdigest()
    assert (tmp_path / "f.zip").read_bytes() == FILE


async def test_another_range_than_was_asked_for_is_not_joined(venue, tmp_path):
    (tmp_path / "f.zip.part").write_bytes(FILE[:100])
    digest = await venue.rest(says(FILE[50:], 206, Content_Range="bytes 50-/9"), ranged()).download(
        "/f", tmp_path / "f.zip"
    )
    assert digest == hashlib.sha256(FILE).hexdigest()


async def test_a_file_that_the_venue_lacks_is_not_found(venue, tmp_path):
    with pytest.raises(NotFound) as error:
        await venue.rest(says(b"<Error>NoSuchKey</Error>", status=404)).download("/f.zip", tmp_path / "f.zip")
    assert error.value.code is Code.SOURCE_NOT_FOUND
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("attempt", [0, 3, 5_000])
def test_back_off_draws_between_nothing_and_its_bound(attempt):
    backoff, random = Backoff(first_s=0.5, cap_s=60.0), Random(1)  # noqa: S311 - jitter
    drawn = [backoff.delay_s(attempt, random) for _ in range(500)]
    bound = min(60.0, 0.5 * 2 ** min(attempt, 20))
    assert 0 <= min(drawn) < 0.1 * bound
    assert 0.9 * bound < max(drawn) <= bound


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("120", 120.0), ("0.5", 0.5), (formatdate(NOW_S - 60, usegmt=True), 0.0), (None, None), ("", None), ("-5", None)],
)
def test_retry_after_is_seconds_or_a_date(header, seconds):
    assert retry_after_s(header, NOW_S) == seconds
