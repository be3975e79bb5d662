"""The socket against a venue that hangs up, falls silent, refuses, and asks to leave."""

import asyncio
import contextlib
import gc
import logging
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive.venue import Venue, break_off, leave, saying, stay

from adapters.shared.backoff import Backoff
from adapters.shared.socket import Down, Frame, Socket, SocketSettings, Up
from daemon.core.errors import SourceUnavailable

QUICK = SocketSettings(silence_s=5.0, settled_s=5.0, overlap_s=0.02, sends_per_s=10_000.0)
AT_ONCE = Backoff(first_s=0.001, cap_s=0.002)


class Counting(NamedTuple):
    """No wait to speak of; notes which attempt each is for."""

    attempts: list

    def delay_s(self, attempt, _random):
        self.attempts.append(attempt)
        return 0.001


def socket_to(venue, *, settings=QUICK, backoff=AT_ONCE, **options):
    return Socket(venue.url + "/stream", settings=settings, backoff=backoff, random=Random(7), **options)  # noqa: S311 - jitter


async def heard(socket, enough, within_s=5.0):
    """What a socket yields until `enough(events)`."""
    events = []
    async with asyncio.timeout(within_s), contextlib.aclosing(socket.frames()) as frames:
        async for event in frames:
            events.append(event)
            if enough(events):
                break
    return events


def texts(events):
    return [event.text for event in events if isinstance(event, Frame)]


def kinds(events):
    return [type(event).__name__ for event in events]


def downs(events):
    return [event for event in events if isinstance(event, Down)]


def after_texts(count):
    return lambda events: len(texts(events)) >= count


@pytest.fixture(autouse=True)
async def _nothing_is_left_behind():
    yield
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not [task for task in others if "Socket" in repr(task) or "_Line" in repr(task)]
    gc.collect()  # an unclosed session or transport would warn, and warnings are errors


async def test_frames_come_in_order_with_the_time_they_were_read():
    clock = iter(range(100, 200))
    async with Venue(saying("a", "b", "c")) as venue:
        events = await heard(socket_to(venue, clock=lambda: next(clock)), after_texts(3))
    assert kinds(events) == ["Up", "Frame", "Frame", "Frame"]
    assert texts(events) == ["a", "b", "c"]
    times = [event[0] for event in events]
    assert times == sorted(times)
    assert {event.connection for event in events} == {1}


async def test_the_opening_messages_are_sent_after_each_connect():
    async def script(talk):
        talk.received.append(await talk.channel.receive_str())
        await talk.say(talk.received[0])
        await (leave if talk.number == 1 else stay)(talk)

    asked = iter(["first", "second"])
    async with Venue(script) as venue:
        events = await heard(socket_to(venue, opening=lambda: [next(asked)]), after_texts(2))
    assert texts(events) == ["first", "second"]


async def test_opening_messages_may_be_a_plain_list_and_keep_to_the_rate():
    async def script(talk):
        while len(talk.received) < 3:
            await talk.channel.receive_str()
            talk.received.append(asyncio.get_running_loop().time())
        await talk.say("done")
        await talk.listen()

    async with Venue(script) as venue:
        slow = QUICK._replace(sends_per_s=50.0)
        await heard(socket_to(venue, opening=["a", "b", "c"], settings=slow), after_texts(1))
        first, _, third = venue.talks[0].received[:3]
    assert third - first > 0.03


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (leave, "closed by the venue (1001 maintenance)"),
        (break_off, "connection lost"),
        (lambda talk: talk.hang_up_within_a_message(), "connection lost"),
    ],
)
async def test_a_lost_connection_comes_back_and_says_from_when_messages_may_be_missing(ending, reason):
    async with Venue(saying("a", then=ending), saying("b")) as venue:
        events = await heard(socket_to(venue), after_texts(2))
    assert kinds(events) == ["Up", "Frame", "Down", "Up", "Frame"]
    (down,) = downs(events)
    assert reason in down.reason
    assert not down.planned
    assert down.at_ns == events[1].local_ns
    assert events[4].connection == 2


async def test_silence_without_a_close_counts_as_an_end():
    async with Venue(saying("a", then=lambda talk: talk.hush()), saying("b")) as venue:
        events = await heard(socket_to(venue, settings=QUICK._replace(silence_s=0.05)), after_texts(2))
    assert kinds(events) == ["Up", "Frame", "Down", "Up", "Frame"]
    assert downs(events)[0].reason == "silent for 0.05 s"


async def test_pings_alone_do_not_pass_for_life_but_are_answered():
    answered = []

    async def ping(talk):
        await talk.say("a")
        with contextlib.suppress(ConnectionError):
            while True:
                await talk.channel.ping(b"20-seconds")
                message = await talk.channel.receive()
                if message.data != b"20-seconds":
                    return
                answered.append(message.data)
                await asyncio.sleep(0.005)

    async with Venue(ping, saying("b")) as venue:
        venue.options = {"autoping": False}
        events = await heard(socket_to(venue, settings=QUICK._replace(silence_s=0.08)), after_texts(2))
    assert answered
    assert downs(events)[0].reason.startswith("silent")


async def test_a_consumer_that_is_slow_is_not_taken_for_a_silent_venue():
    many = [str(number) for number in range(6_000)]  # more than may wait
    async with Venue(saying(*many)) as venue:
        socket = socket_to(venue, settings=QUICK._replace(silence_s=0.05))
        async with contextlib.aclosing(socket.frames()) as frames:
            assert isinstance(await anext(frames), Up)
            await asyncio.sleep(0.15)
            events = [await anext(frames) for _ in many]
    assert texts(events) == many


async def test_a_frame_that_is_too_large_costs_the_connection_not_the_socket():
    async with Venue(saying("x" * 2_000), saying("b")) as venue:
        events = await heard(socket_to(venue, settings=QUICK._replace(max_frame_bytes=1_000)), after_texts(1))
    assert texts(events) == ["b"]
    assert "1009" in downs(events)[0].reason or "size" in downs(events)[0].reason


async def test_binary_frames_are_handed_on_as_text():
    async def script(talk):
        await talk.channel.send_bytes(b"\xff{")
        await talk.listen()

    async with Venue(script) as venue:
        assert texts(await heard(socket_to(venue), after_texts(1))) == ["\ufffd{"]


async def test_a_venue_that_refuses_is_tried_again_and_said_to_be_down_once():
    async with Venue(503, 429, 503, saying("a")) as venue:
        events = await heard(socket_to(venue), after_texts(1))
        assert venue.attempts == 4
    assert kinds(events) == ["Down", "Up", "Frame"]
    assert downs(events)[0].reason == "cannot connect: HTTP 503"


async def test_a_host_that_is_not_there_is_tried_again():
    socket = Socket("ws://127.0.0.1:1/", settings=QUICK, backoff=AT_ONCE)
    events = await heard(socket, lambda events: events)
    assert downs(events)[0].reason.startswith("cannot connect")


async def test_an_answer_that_never_comes_is_given_up():
    async def mute(reader, writer):
        await reader.read()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        impatient = QUICK._replace(connect_timeout_s=0.03)
        socket = Socket(f"ws://127.0.0.1:{port}/", settings=impatient, backoff=AT_ONCE)
        events = await heard(socket, lambda events: events)
    assert downs(events)[0].reason == "cannot connect: no answer in time"


async def test_an_address_that_is_none_is_an_error_not_an_outage():
    with pytest.raises(ValueError, match="no address"):
        await heard(Socket("nonsense"), lambda _: False)


async def test_the_wait_grows_while_connections_do_not_last():
    waits = []
    async with Venue(*[saying("x", then=leave)] * 5, stay) as venue:
        await heard(socket_to(venue, backoff=Counting(waits)), lambda events: kinds(events).count("Up") == 6)
    assert waits == [0, 1, 2, 3, 4]


async def test_the_wait_starts_anew_once_a_connection_has_lasted():
    waits = []

    async def last_then_leave(talk):
        await asyncio.sleep(0.05)
        await leave(talk)

    async with Venue(saying(then=leave), saying(then=leave), saying(then=last_then_leave), stay) as venue:
        lasting = QUICK._replace(settled_s=0.02)
        await heard(
            socket_to(venue, backoff=Counting(waits), settings=lasting), lambda events: kinds(events).count("Up") == 4
        )
    assert waits == [0, 1, 0]


async def test_trouble_is_logged_once_and_its_end_once(caplog):
    caplog.set_level(logging.INFO, "adapters.shared.socket")
    async with Venue(503, saying(then=leave), 503, saying("a")) as venue:
        socket = socket_to(venue, settings=QUICK._replace(settled_s=0.02))
        async with contextlib.aclosing(socket.frames()) as frames:
            while not isinstance(await anext(frames), Frame):
                pass
            await asyncio.sleep(0.05)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "connected again" in caplog.text


async def test_what_is_logged_holds_no_query():
    socket = Socket("wss://host/stream?key=secret")
    with pytest.raises(SourceUnavailable, match="wss://host/stream is not connected") as caught:
        await socket.send("x")
    assert "secret" not in caught.value.message


async def test_a_message_can_be_sent_while_connected():
    async def echo(talk):
        await talk.say("ready")
        await talk.say(await talk.channel.receive_str())
        await talk.listen()

    async with Venue(echo) as venue:
        socket = socket_to(venue)
        async with contextlib.aclosing(socket.frames()) as frames:
            assert isinstance(await anext(frames), Up)
            assert (await anext(frames)).text == "ready"
            await socket.send("ping")
            assert (await anext(frames)).text == "ping"


class Broadcast:
    """The same numbered events to every connection, as a venue sends them."""

    def __init__(self, count):
        self.count = count
        self.listeners = set()

    async def __call__(self, talk):
        self.listeners.add(talk)
        await talk.listen()
        self.listeners.discard(talk)

    async def run(self, pause_s=0.001):
        for number in range(self.count):
            for talk in tuple(self.listeners):
                with contextlib.suppress(ConnectionError):
                    await talk.say(str(number))
            await asyncio.sleep(pause_s)


async def test_a_planned_reconnect_loses_nothing():
    show = Broadcast(200)
    async with Venue(show) as venue:
        socket = socket_to(venue, settings=QUICK._replace(max_age_s=0.06, settled_s=0.01))
        events = []
        async with asyncio.timeout(5), contextlib.aclosing(socket.frames()) as frames:
            events.append(await anext(frames))
            telling = asyncio.create_task(show.run())
            async for event in frames:
                events.append(event)
                if texts(events[-1:]) == ["199"]:
                    break
            await telling
    assert {int(text) for text in texts(events)} == set(range(200))
    ends = downs(events)
    assert ends
    assert all(end.planned for end in ends)
    for place, event in enumerate(events):
        if isinstance(event, Down):
            assert isinstance(events[place + 1], Up)


async def test_the_old_connection_is_closed_after_a_planned_reconnect():
    async with Venue(saying("a"), saying("b")) as venue:
        socket = socket_to(venue)
        async with contextlib.aclosing(socket.frames()) as frames:
            while not isinstance(await anext(frames), Frame):
                pass
            socket.renew()
            assert kinds([await anext(frames) for _ in range(3)]) == ["Down", "Up", "Frame"]
            async with asyncio.timeout(2):
                await venue.talks[0].over.wait()
            assert not venue.talks[1].over.is_set()


async def test_a_planned_reconnect_that_fails_keeps_the_old_connection():
    show = Broadcast(60)
    async with Venue(show, 503, 503, show) as venue:
        socket = socket_to(venue)
        async with asyncio.timeout(5), contextlib.aclosing(socket.frames()) as frames:
            await anext(frames)
            telling = asyncio.create_task(show.run())
            socket.renew()
            events = []
            while texts(events[-1:]) != ["59"]:
                events.append(await anext(frames))
            await telling
        assert venue.attempts == 4
    assert {int(text) for text in texts(events)} == set(range(60))
    assert [down.planned for down in downs(events)] == [True]


async def test_a_successor_that_never_speaks_is_not_trusted():
    async with Venue(saying("a"), saying(then=leave), saying("b")) as venue:
        socket = socket_to(venue)
        async with asyncio.timeout(5), contextlib.aclosing(socket.frames()) as frames:
            assert kinds([await anext(frames), await anext(frames)]) == ["Up", "Frame"]
            socket.renew()
            rest = [await anext(frames) for _ in range(3)]
    assert kinds(rest) == ["Down", "Up", "Frame"]
    assert rest[2] == (rest[2].local_ns, "b", 3)


async def test_a_connection_that_ends_while_its_successor_is_opened_is_an_outage():
    another = asyncio.Event()

    async def end_when_succeeded(talk):
        await talk.say("a")
        await another.wait()
        await leave(talk)

    async def come_and_say_nothing(talk):
        another.set()
        await talk.listen()

    async with Venue(end_when_succeeded, come_and_say_nothing, saying("b")) as venue:
        socket = socket_to(venue)
        async with asyncio.timeout(5), contextlib.aclosing(socket.frames()) as frames:
            assert kinds([await anext(frames), await anext(frames)]) == ["Up", "Frame"]
            socket.renew()
            rest = [await anext(frames) for _ in range(3)]
    assert kinds(rest) == ["Down", "Up", "Frame"]
    assert not rest[0].planned


async def test_a_venue_that_asks_every_connection_to_leave_does_not_make_it_circle():
    waits = []
    async with Venue(saying("go")) as venue:
        socket = socket_to(venue, backoff=Counting(waits))
        async with asyncio.timeout(5), contextlib.aclosing(socket.frames()) as frames:
            async for event in frames:
                if isinstance(event, Frame):
                    if event.connection == 4:
                        break
                    socket.renew()
    assert waits == [0, 1, 2]


async def test_only_one_may_read():
    async with Venue(saying("a")) as venue:
        socket = socket_to(venue)
        async with contextlib.aclosing(socket.frames()) as frames:
            await anext(frames)
            with pytest.raises(RuntimeError, match="already"):
                await anext(socket.frames())
        assert texts(await heard(socket, after_texts(1))) == ["a"]


async def test_cancelling_the_reader_closes_the_connection():
    async with Venue(saying("a")) as venue:
        seen = asyncio.Event()

        async def read():
            async with contextlib.aclosing(socket_to(venue).frames()) as frames:
                async for event in frames:
                    if isinstance(event, Frame):
                        seen.set()

        reading = asyncio.create_task(read())
        await seen.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        async with asyncio.timeout(2):
            await venue.talks[0].over.wait()


async def test_a_fault_in_the_opening_messages_reaches_the_reader():
    def opening():
        raise KeyError("no such product")

    async with Venue(saying("a")) as venue:
        with pytest.raises(KeyError, match="no such product"):
            await heard(socket_to(venue, opening=opening), after_texts(1))


ENDINGS = st.sampled_from(["leave", "break off", "half a message", "refuse", "renew"])


@settings(max_examples=15, deadline=None)
@given(st.lists(ENDINGS, min_size=1, max_size=6))
def test_whatever_happens_downs_and_ups_alternate_and_frames_keep_their_order(endings):
    scripts = {
        "leave": saying("1", "2", then=leave),
        "break off": saying("1", "2", then=break_off),
        "half a message": saying("1", "2", then=lambda talk: talk.hang_up_within_a_message()),
        "refuse": 503,
        "renew": saying("1", "2", "renew"),
    }

    async def act():
        async with Venue(*[scripts[ending] for ending in endings], saying("end")) as venue:
            socket = socket_to(venue)
            events = []
            async with asyncio.timeout(10), contextlib.aclosing(socket.frames()) as frames:
                async for event in frames:
                    events.append(event)
                    if isinstance(event, Frame) and event.text == "renew":
                        socket.renew()
                    if isinstance(event, Frame) and event.text == "end":
                        return events
        return []

    events = asyncio.run(act())
    assert texts(events)[-1] == "end"
    states = [event for event in events if not isinstance(event, Frame)]
    expected = [Up, Down] if isinstance(states[0], Up) else [Down, Up]
    assert [type(state) for state in states] == (expected * len(states))[: len(states)]
    for connection in {event.connection for event in events if isinstance(event, Frame)}:
        told = [event.text for event in events if isinstance(event, Frame) and event.connection == connection]
        assert told in ([], ["1"], ["1", "2"], ["1", "2", "renew"], ["end"])
