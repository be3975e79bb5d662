import json
import re
import shutil
import subprocess
import threading
from html import unescape
from http.server import BaseHTTPRequestHandler, HTTPServer

import msgspec
import numpy as np
import pytest
from pages import EVIL, Reader, evil_sample, own, replaced
from plotly.offline import get_plotlyjs
from samples import Sample, sample_backtest, sample_result

from daemon.core.market import Bars
from daemon.research.backtest_charts import MOST_CANDLES, MOST_POINTS, MOST_SYMBOLS, MOST_TRADES
from daemon.research.backtest_report import report_html
from daemon.research.backtest_result import MonthlyReturn
from daemon.research.plotly_page import spoken_duration

CHARTS = ("equity", "candles", "costs", "pnl", "mae", "mfe", "folds", "stitched", "fan", "logits")
SANDBOX = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
)
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def words(*sample, **options):
    return Reader(own(report_html(*sample, **options))).words


def charts(*sample):
    return json.loads(re.search(r'id="charts">(.*?)</script>', report_html(*sample), re.DOTALL)[1])


def walk(size):
    """A market of so many minutes, with one spike up and one down."""
    close = 100 + np.cumsum(np.random.default_rng(3).normal(0, 0.01, size))
    close[size // 3], close[size // 2] = 500.0, 1.0
    return Bars(60 * 10**9 * np.arange(size), close, close + 1, close - 0.5, close, np.ones(size))


# The file.


def test_the_page_holds_plotly_once_and_loads_nothing():
    html = report_html(*sample_backtest())
    assert html.count(get_plotlyjs()) == 1
    assert "http:" not in own(html)
    assert "https:" not in own(html)
    assert Reader(own(html)).links == []
    assert "default-src 'none'" in own(html)


def test_every_tag_is_closed_and_no_placeholder_is_left():
    reader = Reader(own(report_html(*sample_backtest())))
    assert reader.open == []
    assert "$" not in reader.words


def test_equal_input_gives_equal_bytes():
    assert report_html(*sample_backtest()) == report_html(*sample_backtest())
    assert report_html(*sample_backtest()) != report_html(*sample_backtest(id="bt_other"))


def test_what_users_named_is_escaped_everywhere():
    sample, usual = evil_sample(), Reader(own(report_html(*sample_backtest())))
    html = report_html(*sample, labels=[EVIL])
    reader = Reader(own(html))
    assert reader.open == []
    assert reader.tags <= usual.tags
    assert reader.attributes <= usual.attributes
    assert reader.words.count(EVIL) > 100
    assert "</script><img" not in own(html)
    assert unescape(own(html)).count(f"<title>{EVIL}</title>") == 1
    drawn = charts(*sample)
    assert {each["name"] for each in drawn["symbols"]} == {EVIL, f"local:{EVIL}"}
    assert set(drawn["trades"]["reason"]) == {EVIL, f"{EVIL} ({EVIL})"}


# What is drawn.


def test_columns_of_a_chart_are_equally_long_and_hold_numbers():
    drawn = charts(*sample_backtest())
    assert set(drawn) == {"equity", "symbols", "trades", "pnl", "costs", "validation"}
    for part in (drawn["equity"], drawn["trades"]):
        assert len({len(column) for column in part.values()}) == 1
    for symbol in drawn["symbols"]:
        assert len({len(symbol[name]) for name in ("time", "open", "high", "low", "close")}) == 1
    assert all(isinstance(value, int) for value in drawn["equity"]["time"])
    assert drawn["equity"]["equity"][0] == 10_000


def test_a_million_samples_become_a_screenful_that_keeps_the_extremes():
    size = 1_000_000
    sample = sample_backtest(trades=3)
    value = 10_000 + np.cumsum(np.random.default_rng(1).normal(0, 1, size))
    value[400_000], value[700_000] = 50_000.0, 500.0
    equity = dict.fromkeys(("equity", "cash", "positions_value", "unrealized_pnl"), value)
    equity["time_ns"] = 10**9 * np.arange(size)
    metrics = msgspec.structs.replace(sample.result.metrics, total_return=float(value[-1]) - 10_000)
    sample = replaced(sample, metrics=metrics)._replace(equity=equity)
    drawn = charts(*sample)["equity"]
    assert len(drawn["time"]) <= MOST_POINTS
    assert (drawn["time"][0], drawn["time"][-1]) == (0, 999_999_000)
    assert (max(drawn["equity"]), min(drawn["equity"])) == (50_000, 500)
    assert max(drawn["drawdown"]) == pytest.approx(99.0)
    assert len(own(report_html(*sample))) < 1_000_000


def test_the_drawdown_counts_from_the_initial_capital():
    sample = sample_backtest(trades=3)
    start = 10_000.0
    equity = {**sample.equity, "equity": np.full(sample.equity["time_ns"].size, 9_000.0)}
    metrics = msgspec.structs.replace(sample.result.metrics, total_return=9_000.0 - start)
    assert set(charts(*replaced(sample, metrics=metrics)._replace(equity=equity))["equity"]["drawdown"]) == {10.0}


def test_buy_and_hold_is_drawn_where_its_curve_is_there():
    sample = sample_backtest()
    held = sample.equity["equity"] * 1.5
    assert "held" not in charts(*sample)["equity"]
    drawn = charts(*sample._replace(equity={**sample.equity, "buy_and_hold": held}))["equity"]
    assert drawn["held"][0] == 15_000


def test_long_series_of_bars_are_drawn_as_longer_candles():
    bars = walk(300_000)
    drawn = charts(*sample_backtest(trades=0)._replace(candles={"local:M": bars}))["symbols"]
    assert [each["name"] for each in drawn] == ["local:M"]
    assert MOST_CANDLES / 2.5 < len(drawn[0]["time"]) <= MOST_CANDLES
    assert drawn[0]["width"] % 3_600_000 == 0
    assert all(time % drawn[0]["width"] == 0 for time in drawn[0]["time"])
    assert (max(drawn[0]["high"]), min(drawn[0]["low"])) == (501, 0.5)


def test_few_bars_are_drawn_as_they_are():
    sample = sample_backtest(bars=300, trades=4)
    drawn = charts(*sample)["symbols"][0]
    assert drawn["width"] is None
    assert drawn["close"] == pytest.approx(sample.candles[drawn["name"]].close, rel=1e-9)


def test_bars_of_centuries_fit_as_well():
    day = 86_400 * 10**9
    bars = walk(100_000)._replace(start_ns=day * np.arange(-50_000, 50_000))
    assert len(charts(*sample_backtest(trades=0)._replace(candles={"a:b": bars}))["symbols"][0]["time"]) <= MOST_CANDLES


def test_of_many_trades_the_largest_are_drawn_and_the_page_says_so():
    sample = sample_backtest(bars=4_000, trades=MOST_TRADES + 500)
    drawn = charts(*sample)["trades"]
    sizes = sorted((abs(trade.pnl) for trade in sample.result.trades), reverse=True)
    assert sorted(map(abs, drawn["pnl"]), reverse=True) == sizes[:MOST_TRADES]
    assert drawn["entry_time"] == sorted(drawn["entry_time"])
    assert "2,000 of 2,500 trades are drawn" in words(*sample)
    assert "trades are drawn" not in words(*sample_backtest())


def test_trades_that_the_result_does_not_hold_are_told():
    sample = sample_backtest()
    stats = msgspec.structs.replace(sample.result.trade_stats, total_trades=12_345)
    text = words(*replaced(sample, trade_stats=stats))
    assert "Of 12,345 trades the first 40 are counted here; `atlasd backtest show bt_0123456789 --trades`" in text
    assert "40 of 12,345 trades are drawn" in text


def test_symbols_beyond_the_most_traded_have_no_chart_and_the_page_says_so():
    symbols = tuple(f"local:S{number:02}" for number in range(MOST_SYMBOLS + 2))
    sample = sample_backtest(symbols=symbols, bars=100, trades=MOST_SYMBOLS)
    drawn = charts(*sample)
    assert [each["name"] for each in drawn["symbols"]] == list(symbols[:MOST_SYMBOLS])
    assert "2 symbols with fewer trades have no chart here: local:S20, local:S21." in words(*sample)


def test_candles_are_found_by_symbol_without_its_venue_if_no_other_venue_has_it():
    sample = sample_backtest(symbols=("BTC/USDT",))
    bars = sample.candles["BTC/USDT"]
    one = charts(*sample._replace(candles={"local:BTC/USDT": bars}))["symbols"]
    assert [(each["name"], len(each["time"])) for each in one] == [("BTC/USDT", bars.size)]
    two = charts(*sample._replace(candles={"local:BTC/USDT": bars, "other:BTC/USDT": bars}))["symbols"]
    assert [len(each["time"]) for each in two] == [0, bars.size, bars.size]


def test_the_histogram_counts_every_trade_and_parts_gains_from_losses():
    sample = sample_backtest(bars=8_000, trades=500)
    bins = charts(*sample)["pnl"]
    edges = bins["start"] + bins["width"] * np.arange(len(bins["counts"]))
    assert sum(bins["counts"]) == 500
    losses = sum(count for edge, count in zip(edges, bins["counts"], strict=True) if edge < -bins["width"] / 2)
    assert losses == sum(trade.pnl < 0 for trade in sample.result.trades)
    assert len(bins["counts"]) <= 70


def test_one_huge_trade_does_not_hide_the_others():
    sample = sample_backtest(bars=8_000, trades=500)
    trades = [msgspec.structs.replace(sample.result.trades[0], pnl=1e9), *sample.result.trades[1:]]
    bins = charts(*replaced(sample, trades=trades))["pnl"]
    assert bins["high"]
    assert len(bins["counts"]) > 20


def test_the_waterfall_ends_at_the_net():
    costs = charts(*sample_backtest())["costs"]
    assert costs["names"] == ["Gross pnl", "Fees", "Slippage", "Funding", "Net pnl"]
    *parts, net = costs["values"]
    assert sum(parts) == pytest.approx(net)


# What is said.


def test_key_figures_stand_with_their_definitions():
    sample = sample_backtest(name="A momentum test")
    html = own(report_html(*sample, labels=["simulated market, seed 7"]))
    text = Reader(html).words
    metrics, definitions = sample.result.metrics, sample.result.definitions
    for heading in (
        "Total return",
        "Sharpe",
        "Max drawdown",
        "Trades",
        "Win rate",
        "Profit factor",
        "Band",
        "Buy and hold",
    ):
        assert f'tabindex="0"><span>{heading}</span>' in html
    for key in ("totalReturnPercent", "sharpeRatio", "maxDrawdownPercent", "totalTrades", "winRate", "profitFactor"):
        assert f'role="tooltip">{definitions[key]}</i>' in html
    assert f"{metrics.max_drawdown_percent:.2f} %" in text
    assert f"{100 * metrics.win_rate:.1f} %" in text
    assert text.count("A momentum test") == 2
    assert (
        "local:BTC/USDT, local:ETH/USDT \N{MIDDLE DOT} 1Hour \N{MIDDLE DOT} 2022-01-12 01:00 to 2022-03-03 UTC" in text
    )
    assert "bt_0123456789" in text
    assert sample.result.fingerprint in text
    assert "simulated market, seed 7" in text


def test_what_the_result_rests_on_is_there():
    result = sample_result()
    text = words(*sample_backtest())
    for line in (*result.readings, *result.assumptions, *result.notes):
        assert line in text
    assert "1 known holes, 3 missing intervals; positions were open over 1 of them" in text
    assert "slippage.model" in text
    assert "fedcba9876543210" in text
    assert "took 1.5 s" in text
    assert '"initialCapital": 10000.0' in text
    assert "1 order_ended" in text


def test_months_stand_under_their_years():
    months = [("2021-11", 10.0), ("2021-12", -5.0), ("2022-02", 0.0)]
    returns = [MonthlyReturn(month=month, return_percent=value) for month, value in months]
    html = report_html(*replaced(sample_backtest(), monthly_returns=returns))
    rows = re.findall(r"<tr><th>(\d{4})</th>(.*?)</tr>", html)
    assert [year for year, _ in rows] == ["2021", "2022"]
    cells = [re.findall(r"<td[^>]*>(?:<b>)?([^<]*)", row) for _, row in rows]
    assert cells[0] == [""] * 10 + ["+10.0", "\N{MINUS SIGN}5.0", "+4.5"]
    assert cells[1] == ["", "+0.0"] + [""] * 10 + ["+0.0"]


def test_a_wide_band_alarms_and_ticks_have_none():
    sample = sample_backtest()
    wide = msgspec.structs.replace(sample.result.band, is_wide=True, advice="get ticks", width_percent=-3.0)
    html = report_html(*replaced(sample, band=wide))
    assert '<p class="alarm">get ticks</p>' in html
    assert "3.00 % of the capital, wide" in Reader(own(html)).words
    assert "there is nothing to read in two ways" in words(*replaced(sample, band=None))


def test_exit_reasons_are_counted():
    table = re.search(r"Why they ended.*?</table>", report_html(*sample_backtest()), re.DOTALL)[0]
    assert "<td>signal</td><td>8</td><td>20.0 %</td>" in table
    assert "<td>manual (end of data)</td><td>1</td><td>2.5 %</td>" in table


def test_the_largest_trades_come_first_and_then_the_last():
    sample = sample_backtest(trades=60)
    tables = re.findall(r'<table class="trades">(.*?)</table>', report_html(*sample), re.DOTALL)
    listed = [[int(each) for each in re.findall(r'<tr class="\w*"><td>(\d+)</td>', table)] for table in tables]
    by_size = sorted(sample.result.trades, key=lambda trade: -abs(trade.pnl))
    assert listed == [[trade.id for trade in by_size[:15]], list(range(59, 44, -1))]


def test_a_backtest_without_trades_is_a_page():
    text = words(*sample_backtest(trades=0, events=[], monthly_returns=[]))
    assert "There were no trades." in text
    assert "No month has data." in text


def test_a_backtest_without_anything_is_a_page():
    sample = sample_backtest(trades=0)
    nothing = Sample(sample.result, {name: column[:0] for name, column in sample.equity.items()}, {})
    drawn = charts(*nothing)
    assert drawn["equity"] == {"time": []}
    assert drawn["symbols"] == []


def test_an_unfinished_backtest_says_so():
    sample = sample_backtest(status="failed")
    execution = msgspec.structs.replace(sample.result.execution, error="the disk is full")
    assert "Not a whole backtest (failed): the disk is full" in words(*replaced(sample, execution=execution))


def test_a_long_configuration_is_cut():
    html = own(report_html(*sample_backtest(config={"orders": list(range(50_000))})))
    assert "(the result has all of it)" in html
    assert len(html) < 400_000


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (61, "1 min 1 s"), (7_200, "2 h 0 min"), (176_400, "2 d 1 h")],
)
def test_durations_are_spoken_in_two_units(seconds, said):
    assert spoken_duration(seconds) == said


# In a browser.


@pytest.fixture
def serve():
    """Serve a page as the daemon does, in a sandbox; returns its address."""
    servers = []

    def start(html):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Security-Policy", SANDBOX)
                self.end_headers()
                self.wfile.write(html.encode())

            def log_message(self, *_):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
@pytest.mark.parametrize(("make", "missing"), [(evil_sample, ()), (lambda: sample_backtest(trades=0), CHARTS[3:6])])
def test_a_sandboxed_browser_draws_every_chart_and_complains_of_nothing(serve, tmp_path, make, missing):
    address = serve(report_html(*make()))
    options = (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path}",
        "--dump-dom",
    )
    done = subprocess.run([BROWSER, *options, address], capture_output=True, text=True, check=True, timeout=120)
    assert [line for line in done.stderr.splitlines() if ":CONSOLE" in line] == []
    for name in CHARTS:
        box = re.search(rf'<div id="{name}"[^>]*>(.*?)</div>', done.stdout, re.DOTALL)[0]
        assert ("display: none" if name in missing else "js-plotly-plot") in box
    assert "<img" not in done.stdout
    assert done.stdout.count("onerror=alert(1)&gt;") > 0 or make is not evil_sample
