"""The HTTP interface, asked by a client over a socket: every route, every refusal, and the life of a run."""

import http.client
import json
import re
import socket
import urllib.parse
from pathlib import Path

import pytest

import daemon as package

RUNS = "/api/v1/runs"
SMALL = {"symbols": ["SYNA"], "timeframes": ["1Hour"]}

ROUTES = [
    ("GET", "/health"),
    ("POST", RUNS),
    ("GET", RUNS),
    ("GET", f"{RUNS}/pages"),
    ("DELETE", f"{RUNS}/pages"),
    ("GET", f"{RUNS}/pages/results"),
    ("GET", f"{RUNS}/pages/trades"),
    ("GET", "/api/v1/strategies"),
    ("GET", "/api/v1/strategies/1"),
    ("POST", "/api/v1/imports"),
]

GROUP_FIELDS = [
    "run_id",
    "symbol",
    "strategy_id",
    "strategy_name",
    "timeframe",
    "risk_profile",
    "open_day",
    "open_hour",
    "long_short",
    "num_trades",
    "pnl_mean",
    "pnl_std",
    "max_drawdown",
    "max_profit",
    "period_start",
    "period_end",
    "p_adjusted",
    "false_discovery",
]
TRADE_FIELDS = [
    "strategy_id",
    "strategy_name",
    "symbol",
    "timeframe",
    "risk_profile",
    "entry_time",
    "exit_time",
    "entry_price",
    "exit_price",
    "direction",
    "pnl",
    "pnl_pct",
    "bars_held",
    "max_drawdown",
    "max_profit",
    "pnl_std",
    "exit_reason",
]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@pytest.fixture(scope="module")
def pages(daemon):
    """A run of four jobs in eight batches: ten strategies first, the others under the same id."""
    request = {"symbols": ["SYNA", "SYNB"], "timeframes": ["1Hour", "1Day"], "persist_trades": True, "run_id": "pages"}
    daemon.finish_run(**request, strategy_ids=list(range(1, 11)))
    daemon.finish_run(**request)
    return daemon


@pytest.fixture(scope="module")
def long(daemon, cli, long_file):
    """The daemon with a series long enough to meet a run at work."""
    done = cli("import", "bars", long_file, "--symbol", "LONG", "--timeframe", "1Min", "--data-dir", daemon.folder)
    assert done.returncode == 0, done.stderr
    return daemon


def code_of(answer):
    """The error's code, after looking at the shape of the body."""
    assert answer.headers["Content-Type"].startswith("application/json")
    assert set(answer.body) == {"error"}
    assert set(answer.body["error"]) == {"code", "message", "details"}
    assert answer.body["error"]["message"]
    return answer.body["error"]["code"]


def refusal(daemon, method, path, body=None, headers=None):
    answer = daemon.request(method, path, body, headers)
    return answer.status, code_of(answer)


def walk(daemon, path, limit, **query):
    """Every row of a list, `limit` at a time; no page but the last is short."""
    rows, cursor = [], None
    while True:
        given = {**query, "limit": limit} | ({} if cursor is None else {"cursor": cursor})
        body = daemon.request("GET", f"{path}?{urllib.parse.urlencode(given)}").body
        rows += body["results"]
        cursor = body["next_cursor"]
        if cursor is None:
            return rows
        assert len(body["results"]) == limit


# What the routes answer.


def test_health_tells_version_strategies_and_uptime(daemon):
    answer = daemon.request("GET", "/health")
    told = {name: answer.body[name] for name in ("version", "strategies_loaded")}
    assert (answer.status, told) == (200, {"version": package.__version__, "strategies_loaded": 100})
    assert isinstance(answer.body["uptime_seconds"], int)


def test_a_submitted_run_is_accepted_with_an_estimate(daemon):
    body = {
        "symbols": ["SYNA", "SYNB"],
        "timeframes": ["1Hour", "1Day"],
        "risk_profiles": ["low", "medium", "high"],
        "strategy_ids": None,
        "start_date": "2024-01-01",
        "end_date": "2024-12-31",
        "persist_trades": False,
        "run_id": None,
    }
    answer = daemon.request("POST", RUNS, body)
    run_id = answer.body["run_id"]
    assert answer.status == 202
    assert answer.body == {"run_id": run_id, "status": "queued", "total_combinations": 1200, "estimated_seconds": 1}
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,50}", run_id)
    assert daemon.wait(run_id)["status"] == "completed"


def test_a_completed_run_tells_progress_and_a_summary(pages):
    run = pages.run_status("pages")
    elapsed = run["progress"]["elapsed_seconds"]
    groups = pages.rows(f"{RUNS}/pages/results", limit=1_000_000)
    trades = pages.rows(f"{RUNS}/pages/trades", limit=1_000_000)
    assert (run["run_id"], run["status"], run["error"]) == ("pages", "completed", None)
    assert run["progress"] == {"completed": 1200, "total": 1200, "elapsed_seconds": elapsed, "seconds_left": None}
    assert run["summary"] == {
        "total_combinations": 1200,
        "total_trades": len(trades),
        "total_result_records": len(groups),
        "elapsed_seconds": elapsed,
    }
    assert sum(group["num_trades"] for group in groups) == len(trades) > 0
    assert [note.partition(":")[2][:10] for note in run["notes"]] == ["SYNA 1Day:", "SYNB 1Day:"]
    assert TIME.fullmatch(run["created_at"])
    assert TIME.fullmatch(run["finished_at"])


def test_group_rows_have_the_documented_fields_in_order(pages):
    body = pages.request("GET", f"{RUNS}/pages/results").body
    assert list(body) == ["results", "next_cursor"]
    assert len(body["results"]) == 1000
    for row in body["results"]:
        assert list(row) == GROUP_FIELDS
        assert row["run_id"] == "pages"
        assert row["long_short"] in ("long", "short")
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", row["open_day"])
        assert 0 <= row["open_hour"] <= 23
        assert TIME.fullmatch(row["period_start"])
        assert TIME.fullmatch(row["period_end"])
        if row["p_adjusted"] is not None:
            assert 0 <= row["p_adjusted"] <= 1
            assert 0 <= row["false_discovery"] <= 1
    assert {type(row["p_adjusted"]) for row in pages.rows(f"{RUNS}/pages/results", limit=1_000_000)} == {
        float,
        type(None),
    }


def test_corrected_values_are_the_same_on_every_page_and_under_every_filter(pages):
    def values(found):
        names = "symbol", "timeframe", "strategy_id", "risk_profile", "p_adjusted", "false_discovery"
        return {tuple(row[name] for name in names) for row in found}

    path = f"{RUNS}/pages/results"
    whole = values(pages.rows(path, limit=1_000_000))
    assert len(whole) == len({each[:4] for each in whole})
    assert values(walk(pages, path, 4_000)) == whole
    for filters in ({"symbol": "SYNB"}, {"timeframe": "1Day"}, {"strategy_id": 11}, {"risk_profile": "low"}):
        part = values(pages.rows(path, limit=1_000_000, **filters))
        assert part
        assert part < whole


def test_trade_rows_have_the_documented_fields_in_order(pages):
    for row in pages.rows(f"{RUNS}/pages/trades", limit=500):
        assert list(row) == TRADE_FIELDS
        assert row["entry_time"] < row["exit_time"]
        assert row["pnl"] == row["pnl_pct"] * row["entry_price"]
        assert row["exit_reason"] in ("signal_exit", "stop_loss", "target", "trailing_stop", "time_stop")


def test_trades_say_why_they_were_made_when_asked(pages):
    rows = pages.rows(f"{RUNS}/pages/trades", limit=3000, justify=1)
    assert list(rows[0]) == [*TRADE_FIELDS, "entry_justification", "exit_justification"]
    by_reason = {row["exit_reason"]: row for row in rows}
    assert set(by_reason) == {"signal_exit", "stop_loss", "target", "trailing_stop", "time_stop"}
    for row in rows:
        side = "Long" if row["direction"] == "long" else "Short"
        assert row["entry_justification"].startswith(f"{side} at the open, because")
    assert "ATR" in by_reason["stop_loss"]["exit_justification"]
    assert by_reason["signal_exit"]["exit_justification"].startswith("Left at the close, because")
    assert pages.rows(f"{RUNS}/pages/trades", limit=1, justify=0)[0].keys() == set(TRADE_FIELDS)


def test_a_run_without_stored_trades_lists_none(daemon):
    daemon.finish_run(**SMALL, run_id="no-trades")
    answer = daemon.request("GET", f"{RUNS}/no-trades/trades")
    assert (answer.status, answer.body) == (200, {"results": [], "next_cursor": None})


def test_runs_are_listed_newest_first_and_in_pages(daemon):
    for number in range(3):
        daemon.finish_run(**SMALL, strategy_ids=[1], run_id=f"listed-{number}")
    everything = daemon.rows(RUNS, limit=1000)
    assert [run["run_id"] for run in everything[:3]] == ["listed-2", "listed-1", "listed-0"]
    assert walk(daemon, RUNS, 1) == walk(daemon, RUNS, 2) == everything
    assert everything[0] == daemon.run_status("listed-2")


def test_strategies_are_listed_without_rules_and_by_category(daemon):
    answer = daemon.request("GET", "/api/v1/strategies")
    assert answer.body["next_cursor"] is None
    assert [each["id"] for each in answer.body["results"]] == list(range(1, 101))
    fields = ["id", "name", "display_name", "category", "direction", "philosophy", "tags"]
    assert all(list(each) == fields for each in answer.body["results"])
    trend = daemon.rows("/api/v1/strategies", category="trend")
    assert trend == [each for each in answer.body["results"] if each["category"] == "trend"] != []


def test_a_strategy_is_shown_with_its_rules(daemon):
    answer = daemon.request("GET", "/api/v1/strategies/11")
    assert (answer.status, answer.body["id"]) == (200, 11)
    assert {"entry_long", "exit_short", "atr_stop_mult", "required_indicators"} <= set(answer.body)


# Pages.


@pytest.mark.parametrize(
    ("route", "limit", "filters"),
    [
        ("results", 7, {"strategy_id": 11, "risk_profile": "low"}),
        ("results", 1, {"strategy_id": 3, "timeframe": "1Day"}),
        ("results", 997, {}),
        ("results", 8192, {}),
        ("results", 8193, {"symbol": "SYNA"}),
        ("trades", 7, {"symbol": "local:synb", "strategy_id": 3, "risk_profile": "high"}),
        ("trades", 8192, {}),
        ("trades", 101, {"timeframe": "1Day", "justify": "1"}),
    ],
)
def test_pages_join_to_what_one_large_request_gives(pages, route, limit, filters):
    path = f"{RUNS}/pages/{route}"
    everything = pages.rows(path, **filters, limit=1_000_000)
    assert everything
    assert walk(pages, path, limit, **filters) == everything
    for row in everything:
        assert row["symbol"] == filters.get("symbol", row["symbol"]).rpartition(":")[2].upper()
        for name in ("timeframe", "strategy_id", "risk_profile"):
            assert row[name] == filters.get(name, row[name])


def test_filters_split_a_run_without_loss(pages):
    path = f"{RUNS}/pages/results"
    everything = pages.rows(path, limit=1_000_000)
    for name in ("symbol", "timeframe", "risk_profile"):
        values = {row[name] for row in everything}
        parts = [pages.rows(path, **{name: value}, limit=1_000_000) for value in sorted(values)]
        assert sum(map(len, parts)) == len(everything)


def test_a_page_that_ends_with_the_last_row_has_no_cursor(pages):
    path = f"{RUNS}/pages/results?strategy_id=3&risk_profile=low"
    count = len(pages.request("GET", path).body["results"])
    assert pages.request("GET", f"{path}&limit={count}").body["next_cursor"] is None
    assert pages.request("GET", f"{path}&limit={count - 1}").body["next_cursor"] is not None


def test_long_lists_are_streamed(pages):
    answer = pages.request("GET", f"{RUNS}/pages/results?limit=1000000")
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert "Content-Length" not in answer.headers


def test_a_list_whose_run_is_deleted_meanwhile_breaks_off(long):
    long.finish_run(symbols=["LONG"], timeframes=["1Min"], run_id="gone")
    connection = http.client.HTTPConnection("127.0.0.1", long.ready["port"], timeout=30)
    connection.request("GET", f"{RUNS}/gone/results?limit=1000000", headers=long.bearer)
    with connection.getresponse() as response:
        response.read(1000)
        assert long.request("DELETE", f"{RUNS}/gone?purge=1").status == 204
        with pytest.raises(http.client.IncompleteRead):
            response.read()
    connection.close()


# Requests that are refused.


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"symbols": ["XYZ"]}, 404, "INVALID_SYMBOL"),
        ({"symbols": ["not a symbol"]}, 400, "INVALID_SYMBOL"),
        ({"symbols": []}, 400, "INVALID_REQUEST"),
        ({"timeframes": ["2Hour"]}, 400, "INVALID_TIMEFRAME"),
        ({"timeframes": []}, 400, "INVALID_REQUEST"),
        ({"timeframes": ["1Min"]}, 404, "NO_BARS"),
        ({"risk_profiles": ["reckless"]}, 400, "INVALID_RISK_PROFILE"),
        ({"risk_profiles": []}, 400, "INVALID_REQUEST"),
        ({"strategy_ids": [1, 101]}, 404, "INVALID_STRATEGY"),
        ({"strategy_ids": [10**30]}, 404, "INVALID_STRATEGY"),
        ({"strategy_ids": []}, 400, "INVALID_REQUEST"),
        ({"strategy_ids": ["1"]}, 400, "INVALID_REQUEST"),
        ({"start_date": "2024-02-01", "end_date": "2024-01-31"}, 400, "INVALID_DATE_RANGE"),
        ({"start_date": "2024-13-01"}, 400, "INVALID_DATE_RANGE"),
        ({"start_date": "2024-W01-1"}, 400, "INVALID_DATE_RANGE"),
        ({"start_date": "20240101"}, 400, "INVALID_DATE_RANGE"),
        ({"start_date": ""}, 400, "INVALID_DATE_RANGE"),
        ({"start_date": "0001-01-01"}, 400, "INVALID_DATE_RANGE"),
        ({"end_date": "9999-12-31"}, 400, "INVALID_DATE_RANGE"),
        ({"start_date": "2030-01-01"}, 404, "NO_BARS"),
        ({"run_id": ""}, 400, "INVALID_RUN_ID"),
        ({"run_id": "a b"}, 400, "INVALID_RUN_ID"),
        ({"run_id": "é"}, 400, "INVALID_RUN_ID"),
        ({"run_id": "x" * 51}, 400, "INVALID_RUN_ID"),
        ({"persist_trades": 1}, 400, "INVALID_REQUEST"),
        ({"colour": "red"}, 400, "INVALID_REQUEST"),
        ({"symbols": "SYNA"}, 400, "INVALID_REQUEST"),
    ],
)
def test_a_run_that_cannot_be_is_refused(daemon, change, status, code):
    before = [run["run_id"] for run in daemon.rows(RUNS)]
    assert refusal(daemon, "POST", RUNS, SMALL | change) == (status, code)
    assert [run["run_id"] for run in daemon.rows(RUNS)] == before


def test_a_refusal_names_what_is_wrong(daemon):
    assert "XYZ" in daemon.request("POST", RUNS, SMALL | {"symbols": ["XYZ"]}).body["error"]["message"]
    assert "`colour`" in daemon.request("POST", RUNS, SMALL | {"colour": 1}).body["error"]["message"]
    assert "timeframes" in daemon.request("POST", RUNS, {"symbols": ["SYNA"]}).body["error"]["message"]


def test_a_symbol_of_several_venues_needs_its_venue(daemon, cli, bars_files):
    path = bars_files["SYNB", "1Hour"]
    for venue in ("here", "there"):
        options = ("--symbol", "TWO", "--timeframe", "1Hour", "--venue", venue, "--data-dir", daemon.folder)
        assert cli("import", "bars", path, *options).returncode == 0
    answer = daemon.request("POST", RUNS, SMALL | {"symbols": ["TWO"]})
    assert (answer.status, code_of(answer)) == (400, "AMBIGUOUS_SYMBOL")
    assert answer.body["error"]["details"]["choices"] == ["here:TWO", "there:TWO"]
    assert daemon.finish_run(symbols=["there:two"], timeframes=["1Hour"])["symbols"] == ["there:TWO"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "INVALID_JSON"),
        (b"{", "INVALID_JSON"),
        (b'{"symbols":["SYNA"],"timeframes":["1Hour"]} x', "INVALID_JSON"),
        (b'{"symbols":["\xff"],"timeframes":["1Hour"]}', "INVALID_JSON"),
        (b'{"symbols":["\\ud800"],"timeframes":["1Hour"]}', "INVALID_JSON"),
        (b"\xff\xfe{\x00}\x00", "INVALID_JSON"),
        (b"null", "INVALID_REQUEST"),
        (b"[]", "INVALID_REQUEST"),
        (b"[" * 100_000, "INVALID_REQUEST"),
        (b'{"symbols":' + b"[" * 100_000, "INVALID_REQUEST"),
        (b'{"deep":' + b'{"a":' * 100_000, "INVALID_REQUEST"),
    ],
    ids=range(11),
)
def test_a_body_that_is_no_request_is_refused(daemon, body, code):
    assert refusal(daemon, "POST", RUNS, body) == (400, code)


def test_a_body_of_more_than_a_megabyte_is_too_large(daemon):
    assert refusal(daemon, "POST", RUNS, b" " * (1024 * 1024 + 1)) == (413, "BODY_TOO_LARGE")
    assert refusal(daemon, "POST", RUNS, b" " * 1024 * 1024) == (400, "INVALID_JSON")


def test_a_body_in_a_broken_encoding_is_refused(daemon):
    assert refusal(daemon, "POST", RUNS, b"{}", {"Content-Encoding": "gzip"}) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json"])
def test_a_body_of_another_content_type_is_refused(daemon, kind):
    assert refusal(daemon, "POST", RUNS, SMALL, {"Content-Type": kind}) == (415, "UNSUPPORTED_MEDIA_TYPE")


def test_a_body_without_content_type_is_refused(daemon):
    with socket.create_connection(("127.0.0.1", daemon.ready["port"]), timeout=30) as plain:
        shown = f"Authorization: Bearer {daemon.token}\r\nConnection: close"
        request = f"POST {RUNS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n{shown}\r\n\r\n{{}}"
        plain.sendall(request.encode())
        with plain.makefile("rb") as answer:
            assert answer.readline().startswith(b"HTTP/1.1 415")


def test_a_content_type_may_name_its_charset(daemon):
    headers = {"Content-Type": "application/json; charset=utf-8"}
    assert daemon.request("POST", RUNS, SMALL | {"strategy_ids": [1]}, headers).status == 202


@pytest.mark.parametrize(("method", "path"), [*ROUTES, ("GET", "/nothing/here")])
@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "localhost:80:80"])
def test_a_foreign_host_is_turned_away_on_every_route(pages, method, path, host):
    body = {} if method == "POST" else None
    assert refusal(pages, method, path, body, {"Host": host}) == (403, "HOST_NOT_ALLOWED")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8080", "[::1]", "[::1]:8080"])
def test_this_machine_has_several_names(daemon, host):
    assert daemon.request("GET", "/health", headers={"Host": host}).status == 200


@pytest.mark.parametrize("path", ["/api", "/api/v1", "/health/", "/api/v1/runs/", "/api/v1/runs/pages/nothing"])
def test_an_unknown_route_is_not_found(daemon, path):
    assert refusal(daemon, "GET", path) == (404, "ROUTE_NOT_FOUND")


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_method_that_a_route_does_not_take_is_refused(daemon, method, path):
    others = {"PUT", "PATCH", "GET" if path == "/api/v1/imports" else "OPTIONS"}
    for other in sorted(others - {method}):
        body = None if other in ("GET", "OPTIONS") else {}
        assert refusal(daemon, other, path, body) == (405, "METHOD_NOT_ALLOWED")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/health?verbose=1", 400, "INVALID_REQUEST"),
        (f"{RUNS}?colour=red", 400, "INVALID_REQUEST"),
        (f"{RUNS}?limit=1&limit=2", 400, "INVALID_REQUEST"),
        (f"{RUNS}?limit=0", 400, "INVALID_REQUEST"),
        (f"{RUNS}?cursor=nothing", 400, "INVALID_CURSOR"),
        (f"{RUNS}/nothing", 404, "RUN_NOT_FOUND"),
        (f"{RUNS}/{'x' * 600}", 404, "RUN_NOT_FOUND"),
        (f"{RUNS}/a%00b", 404, "RUN_NOT_FOUND"),
        (f"{RUNS}/%ff", 404, "RUN_NOT_FOUND"),
        (f"{RUNS}/pages?verbose=1", 400, "INVALID_REQUEST"),
        (f"{RUNS}/nothing/results", 404, "RUN_NOT_FOUND"),
        (f"{RUNS}/nothing/trades", 404, "RUN_NOT_FOUND"),
        ("/api/v1/strategies?category=magic", 400, "INVALID_REQUEST"),
        ("/api/v1/strategies?tag=trend", 400, "INVALID_REQUEST"),
        ("/api/v1/strategies/101", 404, "INVALID_STRATEGY"),
        ("/api/v1/strategies/0", 404, "INVALID_STRATEGY"),
        ("/api/v1/strategies/-1", 400, "INVALID_STRATEGY"),
        ("/api/v1/strategies/one", 400, "INVALID_STRATEGY"),
        ("/api/v1/strategies/%C2%B2", 400, "INVALID_STRATEGY"),
        ("/api/v1/strategies/1?rules=1", 400, "INVALID_REQUEST"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(pages, path, status, code):
    assert refusal(pages, "GET", path) == (status, code)


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("colour=red", 400, "INVALID_REQUEST"),
        ("symbol=SYNA&symbol=SYNB", 400, "INVALID_REQUEST"),
        ("limit=0", 400, "INVALID_REQUEST"),
        ("limit=-1", 400, "INVALID_REQUEST"),
        ("limit=1.5", 400, "INVALID_REQUEST"),
        ("limit=", 400, "INVALID_REQUEST"),
        ("limit=1000001", 400, "INVALID_REQUEST"),
        (f"limit={'9' * 5000}", 400, "INVALID_REQUEST"),
        ("cursor=", 400, "INVALID_CURSOR"),
        ("cursor=abc", 400, "INVALID_CURSOR"),
        ("cursor=%ff%00", 400, "INVALID_CURSOR"),
        ("symbol=!!", 400, "INVALID_SYMBOL"),
        ("symbol=NOTHING", 404, "INVALID_SYMBOL"),
        ("timeframe=15Min", 400, "INVALID_TIMEFRAME"),
        ("timeframe=1hour", 400, "INVALID_TIMEFRAME"),
        ("strategy_id=one", 400, "INVALID_REQUEST"),
        ("strategy_id=101", 404, "INVALID_STRATEGY"),
        ("risk_profile=reckless", 400, "INVALID_RISK_PROFILE"),
    ],
)
@pytest.mark.parametrize("route", ["results", "trades"])
def test_rows_that_cannot_be_shown_are_refused(pages, route, query, status, code):
    assert refusal(pages, "GET", f"{RUNS}/pages/{route}?{query}") == (status, code)


@pytest.mark.parametrize("query", ["justify=yes", "justify=", "justify=2"])
def test_justify_is_0_or_1_and_belongs_to_trades(pages, query):
    assert refusal(pages, "GET", f"{RUNS}/pages/trades?{query}") == (400, "INVALID_REQUEST")
    assert refusal(pages, "GET", f"{RUNS}/pages/results?justify=1") == (400, "INVALID_REQUEST")


@pytest.mark.parametrize("upload", ["0" * 32, "../../etc/passwd", "", "x"])
def test_an_import_takes_only_what_the_command_line_left(daemon, upload):
    body = {"upload": upload, "venue": "local", "symbol": "SYNA", "timeframe": "1Hour", "source": "x"}
    assert refusal(daemon, "POST", "/api/v1/imports", body) == (400, "INVALID_REQUEST")


# The life of a run.


def test_a_run_goes_from_queued_over_running_to_completed(long):
    run_id = long.start_run(symbols=["LONG"], timeframes=["1Min", "5Min", "15Min", "1Hour"])
    seen = []
    long.wait(run_id, lambda run: seen.append(run) or run["status"] == "completed")
    statuses = list(dict.fromkeys(run["status"] for run in seen))
    assert statuses in (["queued", "running", "completed"], ["running", "completed"])
    completed = [run["progress"]["completed"] for run in seen]
    assert completed == sorted(completed)
    assert len(set(completed)) > 2
    assert completed[-1] == 1200
    for run in seen:
        assert run["progress"]["total"] == 1200
        assert (run["summary"] is not None) == (run["status"] == "completed")
    halfway = [run["progress"]["seconds_left"] for run in seen if 0 < run["progress"]["completed"] < 1200]
    assert all(seconds > 0 for seconds in halfway)


def test_a_cancelled_run_keeps_its_jobs_and_goes_on_under_the_same_id(long, stored_values):
    request = {"symbols": ["LONG"], "timeframes": ["1Min", "5Min", "15Min"], "run_id": "stopped"}
    long.start_run(**request)
    long.wait("stopped", lambda run: run["progress"]["completed"] >= 300)
    answer = long.request("DELETE", f"{RUNS}/stopped")
    assert (answer.status, answer.body["status"]) == (200, "cancelled")
    assert answer.body["error"]["code"] == "CANCELLED"
    assert answer.body["summary"] is None
    stored = answer.body["progress"]["completed"]
    assert stored in (300, 600)
    assert long.run_status("stopped") == answer.body
    assert refusal(long, "DELETE", f"{RUNS}/stopped") == (409, "RUN_FINISHED")
    run = long.finish_run(**request)
    assert run["progress"]["completed"] == 900
    assert run["error"] is None
    assert run["created_at"] == answer.body["created_at"]
    long.finish_run(**request | {"run_id": "unstopped"})
    assert stored_values(long.folder, "stopped") == stored_values(long.folder, "unstopped")


def test_other_requests_are_answered_while_a_run_works(long):
    busy = long.start_run(symbols=["LONG"], timeframes=["1Min", "5Min"])
    other = long.request("POST", RUNS, SMALL)
    assert (other.status, other.body["status"]) == (202, "queued")
    assert refusal(long, "POST", RUNS, {"symbols": ["LONG"], "timeframes": ["1Min"], "run_id": busy}) == (
        409,
        "RUN_ACTIVE",
    )
    assert refusal(long, "DELETE", f"{RUNS}/{busy}?purge=1") == (409, "RUN_ACTIVE")
    assert long.request("GET", "/health").status == 200
    listed = {run["run_id"]: run["status"] for run in long.rows(RUNS, limit=2)}
    assert listed[busy] in ("queued", "running")
    assert long.request("DELETE", f"{RUNS}/{busy}").body["status"] == "cancelled"
    assert long.wait(other.body["run_id"])["status"] == "completed"


def test_a_purged_run_is_gone_and_its_id_free(daemon, stored_values):
    daemon.finish_run(**SMALL, run_id="purged")
    assert stored_values(daemon.folder, "purged")
    assert refusal(daemon, "DELETE", f"{RUNS}/purged") == (409, "RUN_FINISHED")
    answer = daemon.request("DELETE", f"{RUNS}/purged?purge=1")
    assert (answer.status, answer.body) == (204, None)
    assert refusal(daemon, "GET", f"{RUNS}/purged") == (404, "RUN_NOT_FOUND")
    assert refusal(daemon, "DELETE", f"{RUNS}/purged?purge=1") == (404, "RUN_NOT_FOUND")
    assert refusal(daemon, "DELETE", f"{RUNS}/purged?purge=yes") == (400, "INVALID_REQUEST")
    assert not stored_values(daemon.folder, "purged")
    daemon.finish_run(**SMALL | {"timeframes": ["1Day"]}, run_id="purged", start_date="2024-01-02")


# The same id again.


def test_the_same_request_again_changes_nothing(daemon, stored_values):
    request = SMALL | {"run_id": "again", "persist_trades": True}
    first = daemon.finish_run(**request)
    values = stored_values(daemon.folder, "again")
    second = daemon.finish_run(**request)
    assert stored_values(daemon.folder, "again") == values
    assert first["summary"] | {"elapsed_seconds": 0} == second["summary"] | {"elapsed_seconds": 0}


def test_the_same_id_takes_more_strategies_profiles_and_series(daemon):
    request = {"symbols": ["SYNA"], "timeframes": ["1Hour"], "risk_profiles": ["low"], "strategy_ids": [1, 2, 3]}
    totals = []
    for more in (
        {},
        {"strategy_ids": [3, 4]},
        {"risk_profiles": ["low", "high"]},
        {"symbols": ["SYNA", "SYNB"]},
        {"timeframes": ["1Hour", "1Day"]},
    ):
        run = daemon.finish_run(**request | more, run_id="grows")
        totals.append(run["summary"]["total_combinations"])
    assert totals == [3, 4, 7, 10, 13]
    assert run["symbols"] == ["local:SYNA", "local:SYNB"]
    assert run["timeframes"] == ["1Hour", "1Day"]
    whole = daemon.finish_run(**request | more, run_id="whole")
    assert whole["summary"]["total_combinations"] == 6

    def rows(run_id):
        found = daemon.rows(f"{RUNS}/{run_id}/results", risk_profile="low", symbol="SYNA", limit=100_000)
        # What luck alone would give depends on all that a run tried, so it is not compared.
        bare = {"run_id": "", "p_adjusted": None, "false_discovery": None}
        return sorted(json.dumps(row | bare) for row in found if row["strategy_id"] != 4)

    assert rows("grows") == rows("whole")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"start_date": "2024-01-02"}, "start_date"),
        ({"start_date": None}, "start_date"),
        ({"end_date": "2024-01-11"}, "end_date"),
        ({"persist_trades": True}, "persist_trades"),
    ],
)
def test_the_same_id_with_other_terms_is_a_conflict(daemon, change, field):
    request = SMALL | {"run_id": "terms", "start_date": "2024-01-01", "end_date": "2024-01-10", "strategy_ids": [1]}
    daemon.finish_run(**request)
    answer = daemon.request("POST", RUNS, request | change)
    assert (answer.status, code_of(answer)) == (409, "RUN_CONFLICT")
    assert answer.body["error"]["details"]["field"] == field
    assert field in answer.body["error"]["message"]
    assert daemon.run_status("terms")["status"] == "completed"


def test_the_same_id_over_other_bars_is_a_conflict(daemon, cli, tmp_path):
    def add(rows):
        file = tmp_path / "bars.csv"
        lines = [f"2024-01-{1 + row // 24:02}T{row % 24:02}:00:00Z,{100 + row % 7},120,90,100,5" for row in rows]
        file.write_text("\n".join(["timestamp,open,high,low,close,volume", *lines]))
        options = ("--symbol", "GROWING", "--timeframe", "1Hour", "--data-dir", daemon.folder)
        assert cli("import", "bars", file, *options).returncode == 0

    add(range(300))
    for timeframe in ("1Hour", "1Day"):  # stored, and derived
        daemon.finish_run(symbols=["GROWING"], timeframes=[timeframe], run_id=f"grown-{timeframe}")
        dated = {"end_date": "2024-01-05", "run_id": f"dated-{timeframe}"}
        daemon.finish_run(symbols=["GROWING"], timeframes=[timeframe], **dated)
    add(range(300, 301))
    for timeframe in ("1Hour", "1Day"):
        request = {"symbols": ["GROWING"], "timeframes": [timeframe]}
        answer = daemon.request("POST", RUNS, request | {"run_id": f"grown-{timeframe}"})
        assert (answer.status, code_of(answer)) == (409, "RUN_CONFLICT")
        assert answer.body["error"]["details"]["field"] == "bars"
        assert "GROWING" in answer.body["error"]["message"]
        daemon.finish_run(**request, end_date="2024-01-05", run_id=f"dated-{timeframe}")


def test_the_same_id_with_other_scales_or_rules_is_a_conflict(serve, cli, bars_files, tmp_path):
    shipped = json.loads((Path(__file__).parents[2] / "strategies.json").read_text())["strategies"]
    rules = shipped[0] | {"id": 101, "name": "my_own"}
    mine, config = tmp_path / "mine.json", tmp_path / "config.toml"
    mine.write_text(json.dumps({"version": 1, "strategies": [rules]}))
    text = f'[strategies]\nuser_file = "{mine}"\n[probe.risk_profiles]\nlow = {{ stop_scale = 0.5 }}\n'
    text += '[workers]\nexecutor = "threads"\n'
    config.write_text(text)
    folder = tmp_path / "data"
    options = ("--data-dir", folder, "--config", config)
    file = bars_files["SYNB", "1Hour"]
    assert cli("import", "bars", file, "--symbol", "SYNB", "--timeframe", "1Hour", *options).returncode == 0
    run = ("run", "--symbols", "SYNB", "--timeframes", "1Hour", "--run-id", "mine")
    done = cli(*run, "--strategies", "1,101", "--risk-profiles", "low,medium", "--persist-trades", *options)
    assert done.returncode == 0, done.stderr
    config.write_text(text.replace("0.5", "0.6"))
    mine.write_text(json.dumps({"version": 1, "strategies": [rules | {"atr_stop_mult": 9.0, "tags": ["new"]}]}))
    changed = serve(folder, "--config", config)
    base = {"symbols": ["SYNB"], "timeframes": ["1Hour"], "persist_trades": True, "run_id": "mine"}
    for request, field in (
        ({"strategy_ids": [1], "risk_profiles": ["low"]}, "risk_profiles"),
        ({"strategy_ids": [101], "risk_profiles": ["medium"]}, "strategy_ids"),
    ):
        answer = changed.request("POST", RUNS, base | request)
        assert (answer.status, code_of(answer)) == (409, "RUN_CONFLICT")
        assert answer.body["error"]["details"]["field"] == field
    # What did not change goes on, and what was stored keeps its names; only words of other rules are refused.
    changed.finish_run(**base, strategy_ids=[1, 2], risk_profiles=["medium", "high"])
    assert changed.rows(f"{RUNS}/mine/trades", strategy_id=101)
    assert changed.rows(f"{RUNS}/mine/trades", strategy_id=1, justify=1)
    assert refusal(changed, "GET", f"{RUNS}/mine/trades?strategy_id=101&justify=1") == (409, "RUN_CONFLICT")
    assert changed.end()[0] == 0
