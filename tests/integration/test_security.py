"""What keeps others out of the daemon: every guard asked over real sockets, as a stranger or a foreign page."""

import asyncio
import base64
import contextlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from unittest.mock import MagicMock
from urllib.parse import urlsplit

import psutil
import pytest
from aiohttp import web

from daemon.api.deadline import HeaderDeadline, telling_deadline
from daemon.api.http import application
from daemon.api.server import listen
from daemon.api.services import Services
from daemon.api.settings import HttpConfig
from daemon.core.errors import Code, ConfigError

RUNS = "/api/v1/runs"
FRIEND = "app://atlas"
SETTINGS = """
[workers]
executor = "threads"
[http]
allowed_hosts = ["named.test"]
allowed_origins = ["app://atlas", "http://localhost:5173"]
max_body_kb = 16
"""
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
}
posix = pytest.mark.skipif(sys.platform == "win32", reason="modes and umask are those of POSIX")


@pytest.fixture(scope="module")
def guarded(serve, cli, bars_files, tmp_path_factory):
    """A daemon with one short series, some friends, and no workers."""
    folder = tmp_path_factory.mktemp("guarded") / "data"
    config = folder.parent / "config.toml"
    config.write_text(SETTINGS)
    path = bars_files["SYNB", "1Hour"]
    imported = cli("import", "bars", path, "--symbol", "SYNB", "--timeframe", "1Hour", "--data-dir", folder)
    assert imported.returncode == 0, imported.stderr
    return serve(folder, "--config", config, "--allow-host", "other.test", "--allow-host", "third.test")


@pytest.fixture(scope="module")
def routes():
    """Every route of the daemon, its parameters filled, with a method it takes."""
    nobody = {name: MagicMock() for name in Services._fields}
    app = application(Services(**(nobody | {"config": HttpConfig()})))
    found = {
        (route.method, re.sub(r"\{[^}]*\}", "x", route.resource.canonical))
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert len(found) > 30
    return sorted(found)


def ask(daemon, method, path, headers=None, body=None, token=None):
    """Status and code of an answer; token: None for none, True for the right one."""
    content = b"{}" if body is None and method == "POST" else body
    answer = daemon.request(method, path, content, headers, token=daemon.token if token is True else token)
    code = answer.body["error"]["code"] if answer.body and "error" in answer.body else None
    return answer.status, code


def connect(daemon):
    return socket.create_connection(("127.0.0.1", daemon.ready["port"]), timeout=20)


def exchange(daemon, request):
    """Send raw bytes; returns the status line's number and what follows, None where the connection just ends."""
    with connect(daemon) as plain:
        plain.sendall(request)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := plain.recv(65536):
                received += piece
    return (int(received.split(b" ")[1]), received) if received else (None, b"")


# Which machine is meant.


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8080"])
def test_a_foreign_host_is_refused_on_every_route_with_and_without_the_token(guarded, routes, host):
    for method, path in routes:
        for token in (None, True):
            assert ask(guarded, method, path, {"Host": host}, token=token) == (403, "HOST_NOT_ALLOWED"), path
    assert ask(guarded, "GET", "/no/such/route", {"Host": host}) == (403, "HOST_NOT_ALLOWED")
    assert ask(guarded, "GET", "/ws", UPGRADE | {"Host": host}, token=True) == (403, "HOST_NOT_ALLOWED")


@pytest.mark.parametrize("host", ["localhost.", "[::2]", "[::1", "127.0.0.1:", "127.0.0.1@evil.example", "0.0.0.0", ""])  # noqa: S104
def test_what_is_nearly_this_machine_is_foreign(guarded, host):
    assert ask(guarded, "GET", "/health", {"Host": host}, token=True) == (403, "HOST_NOT_ALLOWED")


def test_two_hosts_or_none_are_no_host(guarded):
    for line in (b"", b"Host: localhost\r\nHost: evil.example\r\n"):
        status, _ = exchange(guarded, b"GET /health HTTP/1.1\r\n" + line + b"Connection: close\r\n\r\n")
        assert status in (400, 403)
    absolute = b"GET http://localhost/health HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    assert exchange(guarded, absolute)[0] == 403


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:80", "named.test", "other.test:1", "third.test"]
)
def test_this_machines_names_and_those_that_were_added_are_let_in(guarded, host):
    assert ask(guarded, "GET", "/health", {"Host": host})[0] == 200


def test_both_loopback_addresses_are_the_daemons(guarded):
    try:
        taken = socket.create_connection(("::1", guarded.ready["port"]), timeout=5)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with taken:
        taken.sendall(b"GET /health HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n")
        assert taken.recv(100).startswith(b"HTTP/1.1 200")


def test_a_port_that_somebody_has_on_the_other_address_is_refused():
    try:
        taken = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with taken, pytest.raises(ConfigError, match="::1") as refused:
        listen("127.0.0.1", taken.getsockname()[1])
    assert refused.value.code is Code.ADDRESS_UNAVAILABLE


# Which page asks.


@pytest.mark.parametrize("origin", ["null", "http://evil.example"])
def test_a_foreign_page_is_refused_on_every_route_even_with_the_token(guarded, routes, origin):
    for method, path in routes:
        assert ask(guarded, method, path, {"Origin": origin}, token=True) == (403, "ORIGIN_NOT_ALLOWED"), path
    assert ask(guarded, "GET", "/ws", UPGRADE | {"Origin": origin}, token=True) == (403, "ORIGIN_NOT_ALLOWED")


@pytest.mark.parametrize(
    "origin",
    ["http://localhost:1", "https://localhost:5173", "http://localhost:51730", "http://localhost", "app://atlas.evil",
     "app://ATLAS", "app://atlas/", "*", "", "file://", "app://atlas, http://evil.example", "NULL"],
)  # fmt: skip
def test_what_is_nearly_a_friend_is_foreign(guarded, origin):
    answer = guarded.request("GET", RUNS, headers={"Origin": origin})
    assert (answer.status, answer.body["error"]["code"]) == (403, "ORIGIN_NOT_ALLOWED")
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_a_preflight_of_a_foreign_page_is_refused(guarded):
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    for origin in ("http://evil.example", "null"):
        answer = guarded.request("OPTIONS", RUNS, headers={"Origin": origin} | asked, token=None)
        assert answer.status == 403
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_the_own_page_may_ask_with_the_token(guarded):
    for host in (f"127.0.0.1:{guarded.ready['port']}", f"localhost:{guarded.ready['port']}"):
        own = {"Host": host, "Origin": f"http://{host}"}
        assert ask(guarded, "GET", RUNS, own, token=True)[0] == 200
        assert ask(guarded, "GET", RUNS, own) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize("origin", [FRIEND, "http://localhost:5173"])
def test_a_page_that_was_named_gets_its_preflight_and_still_needs_the_token(guarded, origin):
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, content-type"}
    answer = guarded.request("OPTIONS", RUNS, headers={"Origin": origin} | asked, token=None)
    assert (answer.status, answer.body) == (204, None)
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert "authorization" in answer.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Credentials" not in answer.headers
    refused = guarded.request("GET", RUNS, headers={"Origin": origin}, token=None)
    assert (refused.status, refused.headers["Access-Control-Allow-Origin"]) == (401, origin)
    let_in = guarded.request("GET", RUNS, headers={"Origin": origin})
    assert (let_in.status, let_in.headers["Access-Control-Allow-Origin"]) == (200, origin)
    assert "Origin" in let_in.headers.get_all("Vary")


def test_no_origin_is_fine_with_the_token_and_nothing_is_allowed_to_pages_then(guarded):
    answer = guarded.request("GET", RUNS)
    assert answer.status == 200
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    "origin", ["null", "*", "http://localhost:1/", "localhost:5173", "http://*.test", "http://LOCALHOST"]
)
def test_an_origin_that_no_browser_sends_is_refused_in_the_settings(atlasd_inside, tmp_path, origin):
    config = tmp_path / "config.toml"
    config.write_text(f'[http]\nallowed_origins = ["{origin}"]\n')
    done = atlasd_inside("serve", "--port", "0", "--config", config, "--data-dir", tmp_path / "data")
    assert (done.returncode, done.stdout) == (1, "")
    assert "allowed_origins" in done.stderr
    assert "[CONFIG_INVALID]" in done.stderr


# The token.


def test_without_the_token_or_with_a_wrong_one_no_route_answers(guarded, routes):
    open_routes = {"/health", "/api/v1/health", "/", "/api/v1/session", "/ws", "/console/x"}
    closed = [
        (method, path)
        for method, path in routes
        if path not in open_routes or (method, path) == ("DELETE", "/api/v1/session")
    ]
    assert len(closed) > 30
    for method, path in closed:
        assert ask(guarded, method, path) == (401, "UNAUTHORIZED"), path
        assert ask(guarded, method, path, token=guarded.token[:-1]) == (401, "UNAUTHORIZED"), path
    assert ask(guarded, "GET", "/no/such/route") == (401, "UNAUTHORIZED")
    assert ask(guarded, "GET", "/no/such/route", token=True) == (404, "ROUTE_NOT_FOUND")
    assert ask(guarded, "GET", "/ws", UPGRADE, token=guarded.token[:-1]) == (401, "UNAUTHORIZED")
    offered = UPGRADE | {"Sec-WebSocket-Protocol": "atlas.json, atlas.auth.wrong"}
    assert ask(guarded, "GET", "/ws", offered) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize(
    "path",
    ["//api/v1/runs", "/console/../api/v1/runs", "/console/%2e%2e/api/v1/runs", "/health/../api/v1/runs",
     "/api/v1/runs/", "/API/v1/runs", "/console%2f..%2fapi/v1/runs"],
)  # fmt: skip
def test_no_way_of_writing_a_path_opens_it(guarded, path):
    with connect(guarded) as plain:
        plain.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        status = int(plain.recv(100).split(b" ")[1])
    assert status in (401, 404)


@pytest.mark.parametrize("written", ["{}", "Bearer", "Bearer  ", "Basic {}", "bearer{}", "Bearer {} extra", "Token {}"])
def test_the_token_is_taken_as_a_bearers_only(guarded, written):
    given = {"Authorization": written.format(guarded.token)}
    assert ask(guarded, "GET", RUNS, given) == (401, "UNAUTHORIZED")
    answer = guarded.request("GET", RUNS, headers=given, token=None)
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert ask(guarded, "GET", f"{RUNS}?token={guarded.token}") == (401, "UNAUTHORIZED")
    assert ask(guarded, "GET", RUNS, {"Cookie": f"token={guarded.token}"}) == (401, "UNAUTHORIZED")
    assert ask(guarded, "GET", RUNS, {"Authorization": f"bearer {guarded.token}"})[0] == 200


def test_health_without_the_token_tells_the_status_and_nothing_else(guarded):
    for path in ("/health", "/api/v1/health"):
        assert guarded.request("GET", path, token=None).body == {"status": "ok"}
        assert set(guarded.request("GET", path).body) > {"status", "version"}


def test_failed_logins_lock_nobody_out(guarded):
    assert {ask(guarded, "GET", RUNS, token=f"guess-{number}")[0] for number in range(300)} == {401}
    assert ask(guarded, "GET", RUNS, token=True)[0] == 200


def test_answers_tell_browsers_to_keep_away(guarded):
    for path, token in (("/health", None), (RUNS, True), (RUNS, None), ("/no/such/route", True)):
        headers = guarded.request("GET", path, token=guarded.token if token else None).headers
        page, frames = headers.get_all("Content-Security-Policy")
        wanted = "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        assert page == wanted + "connect-src 'self' ws:"
        assert frames.startswith("frame-ancestors 'none'; ")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cache-Control"] == "no-store"
        assert "Set-Cookie" not in headers
        assert "aiohttp" not in headers["Server"]


# What a form can send, and how much.


@pytest.mark.parametrize(
    "kind",
    ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", "", "application/jsonp"],
)
def test_what_a_form_can_send_is_refused_and_starts_nothing(guarded, kind):
    body = json.dumps({"symbols": ["SYNB"], "timeframes": ["1Hour"], "run_id": "forged"}).encode()
    assert ask(guarded, "POST", RUNS, {"Content-Type": kind}, body, token=True) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert ask(guarded, "POST", RUNS, {"Content-Type": kind}, body) == (401, "UNAUTHORIZED")
    assert ask(guarded, "GET", f"{RUNS}/forged", token=True) == (404, "RUN_NOT_FOUND")


def test_get_changes_nothing(guarded, routes):
    starting = [path for method, path in routes if method in ("POST", "DELETE")]
    before = guarded.request("GET", RUNS).body
    for path in starting:
        assert ask(guarded, "GET", path, token=True)[0] in (200, 400, 404, 405), path
    assert guarded.request("GET", RUNS).body == before


def test_a_large_body_or_header_is_refused_and_the_daemon_goes_on(guarded):
    assert ask(guarded, "POST", RUNS, body=b" " * 17 * 1024, token=True) == (413, "BODY_TOO_LARGE")
    head = f"GET {RUNS} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {guarded.token}\r\n"
    for more in ("X-Long: " + "x" * 9000, "\r\n".join(f"X-{number}: x" for number in range(500))):
        status, _ = exchange(guarded, f"{head}{more}\r\nConnection: close\r\n\r\n".encode())
        assert status == 400
    status, _ = exchange(guarded, f"GET /{'x' * 9000} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert status == 400
    assert ask(guarded, "GET", RUNS, token=True)[0] == 200


def test_a_stranger_sends_a_code_at_most(guarded):
    for headers in ({}, {"Transfer-Encoding": "chunked"}):
        body = b"1000\r\n" + b" " * 4096 + b"\r\n0\r\n\r\n" if headers else b" " * 4097
        assert ask(guarded, "POST", "/api/v1/session", headers, body) == (413, "BODY_TOO_LARGE")
    assert ask(guarded, "POST", "/api/v1/session", body=b" " * 4097, token=True) == (400, "INVALID_JSON")
    assert ask(guarded, "POST", "/api/v1/session", body=b'{"code": "guess"}') == (401, "UNAUTHORIZED")


def test_more_starts_a_second_than_ten_are_told_to_wait(guarded):
    wanted = {"symbols": ["SYNB"], "timeframes": ["1Hour"], "strategy_ids": [1]}
    statuses = []
    began = time.monotonic()
    while 429 not in statuses:
        answer = guarded.request("POST", RUNS, wanted, token=guarded.token)
        statuses.append(answer.status)
        assert len(statuses) < 200
    assert statuses[:-1] == [202] * (len(statuses) - 1)
    assert 10 <= len(statuses) - 1 <= 10 * (1 + time.monotonic() - began)
    assert answer.body["error"]["code"] == "TOO_MANY_REQUESTS"
    assert answer.headers["Retry-After"] == "1"
    assert ask(guarded, "GET", RUNS, token=True)[0] == 200  # only starts wait
    time.sleep(answer.body["error"]["details"]["retry_after_s"])
    assert guarded.request("POST", RUNS, wanted, token=guarded.token).status == 202


# Clients that are slow on purpose.


@pytest.fixture
async def patient():
    """A server whose deadline for headers is 0.2 s; its routes wait for longer."""

    async def slow(request):
        await asyncio.sleep(0.5)
        return web.Response(text=await request.text())

    app = web.Application(middlewares=[telling_deadline])
    app.router.add_route("*", "/", slow)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    server = await asyncio.get_running_loop().create_server(
        lambda: HeaderDeadline(runner.server(), 0.2), "127.0.0.1", 0
    )
    yield server.sockets[0].getsockname()[1]
    server.close()
    await runner.cleanup()


async def test_only_waiting_for_headers_is_measured(patient):
    reader, writer = await asyncio.open_connection("127.0.0.1", patient)
    for _ in range(2):  # the handler takes longer than the deadline, and so does the pause
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
        await asyncio.sleep(0.3)
        writer.write(b"{}")
        assert b" 200 " in await reader.readline()
        while await reader.readline() != b"\r\n":
            pass
        assert await reader.readexactly(2) == b"{}"
        await asyncio.sleep(0.3)
    writer.write(b"GET / HTTP/1.1\r\nHo")  # and what comes now is never finished
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize(("start", "drip"), [(b"", b""), (b"G", b""), (b"GET / HTTP/1.1\r\nHost: x\r\n", b"X")])
async def test_bytes_that_come_one_at_a_time_do_not_move_the_deadline(patient, start, drip):
    reader, writer = await asyncio.open_connection("127.0.0.1", patient)
    writer.write(start)
    with contextlib.suppress(ConnectionResetError):
        while not reader.at_eof():
            writer.write(drip)
            with contextlib.suppress(TimeoutError):
                assert await asyncio.wait_for(reader.read(1), 0.05) == b""
    writer.close()


def test_slowloris_is_hung_up_on_while_others_are_answered(guarded):
    began = time.monotonic()
    slow = [connect(guarded) for _ in range(200)]
    for number, each in enumerate(slow):
        each.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n"[: number % 40])
        each.settimeout(0)
    is_open = dict.fromkeys(range(len(slow)), True)
    while any(is_open.values()):
        assert time.monotonic() < began + 20
        asked = time.monotonic()
        assert ask(guarded, "GET", "/health")[0] == 200
        assert time.monotonic() - asked < 2
        for number in [number for number, still in is_open.items() if still]:
            try:
                slow[number].send(b"x")
                is_open[number] = slow[number].recv(1) != b""
            except BlockingIOError:
                pass
            except ConnectionError:
                is_open[number] = False
        time.sleep(0.1)
    for each in slow:
        each.close()
    assert time.monotonic() - began > 3  # not at once, either


# The token's file, and ways in.


@posix
def test_the_data_folder_is_private_whatever_the_umask_says(threads, tmp_path):
    folder, ready_file = tmp_path / "data", tmp_path / "ready.json"
    options = ["--port", "0", "--data-dir", folder, "--ready-file", ready_file, *threads]
    command = [sys.executable, "-m", "daemon", "serve", *map(str, options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, umask=0) as process:
        assert process.stdout.readline()
        process.terminate()
        assert process.wait(10) == 0
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for secret in (folder / "token", folder / "atlas.lmdb"):
        assert stat.S_IMODE(secret.stat().st_mode) & 0o077 == 0, secret


@posix
def test_a_shared_folder_or_token_stops_the_start(atlasd_inside, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o777)
    done = atlasd_inside("serve", "--port", "0", "--data-dir", folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "[DATA_DIR_SHARED]" in done.stderr
    folder.chmod(0o700)
    token = atlasd_inside("token", "--data-dir", folder).stdout.strip()
    (folder / "token").chmod(0o644)
    for command in (("serve", "--port", "0"), ("token",)):
        done = atlasd_inside(*command, "--data-dir", folder)
        assert (done.returncode, done.stdout) == (1, "")
        assert "[TOKEN_UNUSABLE]" in done.stderr
        assert token not in done.stderr


def test_the_token_survives_a_restart_and_is_the_one_that_is_printed(serve, threads, atlasd_inside, tmp_path):
    first = atlasd_inside("token", "--data-dir", tmp_path / "data")
    assert re.fullmatch(r"[\w-]{43}\n", first.stdout)
    for _ in range(2):
        daemon = serve(tmp_path / "data", *threads)
        assert ask(daemon, "GET", RUNS, token=first.stdout.strip())[0] == 200
        assert daemon.end()[0] == 0


def test_rotation_ends_the_old_token_and_its_sockets_before_the_new_one_is_printed(serve, threads, cli, tmp_path):
    daemon = serve(tmp_path / "data", *threads)
    old = daemon.token
    code = daemon.request("POST", "/api/v1/session/code", {}).body["code"]
    session = daemon.request("POST", "/api/v1/session", {"code": code}, token=None).body["token"]
    headers = UPGRADE | daemon.bearer | {"Host": "localhost"}
    upgrade = "GET /ws HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    with connect(daemon) as plain:
        plain.sendall(upgrade.encode())
        assert plain.recv(1000).startswith(b"HTTP/1.1 101")
        new = cli("token", "--rotate", "--data-dir", daemon.folder).stdout.strip()
        while plain.recv(1000):
            pass
    assert new not in ("", old)
    assert ask(daemon, "GET", RUNS, token=old) == (401, "UNAUTHORIZED")
    assert ask(daemon, "GET", RUNS, token=session) == (401, "UNAUTHORIZED")
    assert ask(daemon, "GET", RUNS, token=new)[0] == 200
    assert daemon.end()[0] == 0


def test_a_code_begins_one_session_that_may_do_all_but_beget_others(guarded):
    answer = guarded.request("POST", "/api/v1/session/code", {})
    assert (answer.status, answer.body["expires_in"]) == (201, 60)
    code = answer.body["code"]
    session = guarded.request("POST", "/api/v1/session", {"code": code}, token=None)
    assert (session.status, set(session.body)) == (200, {"token"})
    token = session.body["token"]
    assert token not in (code, guarded.token)
    assert ask(guarded, "POST", "/api/v1/session", body=json.dumps({"code": code}).encode()) == (401, "UNAUTHORIZED")
    assert ask(guarded, "GET", RUNS, token=token)[0] == 200
    assert ask(guarded, "POST", "/api/v1/session/code", token=token) == (401, "UNAUTHORIZED")
    assert ask(guarded, "POST", "/api/v1/session/code") == (401, "UNAUTHORIZED")
    assert ask(guarded, "DELETE", "/api/v1/session", token=token)[0] == 204
    assert ask(guarded, "GET", RUNS, token=token) == (401, "UNAUTHORIZED")
    assert ask(guarded, "DELETE", "/api/v1/session", token=True) == (401, "UNAUTHORIZED")


@posix
def test_open_leads_the_browser_to_a_code_that_no_argument_shows(guarded, cli, atlasd_inside, tmp_path):
    seen = tmp_path / "seen"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {seen}\n')
    browser.chmod(0o700)
    opened = cli("open", "--data-dir", guarded.folder, env=os.environ | {"BROWSER": f"{browser} %s"})
    assert (opened.returncode, opened.stdout) == (0, "")
    path = guarded.folder / "open.html"
    assert urlsplit(seen.read_text().strip()).path == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    code = re.search(rf'url={re.escape(guarded.ready["url"])}/#code=([\w-]+)"', path.read_text())[1]
    assert code not in seen.read_text()
    printed = atlasd_inside("open", "--print", "--data-dir", guarded.folder)
    assert printed.stdout == f"{path}\n"
    assert code not in path.read_text()
    assert guarded.request("POST", "/api/v1/session", {"code": code}, token=None).status == 200


def test_open_without_a_daemon_says_how_to_start_one(atlasd_inside, tmp_path):
    done = atlasd_inside("open", "--data-dir", tmp_path / "data")
    assert (done.returncode, done.stdout) == (1, "")
    assert "atlasd serve" in done.stderr
    assert "[DAEMON_UNREACHABLE]" in done.stderr


def test_whoever_took_the_port_of_a_killed_daemon_is_not_told_the_token(serve, threads, atlasd_inside, tmp_path):
    daemon = serve(tmp_path / "data", *threads)
    daemon.end(signal.SIGKILL)
    heard = []
    with socket.create_server(("127.0.0.1", daemon.ready["port"])) as thief:
        thief.settimeout(0.2)

        def listen():
            with contextlib.suppress(OSError):
                while True:
                    heard.append(thief.accept()[0])

        listener = threading.Thread(target=listen)
        listener.start()
        assert atlasd_inside("open", "--print", "--data-dir", daemon.folder).returncode == 1
        assert atlasd_inside("token", "--rotate", "--data-dir", daemon.folder).returncode == 0
        listener.join()
    assert not heard


def test_the_token_is_in_its_file_and_nowhere_else(guarded):
    token = guarded.token
    ask(guarded, "GET", f"{RUNS}?token={token}")
    ask(guarded, "GET", RUNS, {"Cookie": token}, token=True)
    process = psutil.Process(guarded.process.pid)
    told = [
        *process.cmdline(),
        *process.environ().values(),
        guarded.ready_line,
        guarded.ready_file.read_text(),
        guarded.complaints.read_text(),
    ]
    assert not [text for text in told if token in text]
    found = [path for path in guarded.folder.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert found == [guarded.folder / "token"]
