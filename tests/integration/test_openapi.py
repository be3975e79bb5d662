"""The OpenAPI document against a real daemon: what it says is answered is answered, and nothing makes it fail."""

import http.client
import json
import re
import time
import urllib.parse
from collections import Counter
from types import SimpleNamespace
from unittest.mock import MagicMock

import jsonschema_rs
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from daemon.api.dispatch import METHODS
from daemon.api.http import application

CHECKS = [content_type_conformance, response_schema_conformance, status_code_conformance]
CONFIG = {
    "strategy": {
        "name": "momentum_breakout",
        "entryRules": [{"indicator": "rsi", "condition": "crosses_above", "value": 45}],
        "exitRules": [{"type": "take_profit", "value": 0.02}, {"type": "stop_loss", "value": 0.02}],
    },
    "backtest": {"symbols": ["SYNB"], "timeframe": "1h", "initialCapital": 10000, "commission": 0.001},
}
OPTIMIZATION = {"config": CONFIG, "parameters": {"take_profit": [0.01, 0.02], "stop_loss": [0.02, 0.03]}}
# Routes that carry no JSON described by a struct, or end what asks.
UNASKED = {"/api/v1/openapi.json", "/api/v1/schema.json", "/metrics"}
PAGES = re.compile(r"/(console/.*|ws)?")


@pytest.fixture(scope="module")
def document(daemon):
    answer = daemon.request("GET", "/api/v1/openapi.json")
    assert answer.status == 200
    return answer.body


@pytest.fixture(scope="module")
def known(daemon):
    """Ids of one of everything, each with results."""

    def until_done(path):
        deadline = time.monotonic() + 60
        while (status := daemon.request("GET", path).body)["completedAt"] is None:
            assert time.monotonic() < deadline, status
            time.sleep(0.01)
        assert status["status"] == "completed", status

    run_id = daemon.start_run(symbols=["SYNB"], timeframes=["1Hour"], strategy_ids=[1, 2, 3], persist_trades=True)
    backtest = daemon.request("POST", "/api/v1/backtest/run", CONFIG).body["id"]
    optimization = daemon.request("POST", "/api/v1/optimize", OPTIMIZATION).body["id"]
    daemon.wait(run_id)
    until_done(f"/api/v1/backtest/{backtest}/status")
    until_done(f"/api/v1/optimize/{optimization}/status")
    assert daemon.request("POST", "/api/v1/montecarlo", {"backtestId": backtest, "runs": 50}).status == 200
    idea = daemon.request("GET", "/api/v1/trials").body["results"][0]["idea"]
    return SimpleNamespace(
        run_id=run_id, backtest_id=backtest, optimization_id=optimization, idea=idea, symbol="SYNB", strategy_id="1"
    )


@pytest.fixture(scope="module")
def schema_of(document):
    """A validator of one of the document's schemas; a field that it does not name is an error."""
    closed = json.loads(json.dumps(document["components"]))
    for schema in closed["schemas"].values():
        if "properties" in schema:
            schema["additionalProperties"] = False

    def made(schema):
        return jsonschema_rs.Draft202012Validator(schema | {"components": closed})

    return made


def described(document):
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield method.upper(), path, operation


def json_schema(operation, status):
    return operation["responses"][str(status)]["content"]["application/json"]["schema"]


# What is described is served.


def test_every_route_is_described_and_every_description_has_a_route():
    services = MagicMock()
    services.config.max_body_kb = 1
    served = {
        (route.method, route.resource.canonical)
        for route in application(services).router.routes()
        if route.method not in ("HEAD", "OPTIONS", "*") and not PAGES.fullmatch(route.resource.canonical)
    }
    from daemon.api.rest import ROUTES

    assert served - {("POST", "/api/v1/rpc/{method}")} == {(route.method, route.path) for route in ROUTES}
    assert len(ROUTES) == len({(route.method, route.path) for route in ROUTES})


def test_the_document_needs_a_token(daemon):
    for path in ("/api/v1/openapi.json", "/api/v1/schema.json"):
        assert daemon.request("GET", path, token=None).status == 401


def test_the_bundle_is_served(daemon):
    answer = daemon.request("GET", "/api/v1/schema.json")
    assert list(answer.body["methods"]) == list(METHODS)


# What is answered is described.


def test_routes_answer_what_the_document_says(daemon, document, known, schema_of):
    asked = 0
    for method, path, operation in described(document):
        if method != "GET" or path in UNASKED:
            continue
        target = path.format_map(vars(known) | {"source": "x"})
        query = {"symbol": "SYNB", "interval": "1h"} if path == "/api/prices" else {}
        query |= {"timeframe": "1Hour"} if "/history/" in path else {}
        query |= {"format": "json"} if path.endswith("/report") else {}
        answer = daemon.request("GET", f"{target}?{urllib.parse.urlencode(query)}")
        if "/calibration/" in path:
            assert (answer.status, answer.body["error"]["code"]) == (404, "CALIBRATION_NOT_FOUND")
        else:
            assert answer.status == 200, (path, answer.body)
        problems = [
            f"{list(each.instance_path)}: {each.message}"
            for each in schema_of(json_schema(operation, answer.status)).iter_errors(answer.body)
        ]
        assert not problems, (path, problems[:3])
        asked += 1
    assert asked > 30


def test_methods_answer_what_the_document_says(daemon, document, known, schema_of):
    payloads = {
        "backtest:run": {"config": CONFIG},
        "backtest:status": {"id": known.backtest_id},
        "backtest:results": {"id": known.backtest_id},
        "backtest:trades": {"id": known.backtest_id, "limit": "5"},
        "data:history": {"symbol": "SYNB", "timeframe": "1Hour", "limit": 5},
        "data:load": {"symbol": "SYNB", "resolution": "1Hour"},
        "data:gaps": {"symbol": "SYNB"},
        "probe:run": {"symbols": ["SYNB"], "timeframes": ["1Hour"], "strategy_ids": [1]},
        "probe:status": {"runId": known.run_id},
        "probe:results": {"runId": known.run_id, "limit": 5},
        "probe:combinations": {"runId": known.run_id},
        "montecarlo:run": {"backtestId": known.backtest_id, "runs": 40},
        "strategy:optimize": {"config": CONFIG, "parameterRanges": {"take_profit": ["0.01", 0.02]}, "maxIterations": 2},
    }
    for name, method in METHODS.items():
        if not method.is_available or name.startswith("events:") or name == "backtest:cancel":
            continue
        path = f"/api/v1/rpc/{name}"
        answer = daemon.request("POST", path, payloads.get(name, {}))
        assert answer.status == 200, (name, answer.body)
        problems = [
            f"{list(each.instance_path)}: {each.message}"
            for each in schema_of(json_schema(document["paths"][path]["post"], 200)).iter_errors(answer.body)
        ]
        assert not problems, (name, problems[:3])


def test_methods_over_http_refuse_as_routes_do(daemon):
    def refusal(name, body):
        answer = daemon.request("POST", f"/api/v1/rpc/{name}", body)
        return answer.status, answer.body["error"]["code"]

    assert refusal("risk:metrics", {}) == (501, "NOT_AVAILABLE")
    assert refusal("nothing:here", {}) == (400, "UNKNOWN_METHOD")
    assert refusal("backtest:status", {"id": "none"}) == (404, "BACKTEST_NOT_FOUND")
    assert refusal("backtest:status", {}) == (400, "INVALID_REQUEST")
    assert refusal("backtest:status", b"{") == (400, "INVALID_JSON")
    assert refusal("events:subscribe", {}) == (400, "INVALID_REQUEST")
    assert daemon.request("GET", "/api/v1/rpc/status").status == 405
    answer = daemon.request("POST", "/api/v1/rpc/status", b"", {"Content-Type": "application/json"})
    assert (answer.status, answer.body["connected"]) == (200, True)


# The client that already ships.


def test_the_shipping_client_gets_prices_by_its_own_intervals(daemon):
    def prices(**query):
        return daemon.request("GET", f"/api/prices?{urllib.parse.urlencode(query)}").body

    hours = prices(symbol="SYNB", interval="1h", start=1704067200000, end=1704070800000 + 3_600_000)
    assert [row["timestamp"] for row in hours] == [1704067200000, 1704070800000]
    assert list(hours[0]) == ["timestamp", "open", "high", "low", "close", "volume"]
    days = prices(symbol="SYNB", interval="1d")
    assert days == prices(symbol="SYNB", interval="1Day")
    assert len(days) == 63
    assert prices(symbol="SYNB", interval="1h", start=1604067200000, end=1604070800000) == []
    assert len(prices(symbol="SYNA", interval="15m")) == 1_500
    assert prices(symbol="SYNB", interval="9x")["error"]["code"] == "INVALID_TIMEFRAME"
    assert prices(interval="1h")["error"]["details"] == {"field": "symbol"}


def test_the_shipping_client_gets_reports_as_files(daemon, known):
    for form, begins in (("json", b"{"), ("csv", b"id,"), ("pdf", b"%PDF")):
        connection = http.client.HTTPConnection("127.0.0.1", daemon.ready["port"], timeout=30)
        connection.request("GET", f"/api/backtest/{known.backtest_id}/report?format={form}", headers=daemon.bearer)
        response = connection.getresponse()
        assert response.status == 200
        assert response.headers["Content-Disposition"].startswith("attachment")
        assert response.read().startswith(begins)
        connection.close()


def test_signals_of_the_shipping_client_are_not_taken_yet(daemon):
    answer = daemon.request("POST", "/api/signals/technical", {"signals": []})
    assert (answer.status, answer.body["error"]["code"]) == (501, "NOT_AVAILABLE")


# Fuzzing.


def test_nothing_that_the_document_allows_makes_the_daemon_fail(daemon, document, known):
    asked = fuzz(daemon, about(document, known), GenerationMode.POSITIVE, 4)
    # Whatever is asked for here is stored, so a good part of it must be found.
    assert asked[200] > 100


def test_nothing_that_the_document_forbids_makes_the_daemon_fail(daemon, document):
    asked = fuzz(daemon, document, GenerationMode.NEGATIVE, 2)
    assert asked[400] > 50


def about(document, known):
    """The document, with ids and symbols that are known in place of any, unless something would be deleted."""
    changed = json.loads(json.dumps(document))
    for method, _, operation in described(changed):
        for parameter in operation["parameters"]:
            if method != "DELETE" and parameter["name"] in vars(known):
                parameter["schema"] = {"enum": [getattr(known, parameter["name"])]}
            if "html" in parameter["schema"].get("enum", ()):  # pages and PDFs take long, and are no JSON
                parameter["schema"] = {"enum": ["json", "csv"]}
    schemas = changed["components"]["schemas"]
    for name, field, value in (
        ("BacktestId", "id", known.backtest_id),
        ("TradesWanted", "id", known.backtest_id),
        ("ProbeId", "runId", known.run_id),
        ("ResultsWanted", "runId", known.run_id),
        ("HistoryWanted", "symbol", known.symbol),
        ("LoadWanted", "symbol", known.symbol),
    ):
        schemas[name]["properties"][field] = {"enum": [value]}
    return changed


def fuzz(daemon, document, mode, examples):
    """Call every operation; returns how often each status was answered."""
    session = requests.Session()
    session.headers.update(daemon.bearer)
    statuses = Counter()
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = found.ok()
        raw = operation.definition.raw
        if raw["parameters"] or "requestBody" in raw:
            # What nothing answers yet says so by 501, which is no failure.
            checks = [*CHECKS, not_a_server_error] if raw["x-available"] else CHECKS

            @settings(
                max_examples=examples,
                derandomize=True,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def calls(case):
                response = case.call(base_url=f"http://127.0.0.1:{daemon.ready['port']}", session=session)
                statuses[response.status_code] += 1
                case.validate_response(response, checks=checks)  # noqa: B023 - called before the next

            calls()
    assert daemon.process.poll() is None
    return statuses
