"""The WebSocket: requests, bad input, formats, who may connect, events, and what becomes of slow clients."""

import asyncio
import contextlib
import json
import math
import resource
import struct
import threading
from typing import Any

import aiohttp
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import BEARER, PATIENCE_S, TOKEN, Client, served

from daemon.api import dispatch, outbox, ws
from daemon.api.protocol import Call, Nothing, method
from daemon.app.bench_api_client import Socket as RawSocket
from daemon.core.events import BacktestFailed, BacktestProgressed, OptimizationProgressed

# What a request was granted stands under a text, as all supported releases of the framework have it.
pytestmark = pytest.mark.filterwarnings("ignore::aiohttp.web.NotAppKeyWarning")


@pytest.fixture
async def api(tmp_path):
    """An application over an empty store."""
    async with served(tmp_path / "data") as started:
        yield started


@pytest.fixture
async def client(api):
    """A client of it, with the token."""
    async with api.connected() as connected:
        yield connected


@pytest.fixture
def slow(monkeypatch):
    """A method `test:slow` that answers once the event is set."""
    gate = asyncio.Event()

    @method("test:slow")
    async def wait(_call: Call, _request: Nothing) -> dict[str, Any]:
        """Wait."""
        await gate.wait()
        return {"waited": True}

    monkeypatch.setitem(dispatch.METHODS, "test:slow", wait)
    return gate


def failed(backtest_id, words="no bars", symbols=()):
    return BacktestFailed(id=backtest_id, error=words, code="NO_BARS", symbols=list(symbols))


def progressed(backtest_id, progress, symbols=()):
    return BacktestProgressed(id=backtest_id, status="running", progress=progress, symbols=list(symbols))


def written(api, *events):
    """Write facts, and wait until the journal has them."""
    before = api.services.journal.last
    for event in events:
        api.services.journal.append(event)
    return until(lambda: api.services.journal.last == before + len(events))


async def until(is_so):
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110 - what is waited for is the application's own
            await asyncio.sleep(0.001)


# Requests.


async def test_an_answer_has_a_payload_and_no_error(client):
    frame = await client.ask("status")
    assert frame.pop("timestamp") > 1_700_000_000_000
    assert frame.pop("payload")["memoryUsage"] == 1 << 20
    assert frame == {"id": "r1", "type": "response", "method": "status"}


async def test_a_failure_has_an_error_and_no_payload(client):
    frame = await client.ask("backtest:status", id="nothing")
    assert frame["error"]["code"] == "BACKTEST_NOT_FOUND"
    assert "payload" not in frame
    assert frame["method"] == "backtest:status"


async def test_requests_are_answered_as_they_are_done_not_as_they_came(client, slow):
    await client.send({"id": "slow", "method": "test:slow"})
    assert (await client.ask("status"))["id"] == "r1"
    slow.set()
    assert (await client.next())["payload"] == {"waited": True}


async def test_an_id_in_flight_is_refused_and_may_be_used_again_after(client, slow):
    await client.send({"id": "same", "method": "test:slow"})
    await client.send({"id": "same", "method": "status"})
    refused = await client.next()
    assert (refused["id"], refused["error"]["code"]) == ("same", "DUPLICATE_ID")
    slow.set()
    assert (await client.next())["payload"] == {"waited": True}
    await client.send({"id": "same", "method": "status"})
    assert "payload" in await client.next()


async def test_more_requests_than_are_answered_at_once_wait_for_their_turn(client, slow):
    count = ws.MOST_IN_FLIGHT + 50
    for number in range(count):
        await client.send({"id": str(number), "method": "test:slow"})
    await asyncio.sleep(0.05)
    slow.set()
    assert sorted([int((await client.next())["id"]) for _ in range(count)]) == list(range(count))


async def test_a_defect_answers_internal_and_the_connection_lives(client, monkeypatch, caplog):
    async def broken(*_):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("daemon.api.frames.ask", broken)
    frame = await client.ask("status")
    assert frame["error"]["code"] == "INTERNAL"
    assert "secret" not in json.dumps(frame)
    assert "secret" in caplog.text
    monkeypatch.undo()
    assert "payload" in await client.ask("status")


async def test_jobs_that_are_started_too_quickly_are_refused(api, client, monkeypatch):
    monkeypatch.setattr(api.services.starts, "_per_s", 1)
    with api.services.starts.one():
        assert (await client.ask("backtest:run", config={}))["error"]["code"] == "TOO_MANY_REQUESTS"
    assert "payload" in await client.ask("status")


async def test_a_start_counts_once(api, client, monkeypatch):
    @method("test:start", starts_job=True)
    async def start(_call: Call, _request: Nothing) -> dict[str, Any]:
        """Start nothing."""
        return {}

    monkeypatch.setitem(dispatch.METHODS, "test:start", start)
    monkeypatch.setattr(api.services.starts, "_per_s", 2)
    answers = [await client.ask("test:start") for _ in range(3)]
    assert [each.get("error", {}).get("code") for each in answers] == [None, None, "TOO_MANY_REQUESTS"]


# Bad input.

BAD = {
    "not JSON": ("{", None, "INVALID_JSON"),
    "empty": ("", None, "INVALID_JSON"),
    "an array": ("[]", None, "INVALID_REQUEST"),
    "a text": ('"status"', None, "INVALID_REQUEST"),
    "depth 10,000": ("[" * 10_000 + "]" * 10_000, None, "INVALID_JSON"),
    "a payload of depth 10,000": (
        '{"id":"1","method":"status","payload":' + "[" * 10_000 + "]" * 10_000 + "}",
        None,
        "INVALID_JSON",
    ),
    "a huge float": ('{"id":"1","method":"status","payload":{"a":1e999}}', "1", "INVALID_JSON"),
    "a huge integer": (
        '{"id":"1","method":"backtest:list","payload":{"limit":%s}}' % ("9" * 6_000),
        "1",
        "INVALID_JSON",
    ),
    "an integer of 30 digits": (
        '{"id":"1","method":"backtest:list","payload":{"limit":%s}}' % ("9" * 30),
        "1",
        "INVALID_REQUEST",
    ),
    "no id": ('{"method":"status"}', None, "INVALID_REQUEST"),
    "a number for an id": ('{"id":1,"method":"status"}', None, "INVALID_REQUEST"),
    "an empty id": ('{"id":"","method":"status"}', None, "INVALID_REQUEST"),
    "an id of 10 kB": ('{"id":"%s","method":"status"}' % ("x" * 10_000), None, "INVALID_REQUEST"),
    "no method": ('{"id":"1"}', "1", "INVALID_REQUEST"),
    "a number for a method": ('{"id":"1","method":5}', "1", "INVALID_REQUEST"),
    "an unknown method": ('{"id":"1","method":"nope"}', "1", "UNKNOWN_METHOD"),
    "a method of 10 kB": ('{"id":"1","method":"%s"}' % ("x" * 10_000), "1", "UNKNOWN_METHOD"),
    "a method of a later release": ('{"id":"1","method":"killswitch:status"}', "1", "NOT_AVAILABLE"),
    "another type": ('{"id":"1","type":"event","method":"status"}', "1", "INVALID_REQUEST"),
    "an unknown field": ('{"id":"1","method":"status","payload":{"a":1}}', "1", "INVALID_REQUEST"),
    "a wrong type": ('{"id":"1","method":"backtest:list","payload":{"limit":"x"}}', "1", "INVALID_REQUEST"),
    "a payload that is a list": ('{"id":"1","method":"status","payload":[]}', "1", "INVALID_REQUEST"),
    "a lone surrogate": ('{"id":"1","method":"\\ud800"}', "1", None),
    "HTML for a symbol": (
        '{"id":"1","method":"data:gaps","payload":{"symbol":"<img src=x onerror=alert(1)>"}}',
        "1",
        "INVALID_SYMBOL",
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_frame_is_answered_with_a_code_and_the_connection_lives(client, name):
    content, request_id, code = BAD[name]
    await client.send(content)
    frame = await client.next()
    assert frame["type"] == "response"
    assert "payload" not in frame
    if code is not None:
        assert (frame["id"], frame["error"]["code"]) == (request_id, code)
    assert len(json.dumps(frame)) < 2_000
    assert "payload" in await client.ask("status")


async def test_a_wrong_type_names_its_path(client):
    frame = await client.ask("backtest:list", limit="many")
    assert "`$.limit`" in frame["error"]["message"]


async def test_numbers_may_be_written_as_texts(client):
    assert (await client.ask("backtest:list", limit="5"))["payload"] == []


async def test_binary_without_the_subprotocol_is_refused(client):
    await client.socket.send_bytes(b"\x80")
    frame = await client.next()
    assert (frame["id"], frame["error"]["code"]) == (None, "INVALID_REQUEST")
    assert "atlas.msgpack" in frame["error"]["message"]
    assert "payload" in await client.ask("status")


async def test_fragments_are_one_frame(api):
    async with api.connected() as client:
        transport = client.socket._response.connection.transport  # noqa: SLF001 - aiohttp sends no fragments
        first_bytes = {0: 0x01, 1: 0x00, 2: 0x80}
        for number, part in enumerate((b'{"id":"1",', b'"method":', b'"status"}')):
            transport.write(bytes([first_bytes[number], 0x80 | len(part)]) + bytes(4) + part)
        assert "payload" in await client.next()


async def test_text_that_is_no_utf8_closes_with_1007(client):
    await client.socket.send_frame(b'{"id":"\xff"}', aiohttp.WSMsgType.TEXT)
    assert (await client.closed())[0] == 1007


async def test_ten_megabytes_close_with_1009(client):
    with contextlib.suppress(ConnectionError):
        await client.socket.send_str("x" * (10 << 20))
    assert (await client.closed())[0] in (1009, 1006)  # 1006: hung up on before all of it was sent


async def test_a_message_just_over_the_limit_closes_with_1009(tmp_path):
    async with served(tmp_path / "data", max_message_kb=2) as api, api.connected() as client:
        assert "error" in await client.ask("backtest:status", id="x" * 1_500)
        await client.socket.send_str("x" * 3_000)
        assert (await client.closed())[0] == 1009


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
NAMES = st.sampled_from([name for name in dispatch.METHODS if name != "montecarlo:run"]) | st.text()
FIELDS = st.dictionaries(st.sampled_from(["id", "config", "symbol", "limit", "events", "epoch", "after"]), JSONS)
FRAMES = st.one_of(
    JSONS,
    st.fixed_dictionaries({"id": st.text(max_size=9) | JSONS, "method": NAMES, "payload": FIELDS | JSONS}),
    st.fixed_dictionaries({"id": st.text(max_size=9), "action": NAMES, "payload": FIELDS}),
)


@pytest.mark.parametrize("packed", [False, True], ids=["json", "msgpack"])
async def test_no_frame_breaks_the_connection(tmp_path, packed):
    """Every frame is answered by exactly one, none of them INTERNAL."""
    loop = asyncio.get_running_loop()
    async with served(tmp_path / "data") as api:
        options = {"protocols": ("atlas.msgpack",)} if packed else {}
        async with api.connected(**options) as client:

            async def answered(content):
                if packed:
                    await client.socket.send_bytes(content)
                else:
                    await client.socket.send_str(content)
                return await client.receive()

            texts = st.text() | FRAMES.map(json.dumps)
            packs = st.binary() | FRAMES.map(_packed)

            @settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
            @given(packs if packed else texts)
            def holds(content):
                frame = asyncio.run_coroutine_threadsafe(answered(content), loop).result(PATIENCE_S)
                assert frame["type"] in ("response", "event")
                error = frame.get("error")
                assert not error or "INTERNAL" not in str(error), (content, frame)

            await asyncio.to_thread(holds)


def _packed(frame):
    with contextlib.suppress(OverflowError):
        return msgspec.msgpack.encode(frame)
    return b""


# Formats.


async def test_messagepack_has_the_same_content_as_json(api):
    async with api.connected(protocols=("atlas.json",)) as text, api.connected(protocols=("atlas.msgpack",)) as packed:
        assert (text.socket.protocol, packed.socket.protocol) == ("atlas.json", "atlas.msgpack")
        for name, fields in [("status", {}), ("strategies:list", {}), ("backtest:status", {"id": "x"})]:
            frames = [await each.ask(name, **fields) for each in (text, packed)]
            assert all(isinstance(frame.pop("timestamp"), int) for frame in frames)
            assert frames[0] == frames[1]


async def test_stored_json_is_sent_as_messagepack(api, monkeypatch):
    @method("test:raw")
    async def raw(_call: Call, _request: Nothing) -> dict[str, Any]:
        """Answer as it is stored."""
        return msgspec.Raw(b'{"time": 1700000000000, "rows": [1.5, null, "x"]}')

    monkeypatch.setitem(dispatch.METHODS, "test:raw", raw)
    for protocol in ("atlas.json", "atlas.msgpack"):
        async with api.connected(protocols=(protocol,)) as client:
            payload = (await client.ask("test:raw"))["payload"]
            assert payload == {"time": 1_700_000_000_000, "rows": [1.5, None, "x"]}


async def test_text_with_the_messagepack_subprotocol_is_refused_in_messagepack(api):
    async with api.connected(protocols=("atlas.msgpack",)) as client:
        await client.socket.send_str('{"id":"1","method":"status"}')
        assert (await client.next())["error"]["code"] == "INVALID_REQUEST"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "INVALID_JSON"),
        (b"\xc1", "INVALID_JSON"),
        (b"\x91" * 10_000 + b"\x01", "INVALID_JSON"),
        (msgspec.msgpack.encode({"id": "1", "method": "backtest:list", "payload": {"limit": math.nan}}), None),
        (msgspec.msgpack.encode({"id": "1", "method": "backtest:list", "payload": {"limit": b"5"}}), None),
        (msgspec.msgpack.encode({"id": "1", "method": "status", "payload": {5: 5}}), "INVALID_REQUEST"),
        (msgspec.msgpack.encode({"id": 7, "method": "status"}), "INVALID_REQUEST"),
    ],
)
async def test_bad_messagepack_is_answered_with_a_code(api, content, code):
    async with api.connected(protocols=("atlas.msgpack",)) as client:
        await client.socket.send_bytes(content)
        frame = await client.next()
        assert frame["error"]["code"] in ((code,) if code else ("INVALID_REQUEST", "INVALID_JSON"))
        assert "payload" in await client.ask("status")


async def test_unknown_subprotocols_are_refused_before_the_upgrade(api):
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with api.connected(protocols=("graphql-ws",)):
            pass
    assert refused.value.status == 400


# Who may connect.


async def test_a_browser_shows_the_token_among_its_subprotocols_and_it_is_not_echoed(api):
    async with api.connected(headers={}, protocols=("atlas.json", f"atlas.auth.{TOKEN}")) as client:
        assert client.socket.protocol == "atlas.json"
        assert TOKEN not in str(client.socket._response.headers)  # noqa: SLF001
        assert "payload" in await client.ask("status")


async def test_the_token_may_be_shown_in_the_first_frame(api):
    async with api.connected(headers={}) as client:
        await client.send({"type": "auth", "token": TOKEN})
        assert "payload" in await client.ask("status")


async def test_the_first_frame_decides_the_dialect_after_the_token_was_shown(api):
    async with api.connected(headers={}) as client:
        await client.send({"type": "auth", "token": TOKEN})
        await client.send({"id": "1", "action": "status"})
        assert (await client.next())["success"] is True


async def test_who_shows_the_token_twice_is_let_in_as_well(client):
    await client.send({"type": "auth", "token": TOKEN})
    assert "payload" in await client.ask("status")


@pytest.mark.parametrize(
    "first", [{"type": "auth", "token": "wrong"}, {"type": "auth"}, {"id": "1", "method": "status"}, "{", "[]"]
)
async def test_who_does_not_show_the_token_first_is_hung_up_on(api, first):
    async with api.connected(headers={}) as client:
        await client.send(first)
        assert (await client.closed())[0] == ws.AUTH_FAILED


async def test_who_shows_nothing_is_hung_up_on_in_time_even_while_it_pings(api, monkeypatch):
    monkeypatch.setattr(ws, "AUTH_S", 0.1)
    async with api.connected(headers={}) as client:
        pinging = asyncio.create_task(_ping(client.socket))
        assert (await client.closed())[0] == ws.AUTH_FAILED
        pinging.cancel()


async def _ping(socket):
    with contextlib.suppress(ConnectionError):
        while True:
            await socket.ping()
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"Authorization": "Bearer wrong"}},
        {"headers": {}, "protocols": ("atlas.json", "atlas.auth.wrong")},
    ],
)
async def test_a_wrong_token_is_refused_before_the_upgrade(api, options):
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with api.connected(**options):
            pass
    assert refused.value.status == 401


async def test_a_foreign_page_is_refused_before_the_upgrade(api):
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with api.connected(headers={**BEARER, "Origin": "http://localhost:3000"}):
            pass
    assert refused.value.status == 403


async def test_rotating_the_token_closes_open_connections(api):
    async with api.connected() as one, api.connected() as other:
        await one.ask("status")
        await other.ask("status")
        api.token[0] = "n" * 43
        assert api.services.access.refresh()
        assert (await one.closed())[0] == (await other.closed())[0] == ws.AUTH_FAILED
    await until(lambda: len(api.sockets) == 0)


# Events.


async def test_nothing_is_sent_that_was_not_asked_for(api, client):
    await client.ask("status")
    await written(api, failed("x"))
    await client.ask("status")
    assert client.unread == []


async def test_facts_have_a_place_in_the_journal_and_progress_has_none(api, client):
    await client.ask("backend:connect")
    await written(api, failed("x"))
    fact = await client.next()
    assert (fact["type"], fact["method"], fact["seq"]) == ("event", "backtest:error", 1)
    assert fact["epoch"] == api.services.journal.epoch
    assert fact["payload"]["id"] == "x"
    api.services.bus.publish(progressed("x", 12.5))
    progress = await client.next()
    assert progress["payload"]["progress"] == 12.5
    assert not {"epoch", "seq"} & set(progress)


async def test_a_fact_is_told_once_though_the_bus_has_it_too(api, client):
    await client.ask("backend:connect")
    api.services.bus.publish(failed("only on the bus"))
    await written(api, failed("in the journal"))
    assert (await client.next())["payload"]["id"] == "in the journal"


async def test_clients_get_what_they_subscribed_to(api):
    subscriptions = {
        "all": {},
        "name": {"events": ["backtest:error"]},
        "room": {"events": ["optimization:*"]},
        "run": {"runs": ["b"]},
        "symbol": {"symbols": ["ETH/USDT"]},
        "key": {"symbols": ["local:ETH/USDT"], "events": ["backtest:*"]},
    }
    async with contextlib.AsyncExitStack() as stack:
        clients = {name: await stack.enter_async_context(api.connected()) for name in subscriptions}
        for name, fields in subscriptions.items():
            await clients[name].ask("events:subscribe", **fields)
        await written(api, failed("a", symbols=["local:BTC/USDT"]), failed("b", symbols=["local:ETH/USDT"]))
        step = OptimizationProgressed(id="o", status="running", progress=1.0, points=5, points_done=1)
        api.services.bus.publish(step)
        await asyncio.sleep(0.02)
        got = {}
        for name, client in clients.items():
            await client.ask("status")
            got[name] = "".join(frame["payload"]["id"] for frame in client.unread)
    # Progress waits for nothing, facts for the disk: it may pass one.
    assert sorted(got.pop("all")) == ["a", "b", "o"]
    assert got == {"name": "ab", "room": "o", "run": "b", "symbol": "b", "key": "b"}


async def test_subscriptions_add_up_and_are_taken_back(api, client):
    place = {"epoch": api.services.journal.epoch, "last": 0}
    await client.ask("events:subscribe", events=["backtest:error"], runs=["a"])
    wanted = (await client.ask("events:subscribe", events=["backtest:error"], runs=["b"]))["payload"]
    assert wanted == {"attached": True, "events": ["backtest:error"], "symbols": [], "runs": ["a", "b"]} | place
    wanted = (await client.ask("events:unsubscribe", events=["backtest:error"], runs=["a", "c"]))["payload"]
    assert wanted["runs"] == ["b"]
    assert (await client.ask("events:unsubscribe", runs=["b"]))["payload"]["attached"] is False
    wanted = (await client.ask("events:subscribe", events=["backtest:*"]))["payload"]
    assert (wanted["runs"], len(wanted["events"])) == ([], 3)
    wanted = (await client.ask("events:unsubscribe", events=["backtest:error"]))["payload"]
    assert sorted(wanted["events"]) == ["backtest:complete", "backtest:progress"]
    wanted = (await client.ask("events:subscribe"))["payload"]
    assert wanted == {"attached": True, "events": [], "symbols": [], "runs": []} | place
    assert (await client.ask("events:unsubscribe"))["payload"]["attached"] is False


async def test_two_subscriptions_take_what_each_of_them_takes_and_nothing_else(api, client):
    await client.ask("events:subscribe", symbols=["BTC/USDT"])
    await client.ask("events:subscribe", runs=["mine"])
    bitcoin, ether = ["local:BTC/USDT"], ["local:ETH/USDT"]
    await written(api, failed("a", symbols=bitcoin), failed("b", symbols=ether), failed("mine", symbols=ether))
    assert [(await client.next())["payload"]["id"] for _ in range(2)] == ["a", "mine"]
    await client.ask("events:unsubscribe", runs=["mine"])
    await written(api, failed("mine", symbols=ether), failed("c", symbols=bitcoin))
    assert (await client.next())["payload"]["id"] == "c"


async def test_subscriptions_cannot_grow_without_end(api, client):
    for number in range(2_000):
        fields = {"symbols": [f"S{number}"], "runs": [f"r{number}"]}
        refused = await client.ask("events:subscribe", events=["backtest:error"], **fields)
    assert refused["error"]["code"] == "INVALID_REQUEST"
    assert len((await client.ask("events:subscribe", symbols=["S"] * 5_000))["error"]["message"]) < 200
    assert "payload" in await client.ask("events:subscribe")  # all is one subscription
    await written(api, failed("x"))
    assert (await client.next())["payload"]["id"] == "x"


async def test_a_client_that_is_cut_off_before_its_first_fact_loses_none(api):
    await written(api, failed("before"))
    async with api.connected() as client:
        wanted = (await client.ask("events:subscribe", events=["backtest:*"]))["payload"]
    await written(api, failed("between"))
    async with api.connected() as client:
        await client.ask("events:resume", epoch=wanted["epoch"], after=wanted["last"])
        assert (await client.next())["payload"]["id"] == "between"


async def test_an_event_that_does_not_exist_is_refused(client):
    assert (await client.ask("events:subscribe", events=["backtest:nope"]))["error"]["code"] == "INVALID_REQUEST"


async def test_connect_and_disconnect_are_the_whole_stream(api, client):
    assert (await client.ask("backend:connect"))["payload"]["connected"] is True
    assert (await client.ask("backend:disconnect"))["payload"]["connected"] is False
    await written(api, failed("x"))
    assert (await client.ask("backend:status"))["payload"]["connected"] is False
    assert client.unread == []


async def test_a_flood_of_progress_wakes_the_loop_once_and_only_the_latest_goes_out(api, client):
    await client.ask("backend:connect")
    loop = asyncio.get_running_loop()
    woken = []
    threadsafe = loop.call_soon_threadsafe
    loop.call_soon_threadsafe = lambda *arguments, **named: (woken.append(1), threadsafe(*arguments, **named))[1]
    try:
        for number in range(1_000):  # while the loop is busy here
            api.services.bus.publish(progressed("x", number / 10))
    finally:
        del loop.call_soon_threadsafe
    assert len(woken) == 1
    assert (await client.next())["payload"]["progress"] == 99.9
    await client.ask("status")
    assert client.unread == []


async def test_the_shipping_client_gets_no_event_before_its_first_frame_then_those_of_backtests(api):
    async with api.connected() as client:
        await written(api, failed("early"))
        await asyncio.sleep(0.02)
        await client.send({"id": "req_1", "action": "status", "payload": {}})
        first = await client.next()
        assert (first["type"], first["id"], first["success"]) == ("response", "req_1", True)
        assert first["data"]["connected"] is True
        await written(api, failed("x"))
        assert await client.next() == {
            "type": "backtest:error",
            "payload": {"id": "x", "symbols": [], "error": "no bars", "code": "NO_BARS"},
        }
        step = OptimizationProgressed(id="o", status="running", progress=1.0, points=5, points_done=1)
        api.services.bus.publish(step)
        api.services.bus.publish(progressed("x", 5.0))
        assert (await client.next())["type"] == "backtest:progress"


# Resuming.


async def test_missed_facts_follow_the_answer_in_their_order(api):
    events = [failed(str(number)) for number in range(1, 701)]
    await written(api, *events)
    async with api.connected() as client:
        await client.ask("events:subscribe", events=["backtest:*"])
        answer = await client.ask("events:resume", epoch=api.services.journal.epoch, after=100)
        assert answer["payload"] == {"replayed": 600, "epoch": api.services.journal.epoch, "last": 700}
        assert client.unread == []
        seqs = [(await client.next())["seq"] for _ in range(600)]
        assert seqs == list(range(101, 701))
        await written(api, failed("live"))
        assert (await client.next())["seq"] == 701


async def test_only_facts_that_are_wanted_are_told_again(api, client):
    await written(api, failed("a"), failed("b"), failed("a"))
    await client.ask("events:subscribe", runs=["b"])
    answer = await client.ask("events:resume", epoch=api.services.journal.epoch, after=0)
    assert answer["payload"]["replayed"] == 1
    assert (await client.next())["seq"] == 2


async def test_who_subscribed_to_nothing_resumes_everything(api, client):
    await written(api, failed("a"))
    assert (await client.ask("events:resume", epoch=api.services.journal.epoch, after=0))["payload"]["replayed"] == 1
    await written(api, failed("b"))
    assert [(await client.next())["seq"] for _ in range(2)] == [1, 2]


async def test_reconnecting_again_and_again_loses_no_fact_and_repeats_none(api):
    count, seen = 2_000, []
    epoch = api.services.journal.epoch

    def publish():
        for number in range(count):
            api.services.journal.append(failed(str(number)))

    writing = threading.Thread(target=publish)
    writing.start()
    async with asyncio.timeout(PATIENCE_S):
        while len(seen) < count:
            async with api.connected() as client:
                await client.ask("events:resume", epoch=epoch, after=len(seen))
                seen += [(await client.next())["seq"] for _ in range(min(270, count - len(seen)))]
    writing.join()
    assert seen == list(range(1, count + 1))


async def test_an_older_place_than_is_kept_gets_the_state_instead(tmp_path):
    async with served(tmp_path / "data", most_facts=10) as api, api.connected() as client:
        await written(api, *(failed(str(number)) for number in range(30)))
        journal = api.services.journal
        for epoch, after in [(journal.epoch, 1), ("another", 25), (journal.epoch, 99)]:
            error = (await client.ask("events:resume", epoch=epoch, after=after))["error"]
            assert error["code"] == "RESUME_GAP"
            assert (error["details"]["epoch"], error["details"]["last"]) == (journal.epoch, 30)
            assert 1 < error["details"]["first"] <= 21
            assert error["details"]["snapshot"] == {"backtests": [], "optimizations": [], "probes": []}
        await written(api, failed("after the gap"))
        assert (await client.next())["seq"] == 31


# Slow and dead clients, and the end.


async def flood(api, client, count):
    """Tell facts of 10 kB each, while a client does not read."""
    await client.ask("backend:connect")
    for at in range(0, count, 50):  # no faster than one that reads would take them
        await written(api, *(failed(str(number), "x" * 10_000) for number in range(at, at + 50)))


async def test_a_client_that_cannot_keep_up_is_closed_with_1013_and_loses_nothing(api, monkeypatch):
    monkeypatch.setattr(outbox, "MOST_WAITING", 64)
    count = 1_500
    async with api.connected() as slow:
        await flood(api, slow, count)
        seen = 0
        while (message := await slow.socket.receive(timeout=PATIENCE_S)).type is aiohttp.WSMsgType.TEXT:
            seen = msgspec.json.decode(message.data)["seq"]
        assert message.data == 1013
        assert "events:resume" in message.extra
        assert 0 < seen < count
    monkeypatch.undo()
    async with api.connected() as again:
        answer = await again.ask("events:resume", epoch=api.services.journal.epoch, after=seen)
        assert answer["payload"]["replayed"] == count - seen
        assert [(await again.next())["seq"] for _ in range(count - seen)] == list(range(seen + 1, count + 1))


async def test_a_client_that_never_reads_is_dropped_and_others_do_not_notice(api, monkeypatch):
    monkeypatch.setattr(outbox, "MOST_WAITING", 64)
    monkeypatch.setattr(ws, "_CLOSE_S", 0.2)
    async with api.connected() as never, api.connected() as fast:
        await fast.ask("backend:connect")
        seen = []
        reading = asyncio.create_task(_read(fast, seen))
        await never.ask("backend:connect")
        for _ in range(30):
            await written(api, *(failed("x", "x" * 10_000) for _ in range(50)))
            await until(lambda: len(seen) == api.services.journal.last)
        assert seen == list(range(1, 1_501))
        reading.cancel()
        await until(lambda: len(api.sockets) == 1)


async def _read(client, seen):
    while True:
        seen.append((await client.receive())["seq"])


async def test_a_thousand_clients_that_never_read_do_not_keep_one_that_does(api, monkeypatch):
    monkeypatch.setattr(ws, "_CLOSE_S", 0.2)
    open_files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    count = min(1_000, (most - 200) // 2)

    def connect():
        for _ in range(count):
            sockets.append(RawSocket(api.port, TOKEN))
            sockets[-1].send(b'{"id":"1","method":"backend:connect"}')

    sockets, seen = [], []
    try:
        await asyncio.to_thread(connect)
        await until(lambda: len(api.sockets) == count)
        async with api.connected() as fast:
            await fast.ask("backend:connect")
            reading = asyncio.create_task(_read(fast, seen))
            for number in range(20):
                await written(api, failed(str(number), "x" * 1_000))
                await until(lambda: len(seen) == api.services.journal.last)
            reading.cancel()
        assert seen == list(range(1, 21))
    finally:
        for each in sockets:
            each.socket.close()
        await until(lambda: len(api.sockets) == 0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, most))


async def test_a_client_that_asks_without_reading_is_not_answered_without_end(api):
    async with api.connected() as client:
        sending = asyncio.create_task(_send(client, 1_000))
        await asyncio.sleep(0.1)
        connection = next(iter(api.sockets._open))  # noqa: SLF001
        waiting = connection._outbox  # noqa: SLF001
        assert len(waiting) <= outbox.MOST_ANSWERS + ws.MOST_IN_FLIGHT
        assert {int((await client.next())["id"]) for _ in range(1_000)} == set(range(1_000))
        await sending


async def _send(client, count):
    for number in range(count):
        await client.send({"id": str(number), "method": "strategies:list"})


async def test_a_peer_that_answers_no_ping_is_dropped(api, monkeypatch):
    monkeypatch.setattr(ws, "PING_S", 0.1)
    async with api.connected(autoping=False) as client:
        await client.ask("status")
        await until(lambda: len(api.sockets) == 0)


async def test_pings_of_the_client_are_answered(client):
    await client.socket._writer.send_frame(b"hello", aiohttp.WSMsgType.PING)  # noqa: SLF001
    assert "payload" in await client.ask("status")


async def test_what_a_closed_connection_waited_for_goes_on_without_it(api, slow, caplog):
    async with api.connected() as client:
        await client.send({"id": "1", "method": "test:slow"})
        await client.ask("status")
    await until(lambda: len(api.sockets) == 0)
    slow.set()
    async with api.connected() as other:
        assert "payload" in await other.ask("status")
    assert caplog.text == ""


async def test_a_connection_cut_in_the_middle_of_a_frame_ends_quietly(api, caplog):
    async with api.connected() as client:
        transport = client.socket._response.connection.transport  # noqa: SLF001
        transport.write(struct.pack("!BBH", 0x81, 0x80 | 126, 5_000) + bytes(100))
        transport.abort()
    await until(lambda: len(api.sockets) == 0)
    assert caplog.text == ""


@pytest.mark.usefixtures("slow")
async def test_the_end_does_not_wait_for_requests_that_are_being_answered(tmp_path):
    async with served(tmp_path / "data") as api:
        client = await api.client.ws_connect(api.url, headers=BEARER).__aenter__()
        for number in range(ws.MOST_IN_FLIGHT + 1):
            await client.send_str(json.dumps({"id": str(number), "method": "test:slow"}))
        await asyncio.sleep(0.05)
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(api.sockets.close_all(1001, "the end"), Client(client).closed())
        await until(lambda: len(api.sockets) == 0)


async def test_the_end_of_the_daemon_closes_with_1001(tmp_path):
    async with contextlib.AsyncExitStack() as stack:
        async with served(tmp_path / "data") as api:
            outside = await stack.enter_async_context(aiohttp.ClientSession())
            socket = await stack.enter_async_context(outside.ws_connect(api.url, headers=BEARER))
            client = Client(socket)
            await client.ask("status")
            ending = asyncio.create_task(client.closed())
            await asyncio.sleep(0)
        assert (await ending)[0] == 1001
