"""Raw recordings of Binance's streams: lines of a local time (ns), a space and a message, gzipped or plain.

Recorders write what comes and are stopped at any moment, so a torn line or an end within the compression costs that
line and is told, not the file. Requests' answers stand among the messages: a depth snapshot, which tells no symbol,
belongs to the one symbol of the recording. All changes of a book are kept, also those before the first snapshot.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec

from adapters.binance.config import Market
from adapters.binance.messages import decode, joined
from adapters.binance.parse import DEPTH, depth_ticks
from adapters.binance.sequence import DepthSequence, State
from adapters.shared.refusals import Place, cannot_open, refusal, require_regular_file, shown
from daemon.core.errors import Code, SourceDataInvalid
from daemon.core.ports import Verification
from daemon.core.ticks import Stream

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from pathlib import Path

    from adapters.binance.messages import DepthEvent
    from adapters.binance.sequence import Passed
    from daemon.core.ports import Hole
    from daemon.core.ticks import Ticks

BLOCK_ROWS: Final = 65_536
LINES_AT_ONCE: Final = 4_096
PIECE_BYTES: Final = 1 << 20
MAX_LINE_BYTES: Final = 16 << 20  # a snapshot of 5,000 levels a side has a third of a megabyte

_SNIFFED_BYTES: Final = 1 << 18
_GZIP: Final = b"\x1f\x8b"
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
_NAMES: Final = {
    Stream.TRADES: b"trade",
    Stream.AGG_TRADES: b"aggTrade",
    Stream.QUOTES: b"bookTicker",
    Stream.DEPTH: b"depth",
}
_STREAM: Final = re.compile(rb'"stream":\s*"([^"@]*)@([A-Za-z]+)')
_HEAD_BYTES: Final = 256
_LAST_NS: Final = (1 << 63) - 1


def open_capture(path: Path, stream: Stream, symbol: str | None = None) -> CaptureFile:
    """Open a recording to read one stream of one symbol.

    symbol: the venue's name (BTCUSDT), needed where the file holds several.
    Raises NotFound SOURCE_NOT_FOUND, SourceDataInvalid SOURCE_UNREADABLE, ValueError for a stream that is not of ticks.
    """
    if stream not in _NAMES:
        raise ValueError(f"a recording is read for ticks, not for {stream}")
    file = require_regular_file(path)
    try:
        with path.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise cannot_open(file, error) from None
    return CaptureFile(path, file, sha256, stream, symbol)


def is_of_futures(path: Path) -> bool | None:
    """Tell by its first messages whether a recording is of futures or of spot; None where they do not show it.

    Changes of futures' books name the event before (`pu`), their trades how they came about (`X`); spot's do neither.
    """
    with path.open("rb") as opened:
        head = opened.read(_SNIFFED_BYTES)
    if head.startswith(_GZIP):
        try:
            head = zlib.decompressobj(_GZIP_WINDOW).decompress(head, 8 * _SNIFFED_BYTES)
        except zlib.error:
            return None  # reading it says what is wrong
    if b'"pu":' in head or b'"X":"' in head:
        return True
    return False if b'"e":"depthUpdate"' in head or b'"e":"trade"' in head else None


class CaptureFile:
    """Implements `daemon.core.ports.TickFile`."""

    def __init__(self, path: Path, name: str, sha256: str, stream: Stream, symbol: str | None) -> None:
        self.name = name
        self.sha256 = sha256
        self.verification = Verification.UNVERIFIED  # nobody published it
        self.notes: list[str] = []
        self.holes: list[Hole] = []
        self._path = path
        self._stream = stream
        self._symbol = symbol
        self._is_guessed = False
        self._seen: set[bytes] = set()  # symbols, by the names of their streams
        self._book = _Book(self.holes)
        self._torn = _Lines("could not be read")
        self._kept_out = _Lines("left out (no trade between traders)")

    def blocks(self) -> Generator[Ticks, None, None]:
        """Yield rows in the file's order, at most BLOCK_ROWS at a time.

        Raises SourceDataInvalid: SOURCE_UNREADABLE for damaged compression or what is no text of lines,
        AMBIGUOUS_SYMBOL where the file holds several symbols, SOURCE_EMPTY where it holds no such rows.
        """
        row_count = 0
        with closing(self._pieces()) as pieces:
            for block in _blocks(self._rows(pieces)):
                row_count += block.size
                yield block
        told = [self._torn, self._kept_out, *self._book.left_out]
        self.notes += [each.note() for each in told if each.count]
        if not row_count:
            raise self._refusal(Code.SOURCE_EMPTY, "; ".join([f"there are no {self._stream} in it", *self.notes]))
        if self._stream is Stream.DEPTH and not self._book.was_known:
            self.notes.append("There is no usable snapshot: the changes alone do not make a book.")

    def _rows(self, pieces: Iterable[bytes]) -> Iterator[Ticks]:
        run: list[tuple[int, int, bytes]] = []  # line number, local time, message
        for number, line in self._lines(pieces):
            head = line[:_HEAD_BYTES]
            named = _STREAM.search(head)
            if named:
                self._seen.add(named[1].lower())
                if named[2] != _NAMES[self._stream]:
                    continue
            local, _, message = line.partition(b" ")
            if not local.isdigit() or int(local) > _LAST_NS or not message:
                self._torn.add(number)
                continue
            is_snapshot = not named and b'"lastUpdateId"' in head
            if is_snapshot or len(run) == LINES_AT_ONCE:
                yield from self._read(run)
                run = []
            if is_snapshot:
                self._take_snapshot(number, int(local), message)
            else:
                run.append((number, int(local), message))
        yield from self._read(run)
        yield from self._book.rest()

    def _read(self, run: list[tuple[int, int, bytes]]) -> Iterator[Ticks]:
        # The market matters to bars alone, and none are read here.
        batch = decode([(local_ns, message) for _, local_ns, message in run], Market.SPOT)
        for odd in batch.odd:
            self._torn.add(run[odd.place][0])
        for odd in batch.kept_out:
            self._kept_out.add(run[odd.place][0])
        for name, rows in batch.ticks:
            if self._is_ours(name):
                yield rows
        for name, events in batch.depth.items():
            if self._is_ours(name):
                yield from self._book.events(events)

    def _take_snapshot(self, number: int, local_ns: int, message: bytes) -> None:
        if self._stream is not Stream.DEPTH:
            return
        try:
            rows = depth_ticks(DEPTH.decode(message), local_ns)
        except (msgspec.MsgspecError, UnicodeError, SourceDataInvalid):
            self._torn.add(number)
        else:
            self._book.snapshot(number, rows)

    def _is_ours(self, name: str) -> bool:
        if self._symbol is None:
            self._symbol = name
            self._is_guessed = True
        if name != self._symbol and self._is_guessed:
            why = f"it holds {shown(self._symbol)} and {shown(name)}; say which to read"
            raise self._refusal(Code.AMBIGUOUS_SYMBOL, why)
        if len(self._seen) > 1 and self._book.has_snapshots:
            why = "its snapshots do not say of which of its symbols they are; record symbols apart to read their books"
            raise self._refusal(Code.AMBIGUOUS_SYMBOL, why)
        return name == self._symbol

    def _lines(self, pieces: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
        """Yield each line that is not blank, with its number from 1; the last may lack its end."""
        number, held = 0, b""
        for piece in pieces:
            *lines, held = (held + piece).split(b"\n")
            for line in lines:
                number += 1
                if stripped := line.strip():
                    yield number, stripped
            if len(held) > MAX_LINE_BYTES:
                why = f"a line of more than {MAX_LINE_BYTES >> 20} MiB: this is no recording of messages"
                raise self._refusal(Code.SOURCE_UNREADABLE, why)
        if held := held.strip():
            yield number + 1, held

    def _pieces(self) -> Generator[bytes, None, None]:
        try:
            with self._path.open("rb") as file:
                zipped = file.read(len(_GZIP)) == _GZIP
                file.seek(0)
                yield from self._inflated(file) if zipped else iter(partial(file.read, PIECE_BYTES), b"")
        except OSError as error:
            raise cannot_open(self.name, error) from None

    def _inflated(self, file: BinaryIO) -> Iterator[bytes]:
        inflating = zlib.decompressobj(wbits=_GZIP_WINDOW)
        raw = file.read(PIECE_BYTES)
        try:
            while raw:
                if inflating.eof:  # recorders append another gzip to the same file
                    inflating = zlib.decompressobj(wbits=_GZIP_WINDOW)
                yield inflating.decompress(raw, PIECE_BYTES)
                raw = inflating.unused_data or inflating.unconsumed_tail or file.read(PIECE_BYTES)
        except zlib.error as error:
            raise self._refusal(Code.SOURCE_UNREADABLE, f"its compression is damaged ({error})") from None
        if not inflating.eof:
            self.notes.append("The file ends within its compression: it was cut, or is still being written.")

    def _refusal(self, code: Code, why: str) -> SourceDataInvalid:
        return refusal(code, Place(self.name), why)


class _Book:
    """Puts changes and snapshots of a book in order."""

    def __init__(self, holes: list[Hole]) -> None:
        self.was_known = False
        self.has_snapshots = False
        self._old = _Lines("left out (a snapshot older than the changes beside it)")
        self._spare = _Lines("left out (a snapshot of a book that was known)")
        self.left_out = (self._old, self._spare)
        self._sequence = DepthSequence()
        self._holes = holes
        self._snapshots: list[tuple[int, Ticks]] = []  # line and rows; each waits for the first change beyond it

    def snapshot(self, line: int, rows: Ticks) -> None:
        """Take a snapshot."""
        self.has_snapshots = True
        self._snapshots.append((line, rows))

    def events(self, events: list[DepthEvent]) -> Iterator[Ticks]:
        """Take changes; yield rows, with snapshots where they belong.

        A snapshot may be ahead of the stream by some changes. They are recorded, so they are kept, and it waits.
        """
        while self._snapshots:
            rows = self._snapshots[0][1]
            last_id = int(rows.column("id")[0]) if rows.size else -1
            later = next((place for place, event in enumerate(events) if event.last_id > last_id), None)
            if later is None:
                break
            yield from self._passed(self._sequence.events(events[:later]))
            yield from self._next_snapshot()
            events = events[later:]
        yield from self._passed(self._sequence.events(events))

    def rest(self) -> Iterator[Ticks]:
        """Yield what still waits, at the end of the file."""
        while self._snapshots:
            yield from self._next_snapshot()
        yield from self._passed(self._sequence.flush())

    def _next_snapshot(self) -> Iterator[Ticks]:
        line, rows = self._snapshots.pop(0)
        is_spare = self._sequence.state is State.SYNCHRONISED
        passed = self._sequence.snapshot(rows)
        if is_spare or passed is None:
            (self._spare if is_spare else self._old).add(line)
        else:
            self.was_known = True
            yield from self._passed(passed)

    def _passed(self, passed: Passed) -> Iterator[Ticks]:
        self._holes += passed.holes
        yield from passed.rows


class _Lines:
    """Counts lines that something is wrong with."""

    def __init__(self, what: str) -> None:
        self.count = 0
        self._what = what
        self._first = 0

    def add(self, number: int) -> None:
        """Count a line."""
        self._first = min(self._first, number) if self.count else number
        self.count += 1

    def note(self) -> str:
        """Say how many there are, and where the first is."""
        return f"{self.count} line{'s' if self.count > 1 else ''} {self._what}, first at line {self._first}"


def _blocks(parts: Iterable[Ticks]) -> Iterator[Ticks]:
    """Join rows to blocks of BLOCK_ROWS; the last is smaller, and those between which decimals do not fit."""
    held: list[Ticks] = []
    count = 0
    for part in parts:
        held.append(part)
        count += part.size
        if count >= BLOCK_ROWS:
            *full, rest = _cut(joined(held))
            yield from full
            held, count = [rest], rest.size
    yield from _cut(joined(held))


def _cut(parts: list[Ticks]) -> Iterator[Ticks]:
    for part in parts:
        for start in range(0, part.size, BLOCK_ROWS):
            yield part.rows(start, min(start + BLOCK_ROWS, part.size))
