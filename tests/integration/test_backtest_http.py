"""Backtests over HTTP: their life from the configuration to the report, every format, every refusal."""

import csv
import http.client
import io
import json
import time
import urllib.parse

import msgspec
import pyarrow as pa
import pytest

from daemon.research import backtest_records as records
from daemon.research.backtest_result import BacktestResult, BacktestStatus, EquityPoint, Receipt, Trade
from daemon.store.env import Environment, StoreConfig

BACKTEST = "/api/v1/backtest"
CONFIG = {
    "strategy": {
        "name": "momentum_breakout",
        "entryRules": [
            {"indicator": "rsi", "condition": "crosses_above", "value": 30},
            {"indicator": "volume", "condition": "greater_than", "value": "sma_20"},
        ],
        "exitRules": [
            {"type": "take_profit", "value": 0.02},
            {"type": "stop_loss", "value": 0.05},
            {"type": "trailing_stop", "activation": 0.01, "distance": 0.005},
        ],
    },
    "backtest": {
        "startDate": "2024-01-02",
        "endDate": "2024-01-10",
        "symbols": ["SYNA", "SYNB"],
        "timeframe": "1h",
        "initialCapital": 10000,
        "commission": 0.001,
        "slippageModel": "volume_weighted",
    },
}
ROUTES = [
    ("GET", ""),
    ("GET", "/status"),
    ("GET", "/trades"),
    ("GET", "/receipts"),
    ("GET", "/equity"),
    ("GET", "/validation"),
    ("GET", "/report"),
    ("POST", "/cancel"),
    ("DELETE", ""),
]


def with_field(path, value):
    """The configuration with one field changed."""
    changed = json.loads(json.dumps(CONFIG))
    inside = changed
    *way, last = path.split(".")
    for name in way:
        inside = inside[name]
    inside[last] = value
    return changed


def raw(daemon, path, **headers):
    """An answer's status, headers and bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.ready["port"], timeout=30)
    try:
        connection.request("GET", BACKTEST + path, headers=daemon.bearer | headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def ask(daemon, path, method="GET", body=None):
    return daemon.request(method, BACKTEST + path, body)


def refusal(daemon, path, method="GET", body=None, headers=None):
    answer = daemon.request(method, BACKTEST + path, body, headers)
    assert set(answer.body["error"]) == {"code", "message", "details"}
    return answer.status, answer.body["error"]["code"]


def submit(daemon, body=CONFIG):
    answer = ask(daemon, "/run", "POST", body)
    assert answer.status == 202, answer.body
    return answer.body["id"]


def finish(daemon, body=CONFIG):
    """Run a backtest to its end; returns its last state."""
    backtest_id = submit(daemon, body)
    deadline = time.monotonic() + 60
    while (status := ask(daemon, f"/{backtest_id}/status").body)["completedAt"] is None:
        assert time.monotonic() < deadline, status
        time.sleep(0.01)
    return status


def walk(daemon, path, **query):
    """Every row of a list, page by page."""
    rows, cursor = [], None
    while True:
        given = {**query} | ({} if cursor is None else {"cursor": cursor})
        answer = ask(daemon, f"{path}?{urllib.parse.urlencode(given)}")
        assert answer.status == 200, answer.body
        rows += answer.body["results"]
        cursor = answer.body["next_cursor"]
        if cursor is None:
            return rows
        assert len(answer.body["results"]) == query["limit"]


@pytest.fixture(scope="module")
def done(daemon):
    """The id of a completed backtest."""
    status = finish(daemon)
    assert status["status"] == "completed", status
    return status["id"]


# Its life.


def test_a_backtest_is_accepted_then_completes_with_the_result_of_the_contract(daemon):
    answer = ask(daemon, "/run", "POST", CONFIG)
    assert answer.status == 202
    assert answer.body == {"id": answer.body["id"], "status": "queued", "priority": "normal"}
    status = finish(daemon)
    assert (status["status"], status["progress"], status["symbols"]) == (
        "completed",
        100.0,
        ["local:SYNA", "local:SYNB"],
    )
    found = ask(daemon, f"/{status['id']}")
    result = msgspec.convert(found.body, BacktestResult, strict=False)
    assert found.status == 200
    assert set(found.body) == set(BacktestResult.__struct_encode_fields__)
    assert (result.id, result.status, result.fingerprint) == (status["id"], "completed", status["fingerprint"])
    assert len(result.trades) == result.trade_stats.total_trades == status["totalTrades"] > 0


def test_an_envelope_gives_priority_and_name(daemon):
    answer = ask(daemon, "/run", "POST", {"config": CONFIG, "priority": "high", "name": "mine"})
    assert (answer.status, answer.body["priority"]) == (202, "high")
    assert ask(daemon, f"/{answer.body['id']}/status").body["name"] == "mine"


def test_the_same_configuration_has_the_same_fingerprint(daemon, done):
    assert finish(daemon)["fingerprint"] == ask(daemon, f"/{done}").body["fingerprint"]


def test_backtests_that_wait_can_be_cancelled_once(daemon):
    paths = {"monteCarlo": {"enabled": True, "iterations": 300_000}}
    for _ in range(8):  # both workers are busy with these
        submit(daemon, {"config": CONFIG | {"validation": paths}})
    last = submit(daemon, {"config": CONFIG, "priority": "low"})
    cancelled = ask(daemon, f"/{last}/cancel", "POST", {})
    assert (cancelled.status, cancelled.body["status"], cancelled.body["errorCode"]) == (200, "cancelled", "CANCELLED")
    assert refusal(daemon, f"/{last}/cancel", "POST", {}) == (409, "BACKTEST_FINISHED")
    found = ask(daemon, f"/{last}")
    assert (found.status, found.body["status"]) == (200, "cancelled")
    assert msgspec.convert(found.body, BacktestStatus).id == last
    for path in ("/trades", "/receipts", "/equity", "/validation", "/report", "/report?format=pdf"):
        assert refusal(daemon, f"/{last}{path}") == (409, "BACKTEST_NOT_FINISHED")
    assert last in [each["id"] for each in walk(daemon, "", limit=7, status="cancelled")]
    assert ask(daemon, f"/{last}", "DELETE").status == 204


def test_a_completed_backtest_cannot_be_cancelled(daemon, done):
    assert refusal(daemon, f"/{done}/cancel", "POST", {}) == (409, "BACKTEST_FINISHED")


def test_a_deleted_backtest_is_gone(daemon):
    gone = finish(daemon)["id"]
    answer = ask(daemon, f"/{gone}", "DELETE")
    assert (answer.status, answer.body) == (204, None)
    assert refusal(daemon, f"/{gone}", "DELETE") == (404, "BACKTEST_NOT_FOUND")
    assert refusal(daemon, f"/{gone}/trades") == (404, "BACKTEST_NOT_FOUND")
    assert gone not in [each["id"] for each in walk(daemon, "", limit=1_000)]


# Rows.


def test_trades_come_in_pages_and_as_csv(daemon, done):
    whole = ask(daemon, f"/{done}/trades").body["results"]
    assert whole == ask(daemon, f"/{done}").body["trades"]
    assert msgspec.convert(whole, list[Trade], strict=False)
    assert walk(daemon, f"/{done}/trades", limit=3) == whole
    status, headers, body = raw(daemon, f"/{done}/trades?format=csv")
    lines = list(csv.DictReader(io.StringIO(body.decode())))
    assert (status, headers["Content-Type"]) == (200, "text/csv; charset=utf-8")
    assert [float(line["pnl"]) for line in lines] == [row["pnl"] for row in whole]
    assert all(line["entryTime"].endswith("Z") for line in lines)


def test_every_fill_of_a_trade_has_its_receipt(daemon, done):
    receipts = ask(daemon, f"/{done}/receipts").body["results"]
    assert msgspec.convert(receipts, list[Receipt], strict=False)
    trades = ask(daemon, f"/{done}/trades").body["results"]
    for trade in trades:
        of_trade = walk(daemon, f"/{done}/receipts", trade=trade["id"], limit=1)
        assert of_trade == [each for each in receipts if each["tradeId"] == trade["id"]]
        assert {each["symbol"] for each in of_trade} == {trade["symbol"]}


def test_equity_is_whole_in_every_format(daemon, done):
    whole = ask(daemon, f"/{done}/equity").body
    points = msgspec.convert(whole["results"], list[EquityPoint], strict=False)
    assert (len(points), whole["next_cursor"]) == (9 * 24, None)
    table = pa.ipc.open_stream(raw(daemon, f"/{done}/equity?format=arrow")[2]).read_all()
    assert table["equity"].to_pylist() == [point.equity for point in points]
    assert table["timestamp"].type == pa.timestamp("ns", tz="UTC")
    lines = list(csv.DictReader(io.StringIO(raw(daemon, f"/{done}/equity?format=csv")[2].decode())))
    assert [float(line["cash"]) for line in lines] == [point.cash for point in points]
    assert walk(daemon, f"/{done}/equity", limit=100) == whole["results"]


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_rows_are_compressed_where_the_client_can(daemon, done, coding):
    _, headers, body = raw(daemon, f"/{done}/equity", **{"Accept-Encoding": coding})
    assert headers["Content-Encoding"] == coding
    assert len(body) < len(raw(daemon, f"/{done}/equity")[2]) / 3


# Reports.


def test_the_report_is_a_file_that_cannot_reach_the_daemon(daemon):
    name = "<script>alert(1)</script>"
    backtest_id = finish(daemon, {"config": CONFIG, "name": name})["id"]
    status, headers, body = raw(daemon, f"/{backtest_id}/report?format=html")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Content-Disposition"] == f'attachment; filename="backtest-{backtest_id}.html"'
    assert headers["X-Content-Type-Options"] == "nosniff"
    policy = [part.strip() for part in headers["Content-Security-Policy"].split(";")]
    assert {"sandbox allow-scripts", "default-src 'none'"} <= set(policy)
    page = body.decode()
    assert page.lower().startswith("<!doctype html>")
    assert "alert(1)" in page
    assert name not in page


def test_the_report_as_pdf_is_one_whole_file(daemon, done):
    status, headers, body = raw(daemon, f"/{done}/report?format=pdf")
    assert (status, headers["Content-Type"]) == (200, "application/pdf")
    assert headers["Content-Disposition"] == f'attachment; filename="backtest-{done}.pdf"'
    assert headers["Content-Security-Policy"].startswith("sandbox ")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert body.startswith(b"%PDF-")
    assert body.rstrip().endswith(b"%%EOF")
    assert body == raw(daemon, f"/{done}/report?format=pdf")[2]


def test_the_validation_is_that_part_of_the_result(daemon, done):
    result = ask(daemon, f"/{done}").body
    found = ask(daemon, f"/{done}/validation")
    assert found.status == (200 if result["verdict"] else 404)
    if result["verdict"] is None:
        assert found.body["error"]["code"] == "NO_VALIDATION"
    else:
        names = ("verdict", "walkForward", "overfitting", "monteCarlo", "sensitivity", "lookAhead")
        assert found.body == {name: result[name] for name in names}


def test_reports_as_json_and_csv_are_the_result_and_the_trades(daemon, done):
    _, headers, body = raw(daemon, f"/{done}/report?format=json")
    assert headers["Content-Disposition"] == f'attachment; filename="backtest-{done}.json"'
    assert json.loads(body) == ask(daemon, f"/{done}").body
    _, headers, body = raw(daemon, f"/{done}/report?format=csv")
    assert headers["Content-Disposition"] == f'attachment; filename="backtest-{done}.csv"'
    assert body == raw(daemon, f"/{done}/trades?format=csv")[2]


# What is refused.


@pytest.mark.parametrize(
    "body", [b"", b"{", b"nonsense", b'{"strategy": NaN}', b"\xff\xfe", b'{"a": ' + b"[" * 100_000]
)
def test_a_body_that_is_not_json_is_told_so(daemon, body):
    assert refusal(daemon, "/run", "POST", body, {"Content-Type": "application/json"}) == (400, "INVALID_JSON")


@pytest.mark.parametrize(
    "body",
    [
        [],
        "text",
        None,
        7,
        {"config": CONFIG, "priority": "urgent"},
        {"config": CONFIG, "priority": None},
        {"config": CONFIG, "priorty": "low"},
        {"config": [], "priority": "low"},
        {"config": "file.json"},
    ],
    ids=str,
)
def test_a_body_that_is_no_configuration_is_refused(daemon, body):
    content = json.dumps(body).encode()
    assert refusal(daemon, "/run", "POST", content, {"Content-Type": "application/json"}) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize(
    ("path", "value", "status"),
    [
        ("backtest.initialCapital", -1, 400),
        ("backtest.commission", 2, 400),
        ("backtest.symbols", ["NOTHING"], 404),
        ("backtest.timeframe", "7h", 400),
        ("backtest.startDate", "2025-01-01", 400),
        ("backtest.slippageModel", "magic", 400),
        ("backtest.surprise", 1, 400),
    ],
    ids=str,
)
def test_a_configuration_with_a_wrong_field_is_refused_and_names_it(daemon, path, value, status):
    answer = ask(daemon, "/run", "POST", with_field(path, value))
    assert answer.status == status, answer.body
    assert path.split(".")[-1] in answer.body["error"]["message"] + str(answer.body["error"]["details"])


def test_an_empty_configuration_is_refused(daemon):
    assert refusal(daemon, "/run", "POST", {})[0] == 400


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=" ".join)
@pytest.mark.parametrize("backtest_id", ["nothing", "..%2f..%2fetc", "%00", "a" * 400])
def test_an_unknown_backtest_is_not_found(daemon, method, path, backtest_id):
    body = {} if method == "POST" else None
    assert refusal(daemon, f"/{backtest_id}{path}", method, body) == (404, "BACKTEST_NOT_FOUND")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/trades?format=xml", "INVALID_REQUEST"),
        ("/equity?format=parquet", "INVALID_REQUEST"),
        ("/report?format=xml", "INVALID_REQUEST"),
        ("/validation?format=json", "INVALID_REQUEST"),
        ("/report?format=arrow", "INVALID_REQUEST"),
        ("/trades?limit=0", "INVALID_REQUEST"),
        ("/trades?limit=-1", "INVALID_REQUEST"),
        ("/trades?limit=many", "INVALID_REQUEST"),
        ("/trades?trade=1", "INVALID_REQUEST"),
        ("/receipts?trade=one", "INVALID_REQUEST"),
        ("/trades?limit=1&limit=2", "INVALID_REQUEST"),
        ("/equity?symbol=SYNA", "INVALID_REQUEST"),
        ("?full=1", "INVALID_REQUEST"),
        ("/status?full=1", "INVALID_REQUEST"),
        ("/trades?cursor=nonsense", "INVALID_CURSOR"),
    ],
)
def test_a_wrong_parameter_is_refused(daemon, done, path, code):
    assert refusal(daemon, f"/{done}{path}") == (400, code)


def test_a_cursor_of_another_list_is_refused(daemon, done):
    cursor = ask(daemon, f"/{done}/trades?limit=1").body["next_cursor"]
    other = finish(daemon)["id"]
    for path in (f"/{done}/receipts", f"/{done}/equity", f"/{other}/trades"):
        assert refusal(daemon, f"{path}?cursor={cursor}") == (400, "INVALID_CURSOR")
    assert refusal(daemon, f"?cursor={cursor}") == (400, "INVALID_CURSOR")


@pytest.mark.parametrize("query", ["status=done", "status=", "limit=0", "page=2"])
def test_a_list_with_a_wrong_parameter_is_refused(daemon, query):
    assert refusal(daemon, f"?{query}") == (400, "INVALID_REQUEST")


@pytest.mark.parametrize(("method", "path"), [("POST", "/run"), *ROUTES], ids=" ".join)
def test_every_route_is_behind_the_guards(daemon, done, method, path):
    target = path if path == "/run" else f"/{done}{path}"
    assert refusal(daemon, target, method, headers={"Host": "evil.example"}) == (403, "HOST_NOT_ALLOWED")
    if method == "POST":
        headers = {"Content-Type": "text/plain"}
        assert refusal(daemon, target, method, b"{}", headers) == (415, "UNSUPPORTED_MEDIA_TYPE")


def test_health_answers_under_the_apps_address_as_well(daemon):
    answer = daemon.request("GET", "/api/v1/health")
    assert (answer.status, answer.body["status"]) == (200, "ok")


# Many.


def test_ten_thousand_backtests_are_listed_page_by_page(serve, tmp_path):
    folder = tmp_path / "data"
    count = 10_000

    def fill(transaction):
        for number in range(count):
            status = BacktestStatus(
                id=f"b{number}", name="many", status="failed" if number % 4 else "cancelled", priority="normal",
                progress=0.0, created_at=number, completed_at=number, symbols=["local:SYNA"], timeframe="1Hour",
            )  # fmt: skip
            records.put_state(transaction, records.StoredBacktest(number, 0, status))

    folder.mkdir()
    with Environment(folder, StoreConfig()) as env:
        env.write(fill)
    daemon = serve(folder)
    newest_first = [f"b{number}" for number in reversed(range(count))]
    assert [each["id"] for each in walk(daemon, "", limit=2_500)] == newest_first
    first = ask(daemon, "").body
    assert (len(first["results"]), first["next_cursor"]) == (1_000, newest_first[999])
    cancelled = walk(daemon, "", limit=1_000, status="cancelled")
    assert [each["id"] for each in cancelled] == [f"b{number}" for number in reversed(range(0, count, 4))]
    assert ask(daemon, "?status=completed").body == {"results": [], "next_cursor": None}
    daemon.end()
