"""Stored results as rows: filtered, in blocks, from any place on."""

import base64
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from adapters.barfile import read_bars
from daemon.core.errors import Conflict, InvalidRequest, NotFound
from daemon.core.market import Instrument, Timeframe
from daemon.core.strategy import RiskProfile
from daemon.research import strategies
from daemon.research.executors import ThreadExecutor
from daemon.research.jobs import JobRunner
from daemon.research.plans import ProbeRequest
from daemon.research.ranking import rank
from daemon.research.runs import Runs
from daemon.research.strategies import RuleBook
from daemon.research.views import BLOCK_ROWS, GROUP_NAMES, TRADE_NAMES, Cursor, Filters, RunRows, texts
from daemon.store import keys as store_keys
from daemon.store import results
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig

ROOT = Path(__file__).parents[2]
BOOK = strategies.load([ROOT / "strategies.json"])
PROFILES = {"low": RiskProfile(0.75, 0.75, 0.75, 0.6), "high": RiskProfile(1.5, 1.5, 1.5, 1.5)}
SYNTHETIC = ROOT / "tests" / "golden" / "synthetic"


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A run of three jobs, each in two batches; one symbol at two venues."""
    with Environment(tmp_path_factory.mktemp("views"), StoreConfig(sync=False)) as env:
        store = BarStore(env)
        hours, quarters = (read_bars(SYNTHETIC / f"bars-{name}.csv.gz").bars for name in ("SYNB_1Hour", "SYNA_15Min"))
        for key, timeframe, bars in (
            ("aaa:SYN", Timeframe.HOUR_1, hours),
            ("bbb:SYN", Timeframe.MIN_15, quarters),
        ):
            instrument = Instrument(*key.split(":"))
            env.write(
                lambda transaction, of=instrument, length=timeframe, rows=bars: store.merge(
                    transaction, of, length, rows, replace=False
                )
            )
        runs = Runs(env, store, BOOK, PROFILES, ThreadExecutor(lambda: JobRunner(store, BOOK), 1))
        for fields in (
            {"symbols": ["aaa:SYN", "bbb:SYN"], "timeframes": ["1Hour"], "strategy_ids": list(range(1, 31))},
            {"symbols": ["aaa:SYN", "bbb:SYN"], "timeframes": ["1Hour"]},
            {"symbols": ["bbb:SYN"], "timeframes": ["15Min"], "strategy_ids": [3, 11]},
            {"symbols": ["bbb:SYN"], "timeframes": ["15Min"]},
        ):
            runs.submit(ProbeRequest(run_id="run", persist_trades=True, start_date="2024-01-02", **fields))
            assert runs.wait("run", 60)
        run = runs.get("run").run
        runs.close()
        assert run.status == "completed"
        yield env, run


@pytest.fixture
def rows(stored):
    """A walk over the run's rows."""
    return lambda book=BOOK, **filters: RunRows(*stored, book, Filters(**filters))


def listed(blocks):
    """Blocks as one list of rows."""
    found = []
    for block in blocks:
        plain = texts(block)
        found += [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)]
    return found


FILTERS = [
    {},
    {"symbol": "SYN"},
    {"symbol": "aaa:syn"},
    {"symbol": "bbb:SYN", "timeframe": "1Hour"},
    {"timeframe": "15Min"},
    {"strategy_id": 11},
    {"risk_profile": "high"},
    {"symbol": "SYN", "timeframe": "15Min", "strategy_id": 3, "risk_profile": "low"},
    {"strategy_id": 51},
]


@pytest.mark.parametrize("filters", FILTERS, ids=json.dumps)
@pytest.mark.parametrize("kind", ["groups", "trades"])
def test_filters_keep_the_rows_that_match_in_their_order(rows, kind, filters):
    wanted = {name: value for name, value in filters.items() if name != "symbol"}
    venue = filters.get("symbol", "SYN").rpartition(":")[0]
    venues = [venue] if venue else ["aaa", "bbb"]
    expected = []
    for venue in venues:
        everything = listed(getattr(rows(symbol=f"{venue}:SYN"), kind)())
        expected += [row for row in everything if row.items() >= wanted.items()]
    assert listed(getattr(rows(**filters), kind)()) == expected


def test_rows_come_by_instrument_timeframe_and_batch(rows):
    aaa, bbb = ([*rows(symbol=f"{venue}:SYN").groups()] for venue in ("aaa", "bbb"))
    assert listed(rows().groups()) == listed(aaa) + listed(bbb)
    order = [(Timeframe(row["timeframe"]).ns, row["strategy_id"]) for row in listed(bbb)]
    quarters = [strategy_id for ns, strategy_id in order if ns == Timeframe.MIN_15.ns]
    hours = [strategy_id for ns, strategy_id in order if ns == Timeframe.HOUR_1.ns]
    assert [strategy_id for _, strategy_id in order] == quarters + hours
    # The batch that was run first comes first: 3 and 11, then the others; 1 to 30, then the others.
    for found, first in ((quarters, {3, 11}), (hours, set(range(1, 31)))):
        assert found == sorted(found, key=lambda strategy_id: (strategy_id not in first, strategy_id))


@pytest.mark.parametrize("limit", [1, 7, 100, BLOCK_ROWS, BLOCK_ROWS + 1])
@pytest.mark.parametrize("filters", [{}, {"strategy_id": 3, "risk_profile": "low"}])
@pytest.mark.parametrize("kind", ["groups", "trades"])
def test_walking_from_cursor_to_cursor_gives_every_row_once(rows, kind, filters, limit):
    everything = listed(getattr(rows(**filters), kind)())
    if len(everything) / limit > 300:
        everything, filters = listed(getattr(rows(strategy_id=4), kind)()), {"strategy_id": 4}
    found, cursor = [], None
    while True:
        walk = rows(**filters)
        page = listed(getattr(walk, kind)(cursor, limit))
        found += page
        if walk.next_cursor is None:
            break
        assert len(page) == limit
        cursor = Cursor.decode(walk.next_cursor.encode())
        assert cursor == walk.next_cursor
    assert found == everything != []


def test_blocks_are_bounded(rows):
    sizes = [block["symbol"].size for block in rows().trades()]
    assert max(sizes) <= BLOCK_ROWS
    assert min(sizes) > 0


def test_a_limit_that_is_reached_with_the_last_row_leaves_no_cursor(rows):
    count = len(listed(rows(strategy_id=3).groups()))
    for limit, more in ((count - 1, True), (count, False), (count + 1, False), (None, False)):
        walk = rows(strategy_id=3)
        assert len(listed(walk.groups(limit=limit))) == min(limit or count, count)
        assert (walk.next_cursor is not None) == more


def test_a_walk_that_is_repeated_begins_anew(rows):
    walk = rows(strategy_id=3)
    first = listed(walk.groups(limit=2))
    assert walk.next_cursor is not None
    assert listed(walk.groups(limit=2)) == first
    listed(walk.groups())
    assert walk.next_cursor is None


def test_columns_have_names_and_types_in_order(rows):
    (group, *_), (trade, *_) = rows().groups(), rows().trades()
    assert tuple(group) == GROUP_NAMES
    assert tuple(trade) == TRADE_NAMES
    assert {name for name in group if group[name].dtype == "datetime64[ns]"} == {"period_start", "period_end"}
    assert {name for name in trade if trade[name].dtype == "datetime64[ns]"} == {"entry_time", "exit_time"}
    assert group["open_day"].dtype == "datetime64[D]"
    for block, names in ((group, ["num_trades", "open_hour", "strategy_id"]), (trade, ["bars_held", "strategy_id"])):
        assert all(block[name].dtype == np.int64 for name in names)
    assert len({column.size for column in group.values()}) == 1


def test_the_period_is_as_configured_else_the_bars(rows):
    starts = {row["period_start"] for row in listed(rows().groups())}
    ends = {(row["timeframe"], row["period_end"]) for row in listed(rows(symbol="bbb:SYN").groups())}
    assert starts == {"2024-01-02T00:00:00Z"}
    assert ends == {("15Min", "2024-01-16T14:45:00Z"), ("1Hour", "2024-01-16T14:00:00Z")}


def test_corrected_values_are_those_of_the_whole_run_on_every_page_and_under_every_filter(stored, rows):
    env, run = stored
    with env.read() as transaction:
        ranking = rank([job.index for job in results.jobs(transaction, run.run_id)])
        keys = [
            (job.index.timeframe, job.prefix, strategy_id, profile)
            for job in results.jobs(transaction, run.run_id)
            for strategy_id, profile in zip(job.index.totals.strategy_id, job.index.totals.risk_profile, strict=True)
        ]
    wanted = {
        key: (None, None) if np.isnan(adjusted) else (adjusted, share)
        for key, adjusted, share in zip(
            keys, ranking.gains.adjusted.tolist(), ranking.gains.false_discovery.tolist(), strict=True
        )
    }
    assert ranking.tried > 300
    assert None in {adjusted for adjusted, _ in wanted.values()}
    found = set()
    for venue in ("aaa", "bbb"):
        for timeframe in run.timeframes:
            prefix = store_keys.job(run.run_id, f"{venue}:SYN", timeframe)
            for filters in ({}, {"strategy_id": 11}, {"risk_profile": "high"}):
                walk = rows(symbol=f"{venue}:SYN", timeframe=timeframe, **filters)
                page = listed(walk.groups())
                if not filters and page:
                    place = Cursor(f"{venue}:SYN", timeframe, 1, 0, 5)
                    page += listed(walk.groups(place, limit=40))
                for row in page:
                    key = timeframe, prefix, row["strategy_id"], row["risk_profile"]
                    assert (row["p_adjusted"], row["false_discovery"]) == wanted[key]
                    found.add(key)
    assert len(found) == ranking.tried


def test_corrected_values_count_what_is_planned_and_not_stored(stored):
    env, run = stored
    longer = msgspec.structs.replace(run, total_combinations=run.total_combinations + 10_000)
    now, later = (listed(RunRows(env, each, BOOK, Filters(strategy_id=11)).groups()) for each in (run, longer))
    pairs = [(row["p_adjusted"], other["p_adjusted"]) for row, other in zip(now, later, strict=True)]
    assert all(before <= after for before, after in pairs if before is not None)
    assert any(before < after for before, after in pairs if before is not None)


def test_groups_add_up_to_the_trades(rows):
    trades = listed(rows().trades())
    groups = listed(rows().groups())
    assert sum(row["num_trades"] for row in groups) == len(trades)
    by_key = {}
    for row in listed(rows(symbol="bbb:SYN", timeframe="15Min").trades()):
        key = row["strategy_id"], row["risk_profile"], row["entry_time"][:13].replace("T", " "), row["direction"]
        by_key.setdefault(key, []).append(row)
    for group in listed(rows(symbol="bbb:SYN", timeframe="15Min").groups()):
        opened = f"{group['open_day']} {group['open_hour']:02}"
        members = by_key.pop((group["strategy_id"], group["risk_profile"], opened, group["long_short"]))
        gains = [row["pnl_pct"] for row in members]
        assert group["num_trades"] == len(members)
        assert group["pnl_mean"] == pytest.approx(np.mean(gains), rel=1e-12)
        assert group["pnl_std"] == pytest.approx(np.std(gains), abs=1e-15)
        assert group["max_profit"] == max(row["max_profit"] for row in members)
    assert not by_key


def test_times_are_written_in_utc_and_days_as_days():
    block = {
        "time": np.array(["2024-02-29T23:59:59.5", "1969-12-31T23:00:00"], dtype="datetime64[ns]"),
        "day": np.array(["2024-02-29", "1969-12-31"], dtype="datetime64[D]"),
        "number": np.array([1.5, -0.0]),
        "hole": np.array([np.nan, 0.25]),
        "text": np.array(["a", "b"], dtype=object),
    }
    assert texts(block) == {
        "time": ["2024-02-29T23:59:59Z", "1969-12-31T23:00:00Z"],
        "day": ["2024-02-29", "1969-12-31"],
        "number": [1.5, -0.0],
        "hole": [None, 0.25],
        "text": ["a", "b"],
    }


# Cursors.


@pytest.mark.parametrize(
    "cursor",
    [Cursor("local:SPY", "1Hour", 0, 0, 0), Cursor("a:B", "1Day", 2**31, 7, 2**40), Cursor("x" * 60, "1Sec", 1, 2, 3)],
)
def test_a_cursor_comes_back_as_it_was(cursor):
    text = cursor.encode()
    assert Cursor.decode(text) == cursor
    assert text.isascii()
    assert text.replace("-", "").replace("_", "").isalnum()


def packed(*parts):
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(parts)).decode().rstrip("=")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "abc",
        "not a cursor",
        "é",
        "\0",
        "=" * 10,
        "A" * 100_000,
        packed(),
        packed("a:B", "1Hour", 0, 0),
        packed("a:B", "1Hour", 0, 0, "0"),
        packed(1, 2, 3, 4, 5),
        packed("a:B", "2Hour", 0, 0, 0),
        packed("a:B", "1Hour", 0.5, 0, 0),
    ],
    ids=range(14),
)
def test_a_cursor_from_garbage_is_refused(text):
    with pytest.raises(InvalidRequest) as caught:
        Cursor.decode(text)
    assert caught.value.code == "INVALID_CURSOR"


@pytest.mark.parametrize(
    "cursor",
    [
        Cursor("zzz:NONE", "1Hour", 0, 0, 0),
        Cursor("bbb:SYN", "1Day", 99, 99, 99),
        Cursor("bbb:SYN", "1Hour", 2**40, 0, 0),
        Cursor("bbb:SYN", "1Hour", 2, 0, 2**63),
    ],
)
def test_a_cursor_behind_everything_finds_nothing(rows, cursor):
    walk = rows()
    assert listed(walk.groups(cursor, 10)) == []
    assert walk.next_cursor is None


def test_a_cursor_before_everything_begins_at_the_first_row(rows):
    first = listed(rows().groups(limit=3))
    assert listed(rows().groups(Cursor("", "1Sec", -1, -1, -1), 3)) == first
    assert listed(rows().groups(Cursor("aaa:SYN", "1Hour", 0, 0, -5), 3)) == first


# What a run does not have.


@pytest.mark.parametrize(
    ("filters", "kind", "code"),
    [
        ({"timeframe": "2Hour"}, InvalidRequest, "INVALID_TIMEFRAME"),
        ({"risk_profile": "medium"}, InvalidRequest, "INVALID_RISK_PROFILE"),
        ({"strategy_id": 101}, NotFound, "INVALID_STRATEGY"),
        ({"symbol": "a b"}, InvalidRequest, "INVALID_SYMBOL"),
        ({"symbol": ":SYN"}, InvalidRequest, "INVALID_SYMBOL"),
        ({"symbol": "OTHER"}, NotFound, "INVALID_SYMBOL"),
        ({"symbol": "ccc:SYN"}, NotFound, "INVALID_SYMBOL"),
        ({"timeframe": "1Day"}, InvalidRequest, "INVALID_TIMEFRAME"),
    ],
)
def test_a_filter_that_names_nothing_known_is_refused(rows, filters, kind, code):
    with pytest.raises(kind) as caught:
        rows(**filters)
    assert caught.value.code == code


def test_words_are_given_only_while_the_rules_are_those_of_the_run(rows):
    changed = RuleBook(
        msgspec.structs.replace(strategy, atr_stop_mult=9.0) if strategy.id == 3 else strategy for strategy in BOOK
    )
    renamed = RuleBook(
        msgspec.structs.replace(strategy, philosophy="another") if strategy.id == 3 else strategy for strategy in BOOK
    )
    told = listed(rows(strategy_id=3).trades(limit=5, justify=True))
    assert all(row["entry_justification"] and row["exit_justification"] for row in told)
    assert listed(rows(renamed, strategy_id=3).trades(limit=5, justify=True)) == told
    assert listed(rows(changed, strategy_id=4).trades(limit=5, justify=True))
    assert len(listed(rows(changed, strategy_id=3).trades(limit=5))) == 5
    with pytest.raises(Conflict) as caught:
        listed(rows(changed, strategy_id=3).trades(limit=5, justify=True))
    assert caught.value.code == "RUN_CONFLICT"
