"""The dialect of the client that ships: its requests, its shapes, its errors."""

import json

import msgspec
import pytest

from daemon.api.dialect import Shipping, is_spoken
from daemon.api.frames import Asked, BadFrame, Told
from daemon.core.errors import Code, NotFound
from daemon.core.events import BacktestFailed, BacktestProgressed, Fact

SHIPPING = Shipping()


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        ({"id": "1", "action": "status", "payload": {}}, True),
        ({"id": "1", "action": "status"}, True),
        ({"action": None}, True),
        ({"id": "1", "type": "request", "action": "status"}, False),
        ({"id": "1", "method": "status"}, False),
        ({"action": "status", "payload": [[{"type": "request"}]]}, True),
    ],
)
def test_a_frame_with_an_action_and_no_type_is_of_this_dialect(frame, expected):
    assert is_spoken(json.dumps(frame)) is expected


@pytest.mark.parametrize(
    ("action", "method"),
    [
        ("backtest:progress", "backtest:status"),
        ("backtest:result", "backtest:results"),
        ("backtest:run", "backtest:run"),
        ("status", "status"),
        ("made:up", "made:up"),
    ],
)
def test_actions_are_methods_under_other_names(action, method):
    frame = {"id": "req_1705708800000_k3j2h1", "action": action, "payload": {"id": "x"}}
    assert SHIPPING.read(json.dumps(frame)) == Asked("req_1705708800000_k3j2h1", method, {"id": "x"})


def test_a_request_may_have_no_payload():
    assert SHIPPING.read('{"id": "1", "action": "status"}').fields is None


@pytest.mark.parametrize(
    ("content", "request_id", "code", "words"),
    [
        ("{", None, Code.INVALID_JSON, "not JSON"),
        ("[" * 10_000, None, Code.INVALID_JSON, "nested too deeply"),
        ("[]", None, Code.INVALID_REQUEST, "must be an object"),
        ('{"action": "status"}', None, Code.INVALID_REQUEST, "$.id"),
        ('{"id": 7, "action": "status"}', None, Code.INVALID_REQUEST, "$.id"),
        (json.dumps({"id": "x" * 201, "action": "status"}), None, Code.INVALID_REQUEST, "$.id"),
        ('{"id": "1", "action": 5}', "1", Code.INVALID_REQUEST, "$.action"),
        ('{"id": "1"}', "1", Code.INVALID_REQUEST, "$.action"),
        ('{"id": "1", "action": "status", "payload": {"a": 1e999}}', "1", Code.INVALID_JSON, "out of range"),
    ],
)
def test_a_bad_frame_says_what_is_wrong_with_it(content, request_id, code, words):
    with pytest.raises(BadFrame) as caught:
        SHIPPING.read(content)
    assert (caught.value.id, caught.value.error.code) == (request_id, code)
    assert words in caught.value.error.message


def test_an_answer_is_a_success_with_data():
    frame = json.loads(SHIPPING.answered(Asked("1", "backtest:list", {}), [{"id": "x"}]))
    assert frame == {"type": "response", "id": "1", "success": True, "data": [{"id": "x"}]}


def test_what_is_stored_as_json_is_handed_on_as_it_is():
    frame = SHIPPING.answered(Asked("1", "backtest:results", {}), msgspec.Raw(b'{"a": 1.50}'))
    assert frame.endswith(b'"data":{"a": 1.50}}')


def test_an_error_is_a_text_with_its_code():
    frame = json.loads(SHIPPING.failed(NotFound(Code.BACKTEST_NOT_FOUND, "there is no backtest x"), "1", "status"))
    assert frame == {
        "type": "response",
        "id": "1",
        "success": False,
        "error": "there is no backtest x [BACKTEST_NOT_FOUND]",
    }


def test_an_event_has_its_name_for_a_type_and_no_place_in_a_journal():
    event = BacktestFailed(id="x", error="no bars", code="NO_BARS")
    fact = Fact(7, event.NAME, 5, msgspec.Raw(msgspec.json.encode(event)))
    assert json.loads(Told.of_fact(fact, "e").frame(SHIPPING)) == {
        "type": "backtest:error",
        "payload": {"id": "x", "symbols": [], "error": "no bars", "code": "NO_BARS"},
    }


def test_progress_has_the_fields_that_the_client_reads():
    event = BacktestProgressed(id="x", status="running", progress=12.5, estimated_time_remaining=900)
    payload = json.loads(Told.of_progress(event, 5).frame(SHIPPING))["payload"]
    expected = "id status progress currentTimestamp eventsProcessed estimatedTimeRemaining error"
    assert set(expected.split()) <= set(payload)
