"""The table of methods and what is made from it: all that the app's contract names is there, with every field."""

import json
import re
from pathlib import Path

import jsonschema_rs
import msgspec
import pytest
from openapi_spec_validator import validate

from daemon.api import openapi
from daemon.api.dispatch import METHODS, answer, find, read_fields
from daemon.api.methods import later
from daemon.api.protocol import Call, EventFrame, FailureFrame, RequestFrame, ResponseFrame
from daemon.api.refusals import STATUSES
from daemon.api.statuses import CODES, by_status
from daemon.core.errors import Code, InvalidRequest, NotAvailable
from daemon.core.events import EVENTS, RESERVED
from daemon.research import backtest_result, validation_result

ERRORS = Path(__file__).parents[2] / "docs" / "errors.md"
CONTRACT = """
autonomous:start autonomous:stop autonomous:status autonomous:config:get autonomous:config:set
killswitch:trigger killswitch:status killswitch:reset backtest:run backtest:status backtest:results backtest:cancel
signals:list signals:subscribe signals:unsubscribe risk:limits:get risk:limits:set risk:metrics
feedback:submit feedback:history backend:connect backend:disconnect backend:status
"""
MORE = """
data:symbols data:history data:load data:gaps probe:run probe:status probe:results strategies:list backtest:list
backtest:trades montecarlo:run strategy:optimize events:subscribe events:unsubscribe events:resume status
"""
LATER = ("autonomous", "killswitch", "signals", "risk", "feedback", "blocks")
CONTRACT_EVENTS = """
backtest:progress backtest:complete signal:new signal:expired trade:executed killswitch:triggered block:update
"""

# What the contract says that the app reads, by the struct that carries it.
FIELDS = {
    METHODS["backend:status"].answer: """
        connected version uptime activeBacktests queuedBacktests dataPointsLoaded memoryUsage""",
    METHODS["backtest:status"].answer: """
        id status progress currentTimestamp eventsProcessed estimatedTimeRemaining error""",
    EVENTS["backtest:progress"]: """
        id status progress currentTimestamp eventsProcessed estimatedTimeRemaining error""",
    EVENTS["backtest:error"]: "id error",
    METHODS["backtest:results"].answer: """
        id config status metrics tradeStats riskMetrics equityCurve drawdownCurve trades events monteCarlo execution""",
    backtest_result.Metrics: """
        totalReturn totalReturnPercent sharpeRatio sortinoRatio calmarRatio maxDrawdown maxDrawdownPercent winRate
        profitFactor expectancy payoffRatio""",
    backtest_result.TradeStats: """
        totalTrades winningTrades losingTrades breakEvenTrades averageWin averageLoss largestWin largestLoss
        averageHoldTime maxConsecutiveWins maxConsecutiveLosses""",
    backtest_result.RiskMetrics: """
        volatility downvol beta alpha valueAtRisk95 valueAtRisk99 conditionalVaR95 ulcerIndex recoveryFactor""",
    backtest_result.EquityPoint: "timestamp blockNumber equity cash positionsValue unrealizedPnl",
    backtest_result.DrawdownPoint: "timestamp drawdown drawdownPercent peak duration",
    backtest_result.Trade: """
        id symbol side entryTime entryBlock entryPrice entrySlippage entryFees exitTime exitBlock exitPrice
        exitSlippage exitFees exitReason quantity pnl pnlPercent holdTime maePercent mfePercent""",
    backtest_result.Execution: "startedAt completedAt duration eventsProcessed dataPoints blocksProcessed error",
    METHODS["montecarlo:run"].answer: """
        runs medianReturn meanReturn stdReturn percentile5 percentile25 percentile75 percentile95 medianDrawdown
        percentile95Drawdown probabilityOfProfit probabilityOfRuin probabilityOf2xReturn returnConfidenceInterval
        samplePaths""",
    validation_result.ConfidenceInterval: "lower upper confidence",
    METHODS["strategy:optimize"].request: "strategyId parameterRanges optimizationTarget maxIterations",
    METHODS["montecarlo:run"].request: "backtestId runs",
    METHODS["data:load"].request: "symbol startTime endTime resolution",
    METHODS["data:load"].answer: "loaded symbol",
    METHODS["backtest:run"].request: "config priority",
    METHODS["risk:limits:get"].answer: """
        maxPositionSizeUsd maxPositionSizePercent maxTotalExposureUsd maxTotalExposurePercent maxDailyLossUsd
        maxDailyLossPercent maxWeeklyLossPercent maxDrawdownPercent maxConsecutiveLosses maxLeverage maxOpenPositions
        maxOrdersPerMinute maxOrdersPerHour""",
    METHODS["risk:metrics"].answer: """
        currentExposure exposurePercent dailyPnl dailyPnlPercent weeklyPnl weeklyPnlPercent currentDrawdown
        currentDrawdownPercent maxDrawdownToday consecutiveLosses openPositions pendingOrders leverage marginUsed
        marginAvailable liquidationRisk riskScore""",
    later.KillSwitchConfig: "enabled triggers actions cooldownMinutes notifyOnTrigger requireManualReset",
    later.KillTrigger: "id type threshold enabled",
    METHODS["killswitch:status"].answer: """
        triggered triggeredAt trigger reason actionsExecuted cooldownEndsAt canResume config""",
    RESERVED["signal:new"]: """
        id source sourceChannel symbol side type strength confidence timeframe currentPrice suggestedEntry
        suggestedStopLoss suggestedTakeProfit indicators suggestedPositionSize timestamp expiresAt reasoning sentiment
        metadata""",
    METHODS["feedback:submit"].request: """
        id tradeId strategyId ratings notes suggestedImprovements wouldRepeat timestamp""",
    later.Ratings: "entryTiming exitTiming positionSizing riskManagement overall",
}
ENUMS = {
    ("signal:new", "source"): "technical sentiment perplexity on_chain custom external ai_research",
    ("signal:new", "side"): "long short",
    ("signal:new", "type"): "entry exit scale_in scale_out stop_loss take_profit rebalance hedge",
    ("killswitch:triggered", "type"): """daily_loss weekly_loss drawdown consecutive_losses volatility_spike
        liquidity_crisis connection_lost api_error manual""",
}


@pytest.fixture(scope="module")
def bundle():
    return json.loads(openapi.schema_json())


@pytest.fixture(scope="module")
def document():
    return json.loads(openapi.openapi_json())


def encoded(struct):
    return {field.encode_name for field in msgspec.structs.fields(struct)}


def refusal(name, fields):
    with pytest.raises(InvalidRequest) as refused:
        read_fields(find(name), fields)
    assert refused.value.code is Code.INVALID_REQUEST
    return refused.value.message


# The table.


def test_every_method_of_the_contract_is_there():
    assert len(CONTRACT.split()) == 23
    assert {*CONTRACT.split(), *MORE.split()} <= set(METHODS)


def test_methods_are_available_unless_their_room_is_not_built():
    for name, method in METHODS.items():
        assert method.is_available == (name.partition(":")[0] not in LATER), name


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_in_one_sentence_what_it_does_and_refuses_unknown_fields(name):
    method = METHODS[name]
    assert method.name == name
    assert re.fullmatch(r"[A-Z][^\n]+\.", method.summary)
    assert method.request.__struct_config__.forbid_unknown_fields
    assert "x_unknown" in refusal(name, {"x_unknown": 1}) or any(
        field.required for field in msgspec.structs.fields(method.request)
    )


@pytest.mark.parametrize("struct", FIELDS, ids=lambda struct: struct.__name__)
def test_structs_carry_every_field_that_the_contract_names(struct):
    assert set(FIELDS[struct].split()) <= encoded(struct)


@pytest.mark.parametrize(("event", "field"), ENUMS)
def test_words_of_the_contract_are_the_only_ones(bundle, event, field):
    name = RESERVED[event].__name__
    assert sorted(bundle["$defs"][name]["properties"][field]["enum"]) == sorted(ENUMS[event, field].split())


def test_events_of_the_contract_are_sent_or_reserved():
    assert set(CONTRACT_EVENTS.split()) <= {*EVENTS, *RESERVED}
    assert not {*EVENTS} & {*RESERVED}


@pytest.mark.parametrize("name", [name for name in METHODS if name.partition(":")[0] in LATER])
async def test_methods_of_rooms_that_are_not_built_answer_nothing_made_up(name):
    with pytest.raises(NotAvailable) as refused:
        await answer(Call(None), name, {})
    assert refused.value.code is Code.NOT_AVAILABLE


async def test_an_unknown_method_is_refused_by_a_code_of_its_own():
    with pytest.raises(InvalidRequest) as refused:
        await answer(Call(None), "x" * 1_000, {})
    assert refused.value.code is Code.UNKNOWN_METHOD
    assert len(refused.value.message) < 200


# Payloads.


@pytest.mark.parametrize(
    ("name", "fields", "path"),
    [
        ("backtest:status", {"id": 5}, "`$.id`"),
        ("backtest:list", {"limit": "many"}, "`$.limit`"),
        ("backtest:list", {"limit": 0}, "`$.limit`"),
        ("backtest:run", {"config": []}, "`$.config`"),
        ("feedback:submit", {"tradeId": "1", "ratings": {"overall": 2}}, "`$.ratings.overall`"),
        ("signals:list", {"sources": ["technical", "rumour"]}, "`$.sources[1]`"),
        ("events:subscribe", {"events": "backtest:*"}, "`$.events`"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(name, fields, path):
    assert path in refusal(name, fields)


def test_an_unknown_field_is_refused_by_name():
    assert "`ids`" in refusal("backtest:status", {"id": "a", "ids": []})
    assert "`luck`" in refusal("feedback:submit", {"tradeId": "1", "ratings": {"luck": 1}})


def test_a_payload_that_is_no_object_is_refused():
    for fields in ([], "status", 5, True):
        assert "object" in refusal("status", fields)


def test_numbers_may_be_texts():
    limits = read_fields(
        find("risk:limits:set"), {"maxLeverage": "2.50", "maxOpenPositions": "4", "maxDrawdownPercent": None}
    )
    assert (limits.max_leverage, limits.max_open_positions, limits.max_drawdown_percent) == (2.5, 4, None)
    assert limits.max_daily_loss_usd is msgspec.UNSET
    assert read_fields(find("montecarlo:run"), {"backtestId": "a", "runs": "500", "confidenceLevel": "0.9"}).runs == 500
    assert read_fields(find("backtest:list"), {"limit": "7"}).limit == 7


def test_a_payload_may_be_left_out_where_nothing_is_needed():
    assert read_fields(find("status"), None) == read_fields(find("status"), {})


# What is made from the table.


def test_the_bundle_is_json_schema_whose_references_all_lead_somewhere(bundle):
    jsonschema_rs.meta.validate(bundle)
    referred = set(re.findall(r'"\$ref":"#/\$defs/([^"]+)"', openapi.schema_json().decode()))
    assert referred <= set(bundle["$defs"])


def test_names_of_the_bundle_are_names_for_types(bundle, document):
    for name in (*bundle["$defs"], *document["components"]["schemas"]):
        assert re.fullmatch(r"[A-Z][A-Za-z0-9]+", name), name


def test_the_bundle_has_every_method_event_and_frame(bundle):
    assert list(bundle["methods"]) == list(METHODS)
    assert set(bundle["events"]) == {*EVENTS, *RESERVED}
    assert set(bundle["frames"]) == {each.__name__ for each in (RequestFrame, ResponseFrame, FailureFrame, EventFrame)}
    assert bundle["methods"]["risk:metrics"]["x-available"] is False
    assert bundle["methods"]["backtest:run"] | {"request": 0, "answer": 0} == {
        "summary": METHODS["backtest:run"].summary,
        "request": 0,
        "answer": 0,
        "errors": [
            *map(str, (Code.INVALID_JSON, Code.INVALID_REQUEST, Code.UNKNOWN_METHOD, Code.INTERNAL)),
            *map(str, METHODS["backtest:run"].errors),
        ],
        "x-available": True,
        "x-starts-job": True,
    }
    assert bundle["events"]["backtest:progress"]["x-fact"] is False
    assert bundle["events"]["block:update"]["x-available"] is False


def test_frames_are_what_their_schema_says(bundle):
    raw = msgspec.Raw(b'{"a": 1}')
    made = [
        ResponseFrame(id="1", method="status", payload=raw, timestamp=1),
        FailureFrame(id=None, method=None, error=openapi.ErrorAnswer, timestamp=1),
        EventFrame(type="event", id="1", method="backtest:error", payload=raw, timestamp=1, epoch="e", seq=4),
        RequestFrame(id="1", method="status"),
    ]
    made[1] = msgspec.structs.replace(made[1], error={"code": "INTERNAL", "message": "", "details": None})
    for frame in made:
        schema = {"$defs": bundle["$defs"]} | bundle["frames"][type(frame).__name__]
        jsonschema_rs.validate(schema, json.loads(msgspec.json.encode(frame)))


def test_the_openapi_document_is_valid(document):
    assert document["openapi"].startswith("3.1")
    validate(document)


def test_every_method_is_in_the_document(document):
    described = {path.rpartition("/")[2]: paths["post"] for path, paths in document["paths"].items() if "/rpc/" in path}
    assert list(described) == list(METHODS)
    for name, operation in described.items():
        assert operation["x-available"] == METHODS[name].is_available
        assert operation["x-starts-job"] == METHODS[name].starts_job
        assert ("501" in operation["responses"]) != METHODS[name].is_available
        may_wait = METHODS[name].starts_job or Code.TOO_MANY_REQUESTS in METHODS[name].errors
        assert ("429" in operation["responses"]) == may_wait
        assert {"200", "400", "401", "403", "413", "415", "500"} <= set(operation["responses"])


# Errors.


def test_codes_are_answered_with_the_statuses_that_the_documentation_names():
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([\d, ]+) \|", ERRORS.read_text(), re.MULTILINE)
    documented = {Code(name): [int(status) for status in statuses.split(",")] for name, statuses in rows}
    for code in {code for codes in CODES.values() for code in codes}:
        assert {*by_status([code])} <= {*documented[code]}, code


def test_statuses_are_those_that_errors_have():
    of_the_framework = {405, 413, 415}
    assert set(CODES) <= {*STATUSES.values(), *of_the_framework}


@pytest.mark.parametrize("name", METHODS)
def test_errors_of_a_method_have_a_status(name):
    assert by_status(METHODS[name].errors) or not METHODS[name].errors


# Documentation.


def test_the_documentation_has_every_method_and_event():
    rows = re.findall(r"^\| (`.*?) \|", (ERRORS.parent / "protocol.md").read_text(), re.MULTILINE)
    assert {*", ".join(rows).replace("`", "").split(", ")} == {*METHODS, *EVENTS, *RESERVED}
