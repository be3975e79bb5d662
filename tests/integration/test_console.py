"""The console in a real browser, against a real daemon: every view, by mouse and by keys, and what evil names do."""

import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from daemon.core.market import NS_PER_DAY

pytest.importorskip("playwright")

EVIL = '<img src=x onerror="window.evil=1"><b>bold</b>'
STAND_INS = Path(__file__).parents[1] / "stand_ins"
START_NS = 19_700 * NS_PER_DAY
TRADES = 120_000
VIEWS = {
    "overview": ("#/overview", "Latest backtests"),
    "data": ("#/data", "Ranges and gaps"),
    "candles": ("#/data/local%3ASYNA", "candles"),
    "ticks": ("#/data/kraken%3ABTC-USDT", "Known gaps"),
    "probe": ("#/probe", "A new run"),
    "run": ("#/probe/first", "What can be told from luck"),
    "backtests": ("#/backtests", "New backtest"),
    "new": ("#/backtests/new", "As JSON"),
    "backtest": ("#/backtests/{one}", "Every question that was put to it"),
    "compare": ("#/backtests/compare/{one}/{other}", "What was asked otherwise"),
    "events": ("#/events", "backtest:complete"),
    "api": ("#/api/backtest:list", "Errors it may answer"),
    "settings": ("#/settings", "[workers]"),
}
WIDE = {"width": 1280, "height": 900}
CHARTS = ("data", "candles", "ticks", "run", "backtest", "compare")


def config(commission):
    return {
        "strategy": {"template": "momentum"},
        "backtest": {
            "startDate": "2024-01-02",
            "endDate": "2024-01-15",
            "symbols": ["SYNA"],
            "timeframe": "15m",
            "initialCapital": 10_000,
            "commission": commission,
        },
        "validation": {"monteCarlo": {"enabled": True, "iterations": 100}},
    }


def trades_file(path):
    """Trades of two days whose ids leave some out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(3)
    numbers = np.arange(TRADES)
    columns = {
        "timestamp": pa.array(START_NS + numbers * 700_000_001).cast(pa.timestamp("ns", tz="UTC")),
        "id": numbers + (numbers > 70_000) * 5,
        "price": pa.array([str(each) for each in (618_003 + np.cumsum(rng.integers(-2, 3, TRADES))) / 10]),
        "size": rng.integers(1, 100, TRADES),
        "side": pa.array(np.where(rng.integers(0, 2, TRADES), "buy", "sell")),
    }
    pq.write_table(pa.table(columns), path)


@pytest.fixture(scope="module")
def filled(serve, cli, bars_files, tmp_path_factory):
    """A daemon with bars, trades, a probe run and two backtests; a strategy and a backtest have HTML in their names."""
    home = tmp_path_factory.mktemp("console")
    shipped = json.loads((Path(__file__).parents[2] / "strategies.json").read_text())
    evil = shipped["strategies"][10] | {"id": 101, "name": "evil", "display_name": EVIL}
    (home / "evil.json").write_text(json.dumps({"version": shipped["version"], "strategies": [evil]}))
    (home / "config.toml").write_text(
        f'[workers]\nexecutor = "threads"\n[strategies]\nuser_file = "{home / "evil.json"}"\n'
    )
    started = serve(home / "data", "--config", home / "config.toml")
    trades_file(home / "trades.parquet")
    imports = [("bars", path, "--symbol", symbol, "--timeframe", frame) for (symbol, frame), path in bars_files.items()]
    imports.append(("trades", home / "trades.parquet", "--source", "parquet", "--symbol", "BTC-USDT"))
    for command in imports:
        venue = ("--venue", "kraken") if command[0] == "trades" else ()
        done = cli("import", *command, *venue, "--data-dir", started.folder)
        assert done.returncode == 0, done.stderr
    started.finish_run(
        symbols=["SYNA"], timeframes=["1Hour"], persist_trades=True, run_id="first", strategy_ids=[*range(1, 30), 101]
    )
    started.backtests = [backtested(started, EVIL, 0.0002), backtested(started, "second", 0.001)]
    return started


def backtested(daemon, name, commission):
    """Run a backtest to its end; returns its id."""
    answer = daemon.request("POST", "/api/v1/backtest/run", {"config": config(commission), "name": name})
    assert answer.status == 202, answer.body
    path = f"/api/v1/backtest/{answer.body['id']}/status"
    until(lambda: daemon.request("GET", path).body["status"] == "completed", 60)
    return answer.body["id"]


def until(holds, seconds=10.0):
    """Ask again until it holds; returns what it said."""
    deadline = time.monotonic() + seconds
    while not (said := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.03)
    return said


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium, installed where it is not there and can be."""
    from playwright.sync_api import sync_playwright

    if shutil.which("chromium") is None and shutil.which("apt-get") and os.geteuid() == 0:
        for command in (("update",), ("install", "-y", "--no-install-recommends", "chromium")):
            subprocess.run(["apt-get", "-qq", *command], capture_output=True, check=False)
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


class Console:
    """The page, signed in as `atlasd open` does it; what the browser complains of is kept."""

    def __init__(self, browser, daemon, **options):
        self.daemon = daemon
        self.url = f"http://127.0.0.1:{daemon.ready['port']}"
        self.context = browser.new_context(**{"viewport": WIDE} | options)
        self.context.add_init_script(
            "window.sockets = []; window.WebSocket = class extends WebSocket {"
            "constructor(...given) { super(...given); window.sockets.push(this); } };"
        )
        self.page = self.context.new_page()
        self.complaints = []
        self.page.on("console", lambda said: self._complain(said.type, said.text))
        self.page.on("pageerror", lambda error: self._complain("error", str(error)))

    def _complain(self, kind, text):
        if kind in ("error", "warning"):
            self.complaints.append(text)

    def code(self):
        return self.daemon.request("POST", "/api/v1/session/code", {}).body["code"]

    def sign_in(self):
        self.page.goto(f"{self.url}/#code={self.code()}")
        self.sees("connected")
        return self

    def go(self, address, words):
        self.page.goto(f"{self.url}/{address}")
        self.sees(words)

    def ask(self, expression, argument=None):
        return self.page.evaluate(expression, argument)

    def sees(self, words):
        """Wait for words anywhere on the page, and for no error."""
        until(lambda: words in self.ask("document.body.textContent"))
        assert self.ask("document.querySelector('#banner').hidden"), self.ask(
            "document.querySelector('#banner').textContent"
        )

    def draws(self, charts=1):
        """Wait for charts that have drawn something, and for the last redraw."""
        drawn = "document.querySelectorAll('.js-plotly-plot .main-svg :is(path, rect)').length > 3"
        until(lambda: self.ask(f"document.querySelectorAll('.js-plotly-plot').length >= {charts} && {drawn}"))


@pytest.fixture(scope="module")
def opened(browser, filled):
    """One page for many tests: plotly.js is read once."""
    console = Console(browser, filled).sign_in()
    yield console
    console.context.close()


@pytest.fixture
def console(opened):
    """The page as a test finds it; errors that the browser logs fail the test."""
    opened.complaints.clear()
    opened.page.set_viewport_size(WIDE)
    opened.page.emulate_media(color_scheme="light")
    opened.page.goto(f"{opened.url}/#/")
    yield opened
    assert opened.complaints == []


def address(filled, view):
    one, other = filled.backtests
    return VIEWS[view][0].format(one=one, other=other), VIEWS[view][1]


# Files.


def test_the_page_needs_no_token_and_names_no_paths(filled):
    import http.client

    def get(path, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", filled.ready["port"], timeout=30)
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response, content

    page, content = get("/")
    assert page.status == 200
    assert b"<script type=" in content
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    assert "unsafe-eval" not in page.headers["Content-Security-Policy"]
    plotly, content = get("/console/plotly.min.js")
    assert plotly.headers["Content-Type"].startswith("text/javascript")
    assert len(content) > 1_000_000
    again, content = get("/console/plotly.min.js", If_None_Match=plotly.headers["ETag"])
    assert (again.status, content) == (304, b"")
    for name in ("index.html", "..%2fhttp.py", "../http.py", "%2e%2e/http.py", "token", "app.js/x", "", "app.js%00"):
        assert get(f"/console/{name}")[0].status in (401, 404), name


def test_no_module_reads_text_as_html_or_code():
    folder = Path(__file__).parents[2] / "daemon" / "api" / "console"
    for path in folder.glob("*.js"):
        for word in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "gl'",
            "scattergl",
        ):
            assert word not in path.read_text(), f"{word} in {path.name}"
    assert "<script>" not in (folder / "index.html").read_text()
    assert " on" not in (folder / "index.html").read_text().replace(" only", "").replace("on the", "")


# Signing in.


def test_a_code_is_cleared_from_the_address_and_works_once(browser, filled):
    opened = Console(browser, filled)
    code = opened.code()
    opened.page.goto(f"{opened.url}/#code={code}")
    opened.sees("connected")
    assert code not in opened.page.url
    kept = opened.ask("JSON.stringify(sessionStorage)")
    assert code not in kept
    assert filled.token not in kept
    assert opened.ask("JSON.stringify(localStorage)") == "{}"
    assert opened.context.cookies() == []
    opened.context.close()
    second = Console(browser, filled)
    second.page.goto(f"{second.url}/#code={code}")
    until(lambda: "atlasd open" in second.ask("document.body.textContent"))
    assert "UNAUTHORIZED" in second.ask("document.body.textContent")
    second.context.close()


def test_without_a_session_the_page_says_how_to_get_in_and_asks_nothing(browser, filled):
    opened = Console(browser, filled)
    asked = []
    opened.page.on("request", lambda request: asked.append(request.url.removeprefix(opened.url)))
    opened.page.goto(f"{opened.url}/#/settings")
    until(lambda: "atlasd open" in opened.ask("document.body.textContent"))
    assert [path for path in asked if not path.startswith(("/console/", "/#"))] == ["/"] * (asked.count("/"))
    assert opened.complaints == []
    opened.context.close()


# Views.


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_shows_what_there_is_wide_and_narrow_light_and_dark(console, filled, view, tmp_path):
    console.go(*address(filled, view))
    if view in CHARTS:
        console.draws()
    console.page.screenshot(path=tmp_path / f"{view}.png")
    assert console.ask("document.querySelectorAll('h1').length") == 1
    assert console.ask("document.querySelectorAll('nav [aria-current]').length") == 1
    assert console.ask("document.documentElement.scrollWidth") <= WIDE["width"]
    assert brightness(console) > 128
    console.page.set_viewport_size({"width": 800, "height": 900})
    console.page.emulate_media(color_scheme="dark")
    until(lambda: console.ask("document.documentElement.scrollWidth") <= 800)
    overflowing = (
        "[...document.querySelectorAll('.chart')].filter(each => each.scrollHeight > each.clientHeight + 1).length"
    )
    until(lambda: console.ask(overflowing) == 0)
    console.page.screenshot(path=tmp_path / f"{view}-narrow-dark.png")
    assert brightness(console) < 128


def brightness(console):
    paper = console.ask("getComputedStyle(document.body).backgroundColor")
    return sum(map(int, paper.strip("rgb()").split(","))) / 3


def test_the_switch_goes_over_the_system_and_charts_follow_it(console, filled):
    console.go(*address(filled, "candles"))
    console.draws()
    ink = "getComputedStyle(document.querySelector('.xtick text, .ytick text')).fill"
    light = console.ask(ink)
    console.page.click("#theme")
    assert "dark" in console.ask("document.querySelector('#theme').textContent")
    until(lambda: console.ask(ink) != light)
    console.page.reload()
    console.sees("candles")
    assert console.ask("document.documentElement.dataset.theme") == "dark"
    console.ask("localStorage.clear()")
    console.page.reload()


def test_everything_is_reached_by_keys(console):
    console.page.reload()
    console.go("#/overview", "Latest backtests")
    console.page.keyboard.press("Tab")
    assert console.ask("document.activeElement.id") == "skip"
    reached = []
    for _ in range(9):
        console.page.keyboard.press("Tab")
        reached.append(console.ask("document.activeElement.textContent.trim()"))
    assert reached[1:8] == ["Overview", "Data", "Probe", "Backtests", "Events", "API", "Settings"]
    console.page.focus("nav a[data-view=backtests]")
    console.page.keyboard.press("Enter")
    console.sees("New backtest")
    until(lambda: console.ask("document.querySelectorAll('.rows .line').length") >= 2)
    console.page.focus(".scroller")
    console.page.keyboard.press("ArrowDown")
    console.page.keyboard.press("Enter")
    console.sees("Every question that was put to it")


def test_a_table_of_ten_thousand_rows_makes_elements_of_those_that_are_seen(console):
    console.ask(
        """async () => {
          const {table} = await import("/console/table.js");
          const rows = Array.from({length: 10000}, (_, place) => ({place}));
          const columns = [{title: "Place", text: row => `row ${row.place}`, sort: row => row.place}];
          const made = table({label: "Many", rows, columns});
          document.querySelector("#view").replaceChildren(made.node);
          made.node.focus();
        }"""
    )
    count = "document.querySelectorAll('[aria-label=Many] .rows .line').length"
    assert 10 < console.ask(count) < 60
    console.page.keyboard.press("End")
    until(lambda: "row 9999" in console.ask("document.querySelector('#view').textContent"))
    assert console.ask(count) < 60
    assert console.ask("document.querySelector('[aria-label=Many]').getAttribute('aria-rowcount')") == "10001"
    console.page.click("[aria-label=Many] .head button")
    console.page.click("[aria-label=Many] .head button")
    assert console.ask("document.querySelector('[role=columnheader]').getAttribute('aria-sort')") == "descending"


# Names that are attacks.


def test_names_with_html_in_them_stay_words(console, filled):
    evil = "%3Cimg%20src%3Dx%20onerror%3D%22window.evil%3D1%22%3E"
    for where in (
        address(filled, "overview"),
        address(filled, "backtests"),
        address(filled, "backtest"),
        address(filled, "compare"),
        ("#/events", "<img src=x"),
        address(filled, "run"),
        (f"#/data/{evil}", "Nothing is stored under this symbol"),
        ("#/backtests/new", "As JSON"),
    ):
        console.go(*where)
        if "probe" in where[0] or "compare" in where[0]:
            console.draws()
        until(lambda: "<img src=x" in console.ask("document.body.textContent"))
        assert console.ask("document.querySelectorAll('img:not(.brand img), b b, main script').length") == 0, where
    assert console.ask("window.evil ?? null") is None


def test_an_error_is_told_once_with_its_code_and_what_to_do(console):
    console.page.goto(f"{console.url}/#/backtests/%3Cimg%20src%3Dx%3E")
    until(lambda: "BACKTEST_NOT_FOUND" in console.ask("document.querySelector('#banner').textContent"))
    assert console.ask("document.querySelectorAll('#banner img').length") == 0
    assert "docs/errors.md" in console.ask("document.querySelector('#banner').textContent")
    console.page.click("#banner button")
    assert console.ask("document.querySelector('#banner').hidden")


def test_a_strategy_that_raises_is_told_by_its_own_lines_as_words(console, filled):
    folder = filled.folder / "strategies"
    folder.mkdir(mode=0o700, exist_ok=True)
    source = (
        "from daemon.research import Strategy",
        "",
        "class Evil(Strategy):",
        "    def on_bar(self, context, bar):",
        "        self.quote({})",
        "",
        "    def quote(self, seen):",
        f"        raise ValueError({EVIL!r})",
    )
    (folder / "evil.py").write_text("\n".join(source))
    wanted = {"config": config(0.001) | {"strategy": {"own": "evil"}, "validation": None}}
    failing = filled.request("POST", "/api/v1/backtest/run", wanted).body["id"]
    console.go(f"#/backtests/{failing}", "the last one raised")
    assert "STRATEGY_RAISED" in console.ask("document.querySelector('#view').textContent")
    lines = console.ask("document.querySelector('pre').textContent").splitlines()
    assert [line.split(": ", 1)[1] for line in lines] == [source[4].strip(), source[7].strip()]
    assert [line.split(", ")[1] for line in lines] == ["line 5", "line 8"]
    assert console.ask("document.querySelectorAll('#view img, #view b b').length") == 0
    assert console.ask("window.evil ?? null") is None
    console.page.set_viewport_size({"width": 800, "height": 900})
    until(lambda: console.ask("document.documentElement.scrollWidth") <= 800)


# What is live.


def test_a_backtest_is_started_by_the_form_and_watched_to_its_verdict(console):
    console.go("#/backtests/new", "As JSON")
    console.page.get_by_role("combobox", name="Symbol", exact=True).select_option("local:SYNB")
    console.page.get_by_role("textbox", name="Name", exact=True).fill("by form")
    assert json.loads(console.ask("document.querySelector('textarea').value"))["backtest"]["symbols"] == ["local:SYNB"]
    console.page.get_by_role("button", name="Start", exact=True).click()
    until(lambda: "completed" in console.ask("document.querySelector('.title')?.textContent ?? ''"), 60)
    console.sees("by form")
    console.draws()


def test_a_probe_is_started_by_the_form_and_watched_to_its_end(console):
    console.go("#/probe", "A new run")
    console.page.get_by_role("listbox", name="Symbols").select_option("local:SYNB")
    console.page.get_by_role("textbox", name="Name", exact=True).fill("by-form")
    console.page.get_by_role("button", name="Start", exact=True).click()
    until(lambda: "completed" in console.ask("document.querySelector('.figures')?.textContent ?? ''"), 60)
    console.sees("What can be told from luck")
    console.draws()


def test_a_report_is_saved_with_the_session(console, filled, tmp_path):
    console.go(*address(filled, "backtest"))
    with console.page.expect_download() as saving:
        console.page.get_by_role("button", name="Save report").click()
    saving.value.save_as(tmp_path / "report.html")
    assert "<html" in (tmp_path / "report.html").read_text()


def test_a_trade_opens_its_receipts(console, filled):
    console.go(*address(filled, "backtest"))
    console.draws(2)
    until(lambda: console.ask("document.querySelectorAll('[aria-label=Trades] .rows .line').length") > 5)
    console.page.focus("[aria-label=Trades]")
    console.page.keyboard.press("ArrowDown")
    console.page.keyboard.press("Enter")
    console.sees("Receipts of trade")


def test_a_trade_of_another_symbol_is_shown_on_the_candles_of_that_symbol(console, filled):
    wanted = config(0.001) | {"validation": None}
    wanted["backtest"] |= {"symbols": ["SYNA", "SYNB"], "timeframe": "1h"}
    both = filled.request("POST", "/api/v1/backtest/run", {"config": wanted, "name": "both"}).body["id"]
    until(lambda: filled.request("GET", f"/api/v1/backtest/{both}/status").body["status"] == "completed", 60)
    console.go(f"#/backtests/{both}", "Trades")
    console.draws(2)
    shown = "[...document.querySelectorAll('[aria-label=Trades] .rows .line')].map(each => each.textContent)"
    first, other = sorted({"SYNA", "SYNB"}, key=lambda each: each not in until(lambda: console.ask(shown))[0])
    assert console.ask(f"document.querySelectorAll('[aria-label$=\"{first} on candles\"]').length") == 1
    console.page.focus("[aria-label=Trades]")
    for _ in range(next(place for place, line in enumerate(console.ask(shown)) if other in line) + 1):
        console.page.keyboard.press("ArrowDown")
    console.page.keyboard.press("Enter")
    until(lambda: console.ask(f"document.querySelectorAll('[aria-label$=\"{other} on candles\"]').length") == 1)
    views = "performance.getEntriesByType('resource').map(each => each.name).filter(each => each.includes('/view/'))"
    until(lambda: other in console.ask(views)[-1])
    console.draws(2)


def test_a_name_as_long_as_one_may_be_does_not_widen_the_page(console, filled):
    name = "W" * 200
    backtested(filled, name, 0.003)
    for width in (800, WIDE["width"]):
        console.page.set_viewport_size({"width": width, "height": 900})
        console.go("#/backtests", name)
        until(lambda: console.ask("document.querySelectorAll('[aria-label=\"First to compare\"]').length") == 1)
        until(lambda width=width: console.ask("document.documentElement.scrollWidth") <= width)
        console.go("#/overview", "Latest backtests")
        until(lambda width=width: console.ask("document.documentElement.scrollWidth") <= width)


def test_a_figure_of_nothing_has_no_sign(console):
    told = (
        "async given => { const {number} = await import('/console/dom.js'); return given.map(each => number(each)); }"
    )
    assert console.ask(told, [-0.0, -0.001, -1.5, 1234.5]) == ["0.00", "0.00", "\N{MINUS SIGN}1.50", "1,234.50"]


def test_a_cell_of_the_map_opens_its_groups_and_trades(console):
    console.go("#/probe/first", "What can be told from luck")
    console.draws()
    until(lambda: console.ask("document.querySelectorAll('[aria-label=Combinations] .line').length") > 5)
    console.page.focus("[aria-label=Combinations]")
    console.page.keyboard.press("ArrowDown")
    console.page.keyboard.press("Enter")
    console.sees("groups by day and hour of entry")
    until(lambda: console.ask("document.querySelectorAll('[aria-label=Trades] .rows .line').length") > 1)


def test_facts_of_a_lost_connection_are_told_once_it_is_back(console, filled):
    console.go("#/events", "backtest:complete")
    console.ask("window.sockets.at(-1).close()")
    name = backtested(filled, "meanwhile", 0.0004)
    until(lambda: name in console.ask("document.body.textContent"), 20)
    console.sees("connected")
    time.sleep(0.3)
    told = console.ask(
        "name => [...document.querySelectorAll('.rows .line')].filter(each => each.textContent.includes(name) && "
        "each.textContent.includes('backtest:complete')).length",
        name,
    )
    assert told == 1


def test_zooming_asks_for_more_detail_until_there_are_ticks(console):
    views = (
        "performance.getEntriesByType('resource').map(each => each.name).filter(each => each.includes('/data/view/'))"
    )
    console.go("#/data/kraken%3ABTC-USDT", "Known gaps")
    console.draws()
    console.page.get_by_role("button", name="All").click()
    until(
        lambda: console.ask("document.querySelector('.js-plotly-plot').data.some(each => each.type === 'candlestick')")
    )
    middle_ms = (START_NS + TRADES // 2 * 700_000_001) // 10**6
    before = len(console.ask(views))
    console.ask(
        "([start, end]) => Plotly.relayout(document.querySelector('.js-plotly-plot'), {'xaxis.range': [start, end]})",
        [middle_ms, middle_ms + 300_000],
    )
    until(lambda: any("stream=trades" in url for url in console.ask(views)[before:]))
    until(lambda: "trades \N{MIDDLE DOT}" in console.ask("document.body.textContent"))
    took = console.ask("import('/console/charts.js').then(charts => charts.redraws)")
    print("charts were drawn in", [round(each) for each in took], "ms")  # noqa: T201 - `pytest -rP` shows it
    assert max(took) < 3_000


def test_a_method_is_tried_and_its_frames_are_shown(console):
    console.go("#/api/backtest:status", "Errors it may answer")
    console.page.fill("textarea", '{"id": "nothing"}')
    console.page.get_by_role("button", name="Send").click()
    until(lambda: "BACKTEST_NOT_FOUND" in console.ask("document.querySelectorAll('pre')[1].textContent"))
    assert '"method": "backtest:status"' in console.ask("document.querySelector('pre').textContent")


def test_settings_tell_where_a_value_came_from(console):
    console.go("#/settings", "[workers]")
    console.page.get_by_label("only what is not as shipped").check()
    shown = console.ask("document.querySelector('#view').textContent")
    assert "executor" in shown
    assert "config.toml" in shown
    assert "retention" not in shown


# The evil page.


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_page_on_another_port_gets_nothing(browser, filled, host):
    """Another port, and another origin by its name as well; the browser has a session of the console besides."""
    handler = functools.partial(_Quiet, directory=str(STAND_INS))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        opened = Console(browser, filled).sign_in()
        page = opened.context.new_page()
        page.goto(f"http://{host}:{server.server_port}/evil.html?target={opened.url}")
        until(lambda: page.evaluate("window.finished === true"), 30)
        attempts = page.evaluate("window.attempts")
        server.shutdown()
    opened.context.close()
    got = {
        name: said
        for name, said in attempts.items()
        if not said.startswith(("refused", "sent")) and not said.startswith("answered: 0 opaque ")
    }
    assert got == {}
    assert all(said == "answered: 0 opaque " for said in attempts.values() if said.startswith("answered: 0"))
    assert filled.request("GET", "/api/v1/runs/evil").status == 404


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass
