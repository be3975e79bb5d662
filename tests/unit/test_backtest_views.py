"""Stored backtests as rows and results: formats agree, pages join without a seam, bad cursors are refused."""

import csv
import io
import itertools
import json

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from verdicts import sample_validation

from daemon.core.backtest import EXIT_WORDS, Reason
from daemon.core.errors import AtlasError, Code
from daemon.engine.orders import Reference
from daemon.research import backtest_records as records
from daemon.research import backtest_result as results
from daemon.research.backtest_diff import compare
from daemon.research.backtest_formats import arrow_pieces, csv_pieces, json_array, json_list, result_pieces
from daemon.research.backtest_views import REFERENCES, VIEWS, BacktestRows, Cursor, columns
from daemon.research.trials import Trial
from daemon.research.validation_result import ValidationResult
from daemon.store import backtests as tables
from daemon.store.env import Environment, StoreConfig

START_NS = 1_704_067_200_000_000_000  # 2024-01-01
MINUTE_NS = 60_000_000_000
SYMBOLS = ["binance:SOL/USDT", "local:SPY"]
ROW_TYPES = {"trades": results.Trade, "receipts": results.Receipt, "equity": results.EquityPoint}
TRIAL = Trial("idea", "fingerprint", "name", None, 1, 0.0, 0)
TRADES, FILLS, SAMPLES = 9_000, 18_001, 70_000


@pytest.fixture
def env(tmp_path):
    with Environment(tmp_path, StoreConfig()) as opened:
        yield opened


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A store with one long backtest, `full`, in more than one chunk."""
    with Environment(tmp_path_factory.mktemp("full"), StoreConfig()) as opened:
        store(opened, "full", trades(TRADES), fills(FILLS), equity(SAMPLES))
        yield opened


def trades(count, **changed):
    number = np.arange(count)
    amounts = (
        "entry_price", "exit_price", "quantity", "entry_slippage", "exit_slippage", "entry_fees", "exit_fees",
        "funding", "pnl", "pnl_percent", "mae_percent", "mfe_percent",
    )  # fmt: skip
    return {
        "id": number,
        "symbol": number % 2,
        "side": np.where(number % 3, 1, -1),
        "entry_ns": START_NS + number * MINUTE_NS,
        "exit_ns": START_NS + (number + 1) * MINUTE_NS + 1_500_000,
        **{name: number + place / 16 for place, name in enumerate(amounts)},
        "reason": 1 + number % 7,
        "crossed_gap": number % 5 == 0,
        "is_end": number == count - 1,
    } | changed


def fills(count):
    number = np.arange(count)
    amounts = (
        "quantity", "remaining", "reference", "price", "spread", "impact", "fee", "fee_rate", "fixed_fee", "volume",
        "sigma", "day_volume", "cash", "position_quantity",
    )  # fmt: skip
    return {
        "id": number,
        "trade_id": np.where(number == count - 1, -1, number // 2),
        "order_id": number + 1,
        "symbol": number % 2,
        "time_ns": START_NS + number * MINUTE_NS,
        "sent_ns": START_NS + (number - 1) * MINUTE_NS,
        "side": np.where(number % 2, -1, 1),
        "reason": number % 8,
        "is_maker": number % 2,
        "reference_kind": number % 5,
        **{name: number + place / 16 for place, name in enumerate(amounts)},
        "participation": np.where(number % 2, np.nan, 0.5),
    }


def equity(count):
    number = np.arange(count)
    names = ("equity", "cash", "positions_value", "unrealized_pnl")
    return {"time_ns": START_NS + number * MINUTE_NS, **dict.fromkeys(names, number / 8)}


def _zeros(kind):
    return dict.fromkeys((field.name for field in msgspec.structs.fields(kind)), 0)


def result_of(backtest_id, **changed):
    parts = {name: kind(**_zeros(kind)) for name, kind in PARTS.items()}
    model = {"takerRate": 0.001, "slippage": {"model": "square_root", "y": 1.0}}
    costs = results.CostReport(**_zeros(results.CostReport) | {"model": model})
    fields = {
        "id": backtest_id, "name": "a name", "status": "completed", "fingerprint": "f" * 32, "engine_version": "1+1",
        "config": {}, "resolved": {"costs": {"taker_rate": 0.001}, "markets": [{"tick_size": 0.1}]},
        "readings": ["one"],
        "assumptions": [], "notes": [], "equity_curve": [], "drawdown_curve": [], "trades": [], "events": [],
        "execution": results.Execution(started_at=1), "band": None, "costs": costs, "exposure_percent": float("nan"),
        "monthly_returns": [], "data": [], "definitions": {}, **parts,
    }  # fmt: skip
    return results.BacktestResult(**(fields | changed))


PARTS = {
    "metrics": results.Metrics,
    "trade_stats": results.TradeStats,
    "risk_metrics": results.RiskMetrics,
    "buy_and_hold": results.BuyAndHold,
    "gaps": results.GapReport,
}


def store(env, backtest_id, *columns_of, status="completed", **changed):
    """Store a backtest as the service does: columns by way of a spool file, state and result with them."""
    spool_file = env.path.parent / f"{backtest_id}.spool"
    with tables.ColumnSpool(spool_file) as spool:
        for table, rows in zip(("trades", "fills", "equity"), columns_of, strict=False):
            spool.add(table, rows)
    outcome = records.BacktestOutcome(result_of(backtest_id, **changed), spool.parts, TRIAL)
    state = records.StoredBacktest(
        1,
        0,
        results.BacktestStatus(
            id=backtest_id, name="a name", status=status, priority="normal", progress=100.0, created_at=1,
            symbols=SYMBOLS, timeframe="1Min",
        ),
    )  # fmt: skip
    env.write(lambda transaction: records.put_finished(transaction, state, records.packed(outcome), spool_file))


def decoded(rows):
    return msgspec.json.decode(b"".join(json_array(rows)))


def refused(call, *arguments, **options):
    with pytest.raises(AtlasError) as caught:
        call(*arguments, **options)
    return caught.value.code


# Words and names.


def test_words_of_stored_numbers_are_those_of_the_engine():
    assert tuple(each.name.lower() for each in Reference) == REFERENCES
    assert [int(each) for each in Reference] == list(range(len(REFERENCES)))
    assert [int(each) for each in Reason] == list(range(8))


@pytest.mark.parametrize("view", VIEWS)
def test_rows_have_the_fields_of_the_result_object(full, view):
    rows = BacktestRows(full, "full", view, limit=8_500)
    named = list(ROW_TYPES[view].__struct_encode_fields__)
    assert [column.name for column in rows.columns] == named
    assert len(msgspec.json.decode(b"".join(json_array(rows)), type=list[ROW_TYPES[view]])) == 8_500


def test_a_trade_says_what_was_stored(full):
    trade = decoded(BacktestRows(full, "full", "trades", limit=2))[1]
    assert trade == {
        "id": 1, "symbol": "local:SPY", "side": "long", "entryTime": 1_704_067_260_000, "entryPrice": 1.0,
        "entrySlippage": 1 + 3 / 16, "entryFees": 1 + 5 / 16, "exitTime": 1_704_067_320_001, "exitPrice": 1 + 1 / 16,
        "exitSlippage": 1 + 4 / 16, "exitFees": 1 + 6 / 16, "exitReason": "stop_loss", "quantity": 1 + 2 / 16,
        "pnl": 1 + 8 / 16, "pnlPercent": 1 + 9 / 16, "holdTime": 60_001, "maePercent": 1 + 10 / 16,
        "mfePercent": 1 + 11 / 16, "funding": 1 + 7 / 16, "crossedGap": False, "exitNote": None, "entryBlock": None,
        "exitBlock": None,
    }  # fmt: skip


def test_a_position_closed_by_the_end_of_the_data_says_so(full):
    rows = decoded(BacktestRows(full, "full", "trades"))
    assert [row["exitNote"] for row in rows if row["exitNote"]] == ["end of data"]
    assert rows[-1]["exitNote"] == "end of data"
    assert {row["exitReason"] for row in rows} == set(EXIT_WORDS.values())


def test_a_receipt_explains_a_fill(full):
    first, second = decoded(BacktestRows(full, "full", "receipts", limit=2))
    assert (first["reason"], first["side"], first["liquidity"], first["reference"]) == ("entry", "buy", "taker", "open")
    assert (second["reason"], second["side"], second["liquidity"]) == ("take_profit", "sell", "maker")
    assert second["slippage"] == second["spread"] + second["impact"]
    assert second["model"] == "square_root"
    assert second["timestamp"] - second["decidedAt"] == 60_000
    assert (first["participation"], second["participation"]) == (0.5, None)
    assert decoded(BacktestRows(full, "full", "receipts"))[-1]["tradeId"] is None


# Formats.


@pytest.mark.parametrize("view", VIEWS)
def test_csv_and_arrow_have_the_rows_of_json(full, view):
    plain, in_arrow, in_csv = (
        make(BacktestRows(full, "full", view, limit=8_500)) for make in (decoded, arrow_pieces, csv_pieces)
    )
    table = pa.ipc.open_stream(b"".join(in_arrow)).read_all()
    lines = list(csv.DictReader(io.StringIO(b"".join(in_csv).decode())))
    assert table.column_names == list(plain[0]) == list(lines[0])
    assert len(lines) == len(plain) == table.num_rows
    times = {column.name for column in columns(view) if column.kind == "time"}
    for name in plain[0]:
        expected = [row[name] for row in plain]
        if name in times:
            assert table[name].cast(pa.int64()).to_numpy() // 1_000_000 == pytest.approx(expected)
            written = np.array([line[name].removesuffix("Z") for line in lines], dtype="datetime64[ms]")
            assert written.astype(np.int64).tolist() == expected
        else:
            assert table[name].to_pylist() == expected
            as_text = {None: "", True: "true", False: "false"}
            for row, line in list(zip(expected, lines, strict=True))[:50]:
                is_number = isinstance(row, (int, float)) and not isinstance(row, bool)
                assert (float(line[name]) if is_number else line[name]) == (row if is_number else as_text.get(row, row))


@pytest.mark.parametrize("view", VIEWS)
def test_a_backtest_that_did_nothing_has_empty_tables(env, view):
    store(env, "idle")
    names = [column.name for column in columns(view)]
    assert json.loads(b"".join(json_list(BacktestRows(env, "idle", view)))) == {"results": [], "next_cursor": None}
    assert b"".join(csv_pieces(BacktestRows(env, "idle", view))).decode() == ",".join(names) + "\n"
    table = pa.ipc.open_stream(b"".join(arrow_pieces(BacktestRows(env, "idle", view)))).read_all()
    assert (table.column_names, table.num_rows) == (names, 0)


@pytest.mark.parametrize("view", VIEWS)
def test_no_step_of_a_walk_is_long(full, view):
    sizes = [next(iter(block.values())).size for block in BacktestRows(full, "full", view).blocks()]
    assert max(sizes) <= 8_192
    assert len(sizes) >= 2


# Pages.


def pages(env, view, limit, **options):
    """Walk a view page by page."""
    cursor = None
    while True:
        page = json.loads(b"".join(json_list(BacktestRows(env, "full", view, limit=limit, cursor=cursor, **options))))
        yield page["results"]
        cursor = page["next_cursor"]
        if cursor is None:
            return


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("limit", [7_001, 8_192, 65_536, 70_000])
def test_pages_join_to_the_whole_list(full, view, limit):
    whole = decoded(BacktestRows(full, "full", view))
    found = list(pages(full, view, limit))
    assert list(itertools.chain(*found)) == whole
    assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
    assert found[-1]


def test_receipts_of_one_trade(full):
    found = decoded(BacktestRows(full, "full", "receipts", trade=8_999))
    assert [row["id"] for row in found] == [17_998, 17_999]
    assert [len(page) for page in pages(full, "receipts", 1, trade=8_999)] == [1, 1]
    assert decoded(BacktestRows(full, "full", "receipts", trade=999_999)) == []


def test_a_cursor_of_another_list_is_refused(full):
    store(full, "other", trades(10))
    mine = Cursor("full", "trades", None, 5).encode()
    assert decoded(BacktestRows(full, "full", "trades", cursor=mine, limit=1))[0]["id"] == 5
    assert refused(BacktestRows, full, "other", "trades", cursor=mine) is Code.INVALID_CURSOR
    assert refused(BacktestRows, full, "full", "receipts", cursor=mine) is Code.INVALID_CURSOR
    of_trade = Cursor("full", "receipts", 3, 5).encode()
    assert refused(BacktestRows, full, "full", "receipts", cursor=of_trade) is Code.INVALID_CURSOR


@pytest.mark.parametrize("text", ["", "x", "full", "ä", "AAAA", "lbBi", "!" * 5_000])
def test_what_is_no_cursor_is_refused(full, text):
    assert refused(BacktestRows, full, "full", "trades", cursor=text) is Code.INVALID_CURSOR


@pytest.mark.parametrize("row", [-1, 0, TRADES, 1 << 62])
def test_a_place_that_no_page_ends_at_is_refused(full, row):
    assert refused(BacktestRows, full, "full", "trades", cursor=Cursor("full", "trades", None, row).encode()) is (
        Code.INVALID_CURSOR
    )


# What is not there.


@pytest.mark.parametrize("status", ["queued", "running", "failed", "cancelled"])
def test_rows_and_result_of_what_did_not_complete_are_refused(env, status):
    store(env, "half", status=status)
    assert refused(BacktestRows, env, "half", "trades") is Code.BACKTEST_NOT_FINISHED
    assert refused(b"".join, result_pieces(env, "half")) is Code.BACKTEST_NOT_FINISHED


def test_an_unknown_backtest_is_not_found(env):
    assert refused(BacktestRows, env, "nothing", "trades") is Code.BACKTEST_NOT_FOUND
    assert refused(b"".join, result_pieces(env, "nothing")) is Code.BACKTEST_NOT_FOUND


def test_a_backtest_that_is_deleted_under_a_reader_ends_the_walk_with_the_reason(env):
    store(env, "gone", trades(70_000))
    blocks = BacktestRows(env, "gone", "trades").blocks()
    next(blocks)
    env.write(lambda transaction: records.remove(transaction, "gone"))
    assert refused(list, blocks) is Code.BACKTEST_NOT_FOUND


def test_a_chunk_that_is_missing_is_damage(env):
    store(env, "torn", trades(70_000))
    prefix = b"\0backtest\0torn\0trades\0"
    env.write(lambda transaction: transaction.delete("results", prefix + (1).to_bytes(4, "big")))
    assert refused(list, BacktestRows(env, "torn", "trades").blocks()) is Code.STORE_CORRUPT


# The whole result.


def test_a_result_leaves_as_it_was_stored(env):
    points = [
        results.EquityPoint(timestamp=at, equity=at / 3, cash=0.1, positions_value=float("nan"), unrealized_pnl=0.0)
        for at in range(3_000)
    ]
    changed = {"name": 'quotes " and\nlines', "equity_curve": points}
    store(env, "whole", **changed)
    text = b"".join(result_pieces(env, "whole"))
    assert msgspec.json.decode(text) == msgspec.json.decode(msgspec.json.encode(result_of("whole", **changed)))
    assert json.loads(text)["exposurePercent"] is None
    lines = text.decode().splitlines()
    assert sum(line.startswith(('{"timestamp"', '"equityCurve": [{"timestamp"')) for line in lines) == 3_000


# What the verdict rests on.


def test_a_verdict_and_its_parts_are_read_by_themselves(env):
    store(env, "judged", **sample_validation())
    with env.read() as transaction:
        assert records.stored_validation(transaction, "judged") == ValidationResult(**sample_validation())


def test_what_was_not_asked_for_is_none_beside_a_verdict(env):
    verdict = sample_validation()["verdict"]
    store(env, "bare", verdict=verdict)
    with env.read() as transaction:
        assert records.stored_validation(transaction, "bare") == ValidationResult(verdict=verdict)


def test_a_result_without_a_verdict_has_no_validation(env):
    store(env, "old")
    with env.read() as transaction:
        assert refused(records.stored_validation, transaction, "old") is Code.NO_VALIDATION
        assert refused(records.stored_validation, transaction, "never") is Code.BACKTEST_NOT_FOUND


# Differences.


def test_the_same_backtest_twice_differs_in_nothing(env):
    store(env, "a", trades(100), fills(10), equity(10))
    store(env, "b", trades(100), fills(10), equity(10))
    found = compare(env, "a", "b")
    assert (found.is_same, found.trade) == (True, None)
    assert all(each.first == each.second for each in found.differences)
    assert {each.section for each in found.differences}.isdisjoint({"engine", "configuration", "data"})


def test_a_difference_is_named_by_its_path_and_the_first_trade_that_shows_it(env):
    pnl = trades(100)["pnl"]
    store(env, "a", trades(100))
    store(
        env,
        "b",
        trades(100, pnl=np.where(np.arange(100) < 60, pnl, pnl + 1)),
        resolved={"costs": {"taker_rate": 0.002}, "markets": [{"tick_size": 0.1}, {"tick_size": 0.2}]},
        fingerprint="e" * 32,
    )
    found = compare(env, "a", "b")
    assert (found.is_same, found.trade) == (False, 60)
    sections = {(each.section, each.field): (each.first, each.second) for each in found.differences}
    assert sections["configuration", "costs.taker_rate"] == (0.001, 0.002)
    assert sections["configuration", "markets[1].tick_size"] == (None, 0.2)
    assert ("configuration", "markets[0].tick_size") not in sections
    assert {field for section, field in sections if section == "trade 60"} == {"pnl"}
    assert ("engine", "fingerprint") in sections


def test_trades_that_only_one_of_two_made_are_told(env):
    store(env, "a", trades(70))
    store(env, "b", trades(50, is_end=np.zeros(50, dtype=bool)))
    found = compare(env, "a", "b")
    assert found.trade == 50
    assert all(each.second is None for each in found.differences if each.section == "trade 50")
