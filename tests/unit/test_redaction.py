"""No secret reaches a log: whatever it looks like, wherever it stands, in messages and in exceptions."""

import json
import logging
import string
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.app.logs import JsonFormatter, LineFormatter, printable
from daemon.core.redaction import HIDDEN, redacted
from daemon.core.request_id import REQUEST_ID

ALPHABET = string.ascii_letters + string.digits + "_-"
# As keys of venues are: letters and digits, both cases, at least 16 of them.
SECRETS = st.text(ALPHABET, min_size=12, max_size=100).map(lambda text: f"Aa1{text}9")
PROSE = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)

PLACES = [
    "Authorization: Bearer {}",
    "authorization: {}",
    "Proxy-Authorization: Basic {}",
    "{{'Authorization': 'Bearer {}'}}",
    "(b'authorization', b'bearer {}')",
    "b'GET / HTTP/1.1\\r\\nAuthorization: Bearer {}\\r\\nHost: x'",
    "curl -H 'Authorization: Token {}' localhost",
    "sent Bearer {}",
    "Sec-WebSocket-Protocol: atlas.json, atlas.auth.{}",
    "['atlas.msgpack', 'atlas.auth.{}']",
    "http://127.0.0.1:8080/#code={}",
    "https://rpc.example/?api-key={}",
    "https://rpc.example/?a=1&apikey={}&b=2",
    "https://api.example/order?timestamp=1&signature={}",
    "wss://user:{}@stream.example/ws",
    "wss://{}@stream.example/ws",
    "outer?url=https%3A%2F%2Fx%3FapiKey%3D{}",
    "X-MBX-APIKEY: {}",
    "{{'X-MBX-APIKEY': '{}', 'Accept': '*/*'}}",
    "('X-MBX-APIKEY', '{}')",
    '{{"api_key": "{}"}}',
    '"{{\\"api_key\\": \\"{}\\"}}"',
    "BinanceConfig(api_key='{}')",
    "api_secret={}",
    "passphrase = '{}'",
    "token={}",
    "?token={}",
    "access_token: {}",
    "ATLASD_BINANCE_API_KEY={}",
    "privateKey: {}",
]


@pytest.mark.parametrize("place", PLACES)
@settings(max_examples=40)
@given(secret=SECRETS, before=PROSE, after=PROSE)
def test_a_secret_is_hidden_by_what_stands_before_it(place, secret, before, after):
    text = f"{before} {place.format(secret)} {after}"
    assert secret not in redacted(text)
    assert HIDDEN in redacted(text)


@given(secret=st.text("0123456789abcdef", min_size=32, max_size=64).map(lambda text: f"{text[:-1]}7"))
def test_a_key_in_an_address_s_path_is_hidden(secret):
    for address in ("https://mainnet.infura.io/v3/{}", "https://gateway.thegraph.com/api/{}/subgraphs/id/Qm"):
        assert secret not in redacted(f"GET {address.format(secret)} failed: 503")


@given(
    parts=st.tuples(*[st.text(ALPHABET, min_size=8, max_size=80)] * 3),
    before=PROSE.filter(lambda text: "eyJ" not in text),
)
def test_a_web_token_is_hidden_wherever_it_stands(parts, before):
    token = f"eyJ{parts[0]}.{parts[1]}.{parts[2]}"
    assert token not in redacted(f"{before} {token} was refused")
    assert parts[2] not in redacted(f"got {token}")


@given(token=st.binary(min_size=32, max_size=32), before=PROSE, after=PROSE)
def test_a_token_of_the_daemon_is_hidden_even_alone(token, before, after):
    import base64

    text = base64.urlsafe_b64encode(token).decode().rstrip("=")
    if text.lower() == text or text.upper() == text:
        return  # once in ten thousand million
    assert text not in redacted(f"{before} {text} {after}")


@given(secret=st.text(min_size=8, max_size=60).filter(lambda text: text not in HIDDEN), before=PROSE, after=PROSE)
def test_a_known_secret_is_hidden_whatever_it_looks_like(secret, before, after):
    assert secret not in redacted(f"{before}{secret}{after}", [secret]).replace(HIDDEN, "")


@given(text=st.text() | st.sampled_from(PLACES).flatmap(lambda place: SECRETS.map(place.format)))
def test_what_is_redacted_once_stays_as_it_is(text):
    assert redacted(redacted(text)) == redacted(text)


@pytest.mark.parametrize(
    "line",
    [
        "ready at http://127.0.0.1:8080",
        "feed majors: binance BTCUSDT-PERP: 503 [SOURCE_UNAVAILABLE]",
        "https://data.binance.vision/data/spot/daily/trades/BTCUSDT/BTCUSDT-trades-2024-08-01.zip: 404",
        "https://etherscan.io/address/0xd8dA6BF26964aF9D7eEd9e03E53415D37aA96045",
        "block 0x9b83c12c69edb74f6c8dd5d052765c1adf940e320bd1291696e6fa07829eee71 was replaced",
        "/home/trader/.local/share/atlasd/token holds no token: `atlasd token --rotate` makes a new one",
        "the token was rotated: connect with the new one",
        "backtest 0f3c9a12 failed: no bars of local:SYNA 15Min in 2024-01-01 to 2024-02-01",
        'File "/opt/atlasd/daemon/research/executors.py", line 180, in _outcome',
        "worker 1 died while it warmed up (exit code -9)",
        "monkey: 3, keyboard = qwerty",
    ],
)
def test_what_is_no_secret_stays_readable(line):
    assert redacted(line) == line


@pytest.mark.parametrize("part", ["a", "token", "a.b-", "/", "http://", "eyJ", "eyJaaaa.", "api_key=", "x:", '"', "a1"])
def test_no_text_takes_long(part):
    """Twice the length takes about twice the time: nothing is tried over and over."""
    import time

    def seconds(size):
        text = (part * size)[:size]
        began = time.process_time()
        redacted(text)
        return time.process_time() - began

    def least(size):
        # Of several: a collection of garbage in one of them is nobody's fault.
        return min(seconds(size) for _ in range(5))

    seconds(1_000)
    assert least(64_000) < 40 * max(least(8_000), 2e-3)


# The formatters.


def record(message, *arguments, error=None):
    exc_info = None
    if error is not None:
        try:
            raise error
        except type(error):
            exc_info = sys.exc_info()
    return logging.LogRecord("daemon.x", logging.ERROR, __file__, 1, message, arguments, exc_info)


@given(secret=SECRETS)
def test_exceptions_and_arguments_are_redacted_too(secret):
    for made in (
        record("asked %s", f"https://x.example/?apikey={secret}"),
        record("failed", error=RuntimeError(f"headers={{'Authorization': 'Bearer {secret}'}}")),
        record("failed", error=KeyError(("api_key", secret))),
    ):
        for formatter in (JsonFormatter(), LineFormatter()):
            assert secret not in formatter.format(made)


def test_a_known_secret_is_hidden_in_exceptions_and_in_the_code_they_show():
    made = record("failed", error=RuntimeError("it was sesame-open-now"))
    for formatter in (JsonFormatter(["sesame-open-now"]), LineFormatter(["sesame-open-now"])):
        assert "sesame-open-now" not in formatter.format(made)


def test_a_line_names_its_request_and_none_outside_of_requests():
    assert "request" not in json.loads(JsonFormatter().format(record("x")))
    scope = REQUEST_ID.set("req-1")
    try:
        assert json.loads(JsonFormatter().format(record("x")))["request"] == "req-1"
    finally:
        REQUEST_ID.reset(scope)


def test_what_is_no_text_and_what_is_too_long_can_be_written():
    line = json.loads(JsonFormatter().format(record("%s", "\udcff" + "x" * 1_000_000)))
    assert line["message"].startswith("\\udcff")
    assert len(line["message"]) < 200_000
    assert "more characters" in line["message"]


@given(st.text())
def test_a_terminal_obeys_nothing_of_a_line(text):
    shown = printable(text)
    assert not [each for each in shown if (ord(each) < 32 and each not in "\n\t") or 127 <= ord(each) < 160]
