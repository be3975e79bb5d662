"""Bars into the store: all of a file's rows or none, and every refusal says where and what to do."""

import numpy as np
import pytest

from daemon.core.errors import AtlasError, Code, Conflict, SourceDataInvalid, StoreFull
from daemon.core.market import NS_PER_HOUR, Bars, BarTable, Instrument, Timeframe
from daemon.ingest import uploads
from daemon.ingest.bars import import_bars
from daemon.store import bars as store_bars
from daemon.store import codec
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig

SPY = Instrument("local", "SPY")
FIRST_LINE = 2


@pytest.fixture
def store(tmp_path):
    with Environment(tmp_path, StoreConfig()) as env:
        yield env, BarStore(env)


def table(count=10, *, start=0, **changes):
    """Hourly bars; `changes` maps a column to {row: value}."""
    close = 100.0 + np.arange(count) / 4
    columns = {
        "start_ns": (start + np.arange(count)) * NS_PER_HOUR,
        "open": close.copy(),
        "high": close + 1,
        "low": close - 1,
        "close": close,
        "volume": np.full(count, 10.5),
    }
    for name, values in changes.items():
        for row, value in values.items():
            columns[name][row] = value
    return BarTable(Bars(**columns), np.arange(count, dtype=np.int64) + FIRST_LINE, ())


def load(store, given, *, timeframe=Timeframe.HOUR_1, **options):
    return import_bars(*store, given, SPY, timeframe, "bars.csv", **options)


def stored(store):
    return store[1].read(SPY, Timeframe.HOUR_1)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("high", 90.0, "high 90 is below the low"),
        ("open", 200.0, "open 200 is above the high"),
        ("open", 1.0, "open 1 is below the low"),
        ("close", 200.0, "close 200 is above the high"),
        ("close", 1.0, "close 1 is below the low"),
        ("low", 0.0, "low 0 is not positive"),
        ("low", -5.0, "low -5 is not positive"),
        ("close", np.nan, "close nan is not a finite number"),
        ("high", np.inf, "high inf is not a finite number"),
        ("volume", -1.0, "volume -1 is negative"),
    ],
)
def test_a_row_that_is_no_bar_is_refused_with_its_line_and_field(store, column, value, words):
    with pytest.raises(SourceDataInvalid, match=r"bars\.csv line 6") as refusal:
        load(store, table(**{column: {4: value}}))
    assert refusal.value.code == Code.BARS_INVALID
    assert words in refusal.value.message
    assert refusal.value.details == {"file": "bars.csv", "line": 6, "field": column}
    assert stored(store).size == 0


def test_fractional_volume_is_fine(store):
    assert load(store, table(volume={0: 0.00000001})).added == 10
    assert stored(store).volume[0] == 0.00000001


def test_rows_out_of_order_are_sorted_and_reported(store):
    given = table(3)
    backwards = BarTable(Bars._make(column[::-1].copy() for column in given.bars), given.lines, ())
    report = load(store, backwards)
    assert report.notes == ["rows were not in order of time: sorted"]
    for mine, theirs in zip(stored(store), given.bars, strict=True):
        assert (mine == theirs).all()


def repeat_row(given, row, **changes):
    """Append a copy of one row, changed."""
    again = Bars._make(np.append(column, column[row]) for column in given.bars)
    for name, value in changes.items():
        getattr(again, name)[-1] = value
    return BarTable(again, np.append(given.lines, given.lines[-1] + 1), ())


def test_a_row_that_is_there_twice_is_dropped_and_reported(store):
    report = load(store, repeat_row(table(5), 2))
    assert (report.rows, report.added, report.repeated) == (6, 5, 1)
    assert any("1 rows repeated" in note for note in report.notes)
    assert stored(store).size == 5


def test_two_different_bars_for_one_time_are_refused_with_both_lines(store):
    with pytest.raises(SourceDataInvalid, match="lines 4 and 7: two different bars for 1970-01-01T02:00:00Z"):
        load(store, repeat_row(table(5), 2, volume=11.0))
    assert stored(store).size == 0


def test_rows_that_are_stored_already_are_skipped(store):
    load(store, table(10))
    report = load(store, table(10, start=5, **shifted(5)))
    assert (report.added, report.unchanged, report.replaced) == (5, 5, 0)
    assert stored(store).size == 15


def shifted(by):
    """Make rows of a table that starts later equal the earlier table's rows of the same time."""
    close = 100.0 + (np.arange(10) + by) / 4
    columns = {"open": close, "high": close + 1, "low": close - 1, "close": close}
    return {name: dict(enumerate(values)) for name, values in columns.items()}


def test_rows_that_differ_from_stored_ones_are_refused_unless_told_to_replace(store):
    load(store, table(10))
    changed = table(10, volume={3: 99.0, 7: 98.0})
    with pytest.raises(Conflict, match=r"2 rows differ .* first at 1970-01-01T03:00:00Z") as refusal:
        load(store, changed)
    assert refusal.value.code == Code.BARS_CONFLICT
    assert stored(store).volume[3] == 10.5
    report = load(store, changed, replace=True)
    assert (report.added, report.unchanged, report.replaced) == (0, 8, 2)
    assert stored(store).volume[3] == 99.0


@pytest.mark.parametrize("replace", [False, True])
def test_volumes_of_another_unit_than_the_stored_ones_are_refused(store, replace):
    load(store, table(10))
    with pytest.raises(Conflict, match=r"volumes count quote currency, .* base units; nothing was stored") as refusal:
        load(store, table(10, start=8, **shifted(8)), volume_unit="quote", replace=replace)
    assert refusal.value.code == Code.BARS_CONFLICT
    assert refusal.value.details == {"field": "volume_unit", "stored": "base", "given": "quote"}
    assert stored(store).size == 10
    assert load(store, table(10), volume_unit="quote", replace=True).unchanged == 10
    assert store[1].volume_unit(SPY, Timeframe.HOUR_1) == "quote"


def test_bars_closer_than_the_timeframe_are_refused(store):
    with pytest.raises(SourceDataInvalid, match=r"3600 s apart .* are no 1Day bars"):
        load(store, table(), timeframe=Timeframe.DAY_1)


def test_daily_bars_of_a_zone_with_daylight_saving_are_accepted(store):
    given = table(3)
    given.bars.start_ns[:] = np.array([0, 24, 47]) * NS_PER_HOUR
    assert load(store, given, timeframe=Timeframe.DAY_1).added == 3


def test_an_import_that_fails_half_way_stores_nothing(store, monkeypatch):
    load(store, table(4))
    monkeypatch.setattr(codec, "CHUNK_ROWS", 3)
    encode, calls = codec.encode_market, []

    def breaks_on_the_second(columns):
        calls.append(columns)
        if len(calls) == 2:
            raise SourceDataInvalid(Code.INTERNAL, "planted")
        return encode(columns)

    monkeypatch.setattr(store_bars.codec, "encode_market", breaks_on_the_second)
    with pytest.raises(AtlasError, match="planted"):
        load(store, table(10, start=4))
    assert len(calls) == 2
    assert stored(store).size == 4
    assert [series.rows for series in store[1].series()] == [4]


def test_a_refused_import_registers_no_instrument(store):
    load(store, table(4))
    other = Instrument("local", "OTHER")
    with pytest.raises(SourceDataInvalid):
        import_bars(*store, table(high={0: 1.0}), other, Timeframe.HOUR_1, "bars.csv")
    assert [series.instrument for series in store[1].series()] == [SPY]


def test_columns_left_for_the_daemon_are_taken_once_bit_for_bit(tmp_path):
    given = table(6)
    identity = uploads.leave(tmp_path, given)
    file = tmp_path / f"{identity}.upload"
    assert file.stat().st_mode & 0o777 == 0o600
    taken = uploads.take(tmp_path, identity, ["a note"])
    assert taken.notes == ("a note",)
    for mine, theirs in zip((*taken.bars, taken.lines), (*given.bars, given.lines), strict=True):
        assert (mine == theirs).all()
    assert not file.exists()


@pytest.fixture
def files_of_1_mib():
    """No file of this process grows beyond that, as if its disk were full."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures("files_of_1_mib")
def test_columns_that_find_no_room_leave_nothing_behind(tmp_path):
    given = table(100_000)
    given.bars.volume[:] = np.random.default_rng(1).random(100_000)
    given.bars.open[:] = given.bars.volume[::-1]
    with pytest.raises(StoreFull) as refusal:
        uploads.leave(tmp_path, given)
    assert refusal.value.code == Code.STORE_FULL
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "identity",
    ["", "../secret", "/etc/passwd", "0" * 31, "0" * 32, "A" * 32, "0" * 31 + "\n", "0" * 32 + "/../../secret"],
)
def test_an_upload_is_named_by_id_and_never_by_path(tmp_path, identity):
    (tmp_path / "secret.upload").write_bytes(b"x")
    (tmp_path / "spool" / ("0" * 32)).mkdir(parents=True)
    with pytest.raises(AtlasError) as refusal:
        uploads.take(tmp_path / "spool", identity, [])
    assert refusal.value.code == Code.INVALID_REQUEST
