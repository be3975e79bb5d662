"""Recordings of streams: what is kept, what is torn, where snapshots belong, and the real ones against their quotes."""

import gzip
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive.book import Book, replay

from adapters.binance import capture
from adapters.binance.capture import open_capture
from daemon.core.errors import AtlasError, Code
from daemon.core.ports import TickFile, Verification
from daemon.core.ticks import BUY, DepthFlag, Stream, concatenate, rescale

REAL = Path(__file__).parents[3] / "shared" / "data" / "binance" / "streams"
FUTURES, SPOT = REAL / "futures-um-btcusdt-20240808.gz", REAL / "spot-btcusdt-20240809.gz"
T = 1_723_161_256_298
SNAPSHOT, AFTER_GAP = DepthFlag.SNAPSHOT, DepthFlag.AFTER_GAP


def line(local_ns, stream, **fields):
    return f"{local_ns} {json.dumps({'stream': stream, 'data': fields})}"


def trade(number, symbol="BTCUSDT", **changes):
    fields = {"e": "trade", "E": T, "s": symbol, "t": number, "p": "1.5", "q": "2", "T": T + number, "m": True}
    return line(1_000 + number, f"{symbol.lower()}@trade", **(fields | changes))


def depth(first, last, symbol="BTCUSDT", **changes):
    fields = {"e": "depthUpdate", "E": T + last, "s": symbol, "U": first, "u": last, "b": [["1.5", "2"]], "a": []}
    return line(1_000 + last, f"{symbol.lower()}@depth@100ms", **(fields | changes))


def snapshot(last, **changes):
    fields = {"lastUpdateId": last, "bids": [["1.25", "3"]], "asks": [["2", "1"]]} | changes
    return f"{1_000 + last} {json.dumps(fields)}"


@pytest.fixture
def recorded(tmp_path):
    """Write lines to a file, gzipped or plain."""

    def write(*lines, name="capture.gz", cut=0):
        text = "".join(f"{each}\n" for each in lines).encode()
        raw = gzip.compress(text) if name.endswith(".gz") else text
        path = tmp_path / name
        path.write_bytes(raw[: len(raw) - cut])
        return path

    return write


def read(path, stream=Stream.TRADES, symbol=None):
    opened = open_capture(path, stream, symbol)
    return opened, list(opened.blocks())


def ids(blocks):
    return [each for block in blocks for each in block.column("id").tolist()]


def told(blocks):
    """[(id, flags)] of a book's rows, neighbours of one kind as one."""
    pairs = [
        pair
        for block in blocks
        for pair in zip(block.column("id").tolist(), block.column("flags").tolist(), strict=True)
    ]
    return [pair for place, pair in enumerate(pairs) if not place or pair != pairs[place - 1]]


def refusal(act, *args):
    with pytest.raises(AtlasError) as caught:
        act(*args)
    return caught.value


@pytest.mark.parametrize("name", ["capture.gz", "capture.txt"])
def test_a_stream_is_read_from_among_others_gzipped_or_plain(recorded, name):
    path = recorded(trade(1), depth(1, 2), snapshot(5), trade(2), "", name=name)
    opened, (block,) = read(path)
    file: TickFile = opened
    assert file.name == name
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert file.verification is Verification.UNVERIFIED
    assert block.column("id").tolist() == [1, 2]
    assert block.column("local_ns").tolist() == [1_001, 1_002]
    assert opened.notes == opened.holes == []


def test_unknown_fields_are_passed_over(recorded):
    assert ids(read(recorded(trade(1, brand_new={"a": 1})))[1]) == [1]


def test_a_last_line_that_is_torn_costs_only_itself(recorded):
    opened, blocks = read(recorded(trade(1), trade(2), trade(3)[:60]))
    assert ids(blocks) == [1, 2]
    assert opened.notes == ["1 line could not be read, first at line 3"]


@pytest.mark.parametrize("torn", ["x", "12", "12 ", "x12 {}", "-5 {}", "1" * 25 + " {}", trade(2, p="1.5.5"), "5 \xff"])
def test_lines_that_cannot_be_read_are_counted_and_the_rest_goes_on(recorded, torn):
    opened, blocks = read(recorded(trade(1), torn, torn, trade(3)))
    assert ids(blocks) == [1, 3]
    assert opened.notes == ["2 lines could not be read, first at line 2"]


def test_a_torn_line_counts_for_the_stream_it_names(recorded):
    path = recorded(trade(1), depth(1, 2)[:80], depth(1, 2))
    assert read(path)[0].notes == []
    assert read(path, Stream.DEPTH)[0].notes[0] == "1 line could not be read, first at line 2"


def test_a_file_that_ends_within_its_compression_is_read_as_far_as_it_goes(recorded):
    lines = [trade(number, p=str(number * 7919 % 10_007)) for number in range(2_000)]
    opened, blocks = read(recorded(*lines, cut=2_000))
    assert 0 < len(ids(blocks)) < 2_000
    assert ids(blocks) == list(range(len(ids(blocks))))
    assert "within its compression" in opened.notes[0]


def test_a_recorder_that_appends_another_gzip_is_read_on(recorded):
    path = recorded(trade(1))
    path.write_bytes(path.read_bytes() + gzip.compress(trade(2).encode()))
    assert ids(read(path)[1]) == [1, 2]


def test_damaged_compression_is_refused(recorded):
    path = recorded(trade(1))
    path.write_bytes(path.read_bytes()[:-8] + b"12345678")  # the checksum at its end
    error = refusal(read, path)
    assert error.code == Code.SOURCE_UNREADABLE
    assert "damaged" in error.message


def test_what_is_not_there_or_no_file_is_refused(tmp_path):
    assert refusal(open_capture, tmp_path / "none.gz", Stream.TRADES).code == Code.SOURCE_NOT_FOUND
    assert refusal(open_capture, tmp_path, Stream.TRADES).code == Code.SOURCE_UNREADABLE
    with pytest.raises(ValueError, match="bars"):
        open_capture(tmp_path, Stream.BARS)


def test_a_line_without_end_is_refused_before_it_fills_the_memory(recorded, monkeypatch):
    monkeypatch.setattr(capture, "MAX_LINE_BYTES", 1_000)
    assert refusal(read, recorded("x" * 5_000, name="capture.txt")).code != Code.INTERNAL


@pytest.mark.parametrize("lines", [(), (depth(1, 2),), ("nonsense",)])
def test_a_recording_without_the_stream_is_refused(recorded, lines):
    error = refusal(read, recorded(*lines))
    assert error.code == Code.SOURCE_EMPTY
    assert "no trades" in error.message


def test_trades_that_nobody_could_have_made_are_kept_out_and_noted(recorded):
    opened, blocks = read(recorded(trade(1), trade(2, X="INSURANCE_FUND"), trade(3)))
    assert ids(blocks) == [1, 3]
    assert opened.notes == ["1 line left out (no trade between traders), first at line 2"]


def test_one_symbol_is_read_from_among_others_when_it_is_named(recorded):
    path = recorded(trade(1), trade(7, "ETHUSDT"), trade(2))
    assert ids(read(path, Stream.TRADES, "BTCUSDT")[1]) == [1, 2]
    assert ids(read(path, Stream.TRADES, "ETHUSDT")[1]) == [7]
    error = refusal(read, path)
    assert error.code == Code.AMBIGUOUS_SYMBOL
    assert "BTCUSDT and ETHUSDT" in error.message


def test_snapshots_among_several_symbols_are_refused_for_they_do_not_say_whose(recorded):
    path = recorded(depth(1, 2), snapshot(2), depth(3, 4, "ETHUSDT"), depth(3, 4))
    assert refusal(read, path, Stream.DEPTH, "BTCUSDT").code == Code.AMBIGUOUS_SYMBOL
    without = recorded(depth(1, 2), depth(3, 4, "ETHUSDT"), depth(3, 4))
    assert ids(read(without, Stream.DEPTH, "BTCUSDT")[1]) == [2, 4]


def test_blocks_are_bounded_and_in_order(recorded, monkeypatch):
    monkeypatch.setattr(capture, "BLOCK_ROWS", 100)
    monkeypatch.setattr(capture, "LINES_AT_ONCE", 64)
    _, blocks = read(recorded(*map(trade, range(1_050))))
    assert ids(blocks) == list(range(1_050))
    assert {block.size for block in blocks[:-1]} == {100}


def test_a_snapshot_stands_among_the_changes_where_its_id_belongs(recorded):
    path = recorded(depth(90, 95), depth(96, 100), depth(101, 105), snapshot(97), depth(106, 107))
    opened, blocks = read(path, Stream.DEPTH)
    assert told(blocks) == [(95, 0), (97, SNAPSHOT), (100, 0), (105, 0), (107, 0)]
    assert opened.notes == opened.holes == []


def test_a_snapshot_ahead_of_the_stream_waits_and_costs_no_change(recorded):
    path = recorded(depth(90, 95), snapshot(103), depth(96, 100), depth(101, 105))
    assert told(read(path, Stream.DEPTH)[1]) == [(95, 0), (100, 0), (103, SNAPSHOT), (105, 0)]


def test_a_snapshot_at_the_end_is_kept(recorded):
    assert told(read(recorded(depth(90, 95), snapshot(103)), Stream.DEPTH)[1]) == [(95, 0), (103, SNAPSHOT)]


def test_a_snapshot_without_a_time_takes_that_of_the_last_change_it_covers(recorded):
    _, (block,) = read(recorded(depth(90, 95), depth(96, 100), snapshot(97)), Stream.DEPTH)
    times = dict(zip(block.column("id").tolist(), block.time_ns.tolist(), strict=True))
    assert times[97] == (T + 95) * 1_000_000
    _, (block,) = read(recorded(depth(90, 95), depth(96, 100), snapshot(97, T=T + 96)), Stream.DEPTH)
    times = dict(zip(block.column("id").tolist(), block.time_ns.tolist(), strict=True))
    assert times[97] == (T + 96) * 1_000_000


def test_snapshots_that_are_old_broken_or_not_needed_are_left_out_and_noted(recorded):
    path = recorded(
        depth(90, 95),
        snapshot(80),
        snapshot(97),
        depth(96, 100),
        snapshot(101),
        '9 {"lastUpdateId":5}',
        depth(101, 105),
    )
    opened, blocks = read(path, Stream.DEPTH)
    assert told(blocks) == [(95, 0), (97, SNAPSHOT), (100, 0), (105, 0)]
    assert opened.notes == [
        "1 line could not be read, first at line 6",
        "1 line left out (a snapshot older than the changes beside it), first at line 2",
        "1 line left out (a snapshot of a book that was known), first at line 5",
    ]


def test_a_lost_change_is_a_hole_and_the_changes_after_it_are_kept(recorded):
    path = recorded(depth(90, 95), snapshot(93), depth(98, 100), depth(101, 103), snapshot(101))
    opened, blocks = read(path, Stream.DEPTH)
    assert told(blocks) == [(93, SNAPSHOT), (95, 0), (100, AFTER_GAP), (101, SNAPSHOT), (103, 0)]
    assert [(hole.after_id, hole.before_id) for hole in opened.holes] == [(95, 98)]


def test_a_torn_change_is_a_lost_one(recorded):
    opened, _ = read(recorded(depth(90, 95), depth(96, 100)[:90], depth(101, 105)), Stream.DEPTH)
    assert [(hole.after_id, hole.before_id) for hole in opened.holes] == [(95, 101)]


def test_changes_without_any_snapshot_are_kept_and_it_is_said(recorded):
    opened, blocks = read(recorded(depth(90, 95), depth(96, 100)), Stream.DEPTH)
    assert told(blocks) == [(95, 0), (100, 0)]
    assert "no usable snapshot" in opened.notes[0]


LINES = st.lists(
    st.one_of(
        st.integers(0, 99).map(trade),
        st.integers(0, 99).map(lambda number: trade(number)[: number + 5]),
        st.text(max_size=20).filter(lambda text: "\n" not in text and "\r" not in text),
    ),
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(LINES, st.integers(0, 30))
def test_no_recording_is_fatal_and_good_lines_are_never_lost(tmp_path_factory, lines, cut):
    path = tmp_path_factory.mktemp("chaos") / "capture.txt"
    raw = "".join(f"{each}\n" for each in [trade(100), *lines, trade(101)]).encode(errors="replace")
    path.write_bytes(raw[: len(raw) - cut])
    _, blocks = read(path)
    good = [int(json.loads(each.partition(" ")[2])["data"]["t"]) for each in lines if each.endswith("}}")]
    assert ids(blocks)[: len(good) + 1] == [100, *good]


def real(path, stream):
    if not path.exists():
        pytest.skip(f"the recording {path} is not here")
    opened, blocks = read(path, stream)
    return opened, concatenate(blocks)


def depth_and_quotes(path):
    (opened, changes), (_, quotes) = real(path, Stream.DEPTH), real(path, Stream.QUOTES)
    decimals = [max(getattr(rows, name) for rows in (changes, quotes)) for name in ("price_decimals", "size_decimals")]
    names = ("bid", "bid_size", "ask", "ask_size")
    quotes = rescale(quotes, *decimals)
    best = zip(*(quotes.column(name).tolist() for name in names), strict=True)
    return opened, rescale(changes, *decimals), dict(zip(quotes.column("id").tolist(), best, strict=True))


@pytest.mark.parametrize(
    ("path", "trades", "quotes"), [(FUTURES, 21_313, 66_089), (SPOT, 10_147, 45_134)], ids=["futures", "spot"]
)
def test_the_real_recordings_are_read_whole(path, trades, quotes):
    opened, rows = real(path, Stream.TRADES)
    assert rows.size == trades
    assert set((rows.column("id")[1:] - rows.column("id")[:-1]).tolist()) == {1}
    assert opened.notes == opened.holes == []
    assert real(path, Stream.QUOTES)[1].size == quotes


def test_the_book_of_the_real_futures_recording_is_that_of_its_quotes_and_never_crosses():
    opened, changes, quotes = depth_and_quotes(FUTURES)
    assert opened.notes == opened.holes == []
    assert (changes.time_ns[1:] >= changes.time_ns[:-1]).all()
    compared = 0
    for book in replay(changes):
        bid, ask = book.best_bid, book.best_ask
        assert bid[0] < ask[0]
        if book.id in quotes:
            compared += 1
            assert (*bid, *ask) == quotes[book.id]
    assert compared > 600


def test_what_is_known_of_the_book_of_the_real_spot_recording_agrees_with_its_quotes():
    opened, changes, quotes = depth_and_quotes(SPOT)
    assert opened.holes == []
    assert opened.notes == ["There is no usable snapshot: the changes alone do not make a book."]
    book, compared = Book(), 0
    names = ("id", "side", "price", "size", "flags")
    rows = list(zip(*(changes.column(name).tolist() for name in names), strict=True))
    for row, following in zip(rows, [*rows[1:], (None,)], strict=True):
        book.apply(*row)
        if row[0] == following[0] or row[0] not in quotes:
            continue
        bid, bid_size, ask, ask_size = quotes[row[0]]
        # Levels that never changed are unknown, so what is known may be too little, never more or otherwise.
        assert max(book.bids, default=bid) <= bid
        assert min(book.asks, default=ask) >= ask
        assert book.bids.get(bid, bid_size) == bid_size
        assert book.asks.get(ask, ask_size) == ask_size
        compared += bid in book.bids and ask in book.asks
    assert compared > 400
    assert BUY in changes.column("side")
