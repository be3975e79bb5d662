"""The other end of the bench of the API: a process of its own, told by lines of JSON what to do.

It speaks the WebSocket over plain sockets: what is measured is the daemon, not a client library.
"""

from __future__ import annotations

import os
import re
import selectors
import socket
import struct
import sys
import time
from typing import Any, Final

import msgspec

_TIMEOUT_S: Final = 60.0
_CHUNK: Final = 1 << 18
_ASK: Final = b'{"id":"%d","type":"request","method":"%s","payload":{}}'
_STAMP: Final = re.compile(rb'"currentTimestamp":(\d+)')
_KEY: Final = f"{'A' * 22}=="
_SHORT: Final = 126
_LONG: Final = 127
_TEXT: Final = 1
_WINDOW: Final = 200


class Socket:
    """One connection that blocks. frames: how many text frames came."""

    def __init__(self, port: int, token: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), _TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.frames = 0
        self._rest = b""
        self.socket.sendall(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {_KEY}\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = self.socket.recv(_CHUNK)
            if not part:
                raise ConnectionError(f"no upgrade: {answer[:200]!r}")
            answer += part
        head, _, self._rest = answer.partition(b"\r\n\r\n")
        if b" 101 " not in head[:20]:
            raise ConnectionError(head[:200].decode("latin-1"))

    def ask(self, method: str, payload: object = None) -> None:
        """Send a request, and wait for its answer."""
        content = {"id": "0", "method": method, "payload": payload}
        self.send(msgspec.json.encode(content))
        self.receive(1)

    def send(self, *texts: bytes) -> None:
        """Send text frames at once."""
        self.socket.sendall(b"".join(_masked(text) for text in texts))

    def receive(self, least: int) -> list[bytes]:
        """Wait until so many text frames have come; returns them all."""
        found = self._split()
        while len(found) < least:
            part = self.socket.recv(_CHUNK)
            if not part:
                raise ConnectionError("the daemon closed the connection")
            self._rest += part
            found += self._split()
        self.frames += len(found)
        return found

    def _split(self) -> list[bytes]:
        found = []
        rest, at = self._rest, 0
        while len(rest) - at >= 2:  # noqa: PLR2004 - the shortest frame
            length, begin = rest[at + 1] & _LONG, at + 2
            if length == _SHORT:
                if len(rest) < at + 4:
                    break
                length, begin = int.from_bytes(rest[at + 2 : at + 4]), at + 4
            elif length == _LONG:
                if len(rest) < at + 10:
                    break
                length, begin = int.from_bytes(rest[at + 2 : at + 10]), at + 10
            if len(rest) < begin + length:
                break
            if rest[at] & 15 == _TEXT:
                found.append(rest[begin : begin + length])
            at = begin + length
        self._rest = rest[at:]
        return found


def _masked(text: bytes) -> bytes:
    # A mask of zeros: what it protects from are proxies, and there are none.
    if len(text) < _SHORT:
        return bytes((0x80 | _TEXT, 0x80 | len(text))) + bytes(4) + text
    return struct.pack("!BBH", 0x80 | _TEXT, 0x80 | _SHORT, len(text)) + bytes(4) + text


class Orders:
    """What the client can be told to do; each order is a method, and answers what it returns."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._token = token
        self._open: list[Socket] = []

    def round_trips(self, count: int, pause_s: float, method: str) -> dict[str, float]:
        """Ask one after the other. p50_ms, p99_ms: from sending a request to having its answer."""
        asking = Socket(self._port, self._token)
        took = []
        for number in range(count):
            frame = _masked(_ASK % (number, method.encode()))
            begin = time.perf_counter()
            asking.socket.sendall(frame)
            asking.receive(1)
            took.append(time.perf_counter() - begin)
            if pause_s:
                time.sleep(max(pause_s - took[-1], 0.0))
        asking.socket.close()
        return _spread(took)

    def pipelined(self, count: int, method: str) -> dict[str, float]:
        """Keep some hundred requests under way on one connection."""
        asking = Socket(self._port, self._token)
        begin = time.perf_counter()
        sent = got = 0
        while got < count:
            burst = min(_WINDOW - (sent - got), count - sent)
            if burst:
                asking.send(*(_ASK % (number, method.encode()) for number in range(sent, sent + burst)))
                sent += burst
            got += len(asking.receive(1))
        took_s = time.perf_counter() - begin
        asking.socket.close()
        return {"per_s": count / took_s}

    def open(self, count: int, events: list[str] | None) -> dict[str, float]:
        """Open connections, and subscribe them."""
        for _ in range(count):
            one = Socket(self._port, self._token)
            if events is not None:
                one.ask("events:subscribe", {"events": events})
            one.frames = 0
            self._open.append(one)
        return {}

    def receive(self, frames: int) -> dict[str, float]:
        """Read until every connection has so many frames. done_s: when, by the clock of the machine."""
        with selectors.DefaultSelector() as waiting:
            for each in self._open:
                waiting.register(each.socket, selectors.EVENT_READ, each)
            while waiting.get_map():
                for key, _ in waiting.select(_TIMEOUT_S):
                    key.data.receive(1)
                    if key.data.frames >= frames:
                        waiting.unregister(key.fileobj)
        return {"done_s": time.monotonic()}

    def delays(self, count: int, stalled: int) -> dict[str, float]:
        """Time stamped events to one client that reads, beside others that do not, until all came."""
        reading = self._open[stalled]
        took = list[float]()
        while len(took) < count:
            for frame in reading.receive(1):
                stamp = _STAMP.search(frame)
                if stamp is not None:
                    took.append((time.monotonic_ns() - int(stamp[1])) / 1e9)
        return _spread(took)

    def close(self) -> dict[str, float]:
        """Close all connections."""
        for each in self._open:
            each.socket.close()
        self._open.clear()
        return {}


def _spread(took_s: list[float]) -> dict[str, float]:
    took_s.sort()
    last = len(took_s) - 1
    return {"p50_ms": 1e3 * took_s[last // 2], "p99_ms": 1e3 * took_s[last * 99 // 100]}


def main() -> None:
    """Do what comes in, line by line; the first line says where the daemon is."""
    first: dict[str, Any] = msgspec.json.decode(sys.stdin.readline())
    orders = Orders(**first)
    for line in sys.stdin:
        order: dict[str, Any] = msgspec.json.decode(line)
        try:
            answer: dict[str, Any] = getattr(orders, order.pop("do"))(**order)
        except OSError as error:
            answer = {"error": str(error)}
        os.write(1, msgspec.json.encode(answer) + b"\n")


if __name__ == "__main__":
    main()
