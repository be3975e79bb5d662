import json
import math
import re
from datetime import UTC, datetime
from html import unescape
from html.parser import HTMLParser

import msgspec
import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from daemon.core.strategy import RiskProfile, Strategy
from daemon.research.ranking import rank
from daemon.research.records import Failure, Run
from daemon.research.report import render_report
from daemon.research.strategies import RuleBook, digest
from daemon.store.results import CombinationTotals, JobIndex

MEAN, DEVIATION, TRADES = 0.01, 0.02, 26  # t = 2.5
EVIL = '<script>alert("1")</script>&$title'
PARTIAL_NS = int(datetime(2021, 2, 3, 14, 30, tzinfo=UTC).timestamp()) * 10**9


def strategy(number, name):
    return Strategy(
        id=number,
        name=f"rule_{number}",
        display_name=name,
        philosophy="why",
        category="trend",
        direction="long_only",
        entry_long=(),
        entry_short=(),
        exit_long=(),
        exit_short=(),
        required_indicators=(),
    )


BOOK = RuleBook([strategy(1, "Slow Cross"), strategy(2, "Fast Cross")])


def job(trades=(TRADES, 0), *, symbol="SYN", venue="local", profiles=("low", "low"), ids=(1, 2), **fields):
    traded = [count > 0 for count in trades]
    totals = CombinationTotals(
        strategy_id=list(ids),
        risk_profile=list(profiles),
        trades=list(trades),
        groups=list(trades),
        wins=[count // 2 for count in trades],
        pnl_mean=[MEAN * each for each in traded],
        pnl_std=[DEVIATION * each for each in traded],
        max_drawdown=[0.0] * len(trades),
        max_profit=[0.0] * len(trades),
    )
    index = JobIndex(
        instrument=f"{venue}:{symbol}",
        symbol=symbol,
        timeframe="1Hour",
        source="1Hour",
        bars=12_345,
        bars_digest="0123456789abcdef",
        period_start_ns=1_577_923_200 * 10**9,
        period_end_ns=1_640_908_800 * 10**9,
        partial_buckets=[],
        totals=totals,
        parts=[],
    )
    return msgspec.structs.replace(index, **fields)


def run(**fields):
    stored = Run(
        run_id="r1",
        status="completed",
        created_ns=1_700_000_000 * 10**9,
        start_date=None,
        end_date=None,
        persist_trades=False,
        symbols=["local:SYN"],
        timeframes=["1Hour"],
        risk_profiles={"low": RiskProfile(stop_scale=0.75), "high": RiskProfile()},
        rules={each.id: digest(each) for each in BOOK},
        strategy_names={each.id: each.name for each in BOOK},
        total_combinations=2,
        completed_combinations=2,
        total_trades=TRADES,
        elapsed_seconds=75.0,
    )
    return msgspec.structs.replace(stored, **fields)


def page(*jobs, book=BOOK, stored=None, title="A title", labels=("synthetic market, seed 7",)):
    return render_report(stored or run(), jobs, book, title=title, labels=labels)


class Reader(HTMLParser):
    """Collects a page's visible words, its grid, and the tags that were opened and never closed."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.words, self.scripts, self.open, self.links = "", [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href", "action")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] == "script":
            self.scripts.append(text)
        elif self.open and self.open[-1] != "style":
            self.words += text


def grid(html):
    return json.loads(re.search(r'id="grid">(.*?)</script>', html, re.DOTALL)[1])


def test_the_page_holds_plotly_once_and_loads_nothing():
    html = page(job())
    assert html.count(get_plotlyjs()) == 1
    own = html.replace(get_plotlyjs(), "")
    assert "http:" not in own
    assert "https:" not in own
    assert Reader(own).links == []
    assert "default-src 'none'" in own
    assert len(own) < 40_000


def test_every_tag_is_closed_and_no_placeholder_is_left():
    reader = Reader(page(job()).replace(get_plotlyjs(), ""))
    assert reader.open == []
    assert "$" not in reader.words


def test_the_figures_appear():
    words = Reader(page(job(), job((300, 1_000), symbol="OTHER", profiles=("high", "low")))).words
    for expected in (
        "1,326",
        "2020-01-02",
        "2021-12-31",
        "1 min 15 s",
        "Slow Cross",
        "Fast Cross",
        "+1.000 %",
        "50.0 %",
    ):
        assert expected in words
    assert "+2.50" in words  # t
    assert "3 combinations traded" in words
    assert "2 symbols" in words


def test_labels_and_title_are_shown():
    words = Reader(page(job(), title="SYN since 2020", labels=["synthetic market, seed 7", "second"])).words
    assert words.count("SYN since 2020") == 2
    assert "synthetic market, seed 7" in words
    assert "second" in words


def test_what_users_named_is_escaped_everywhere():
    evil = job(symbol=EVIL, profiles=(EVIL, EVIL), timeframe="1Day", source="1Hour", partial_buckets=[PARTIAL_NS])
    stored = run(
        risk_profiles={EVIL: RiskProfile()},
        status="failed",
        error=Failure("INTERNAL", EVIL),
        strategy_names={1: EVIL, 2: EVIL},
    )
    html = page(evil, stored=stored, book=RuleBook([strategy(2, EVIL)]), title=EVIL, labels=[EVIL])
    own = html.replace(get_plotlyjs(), "")
    assert "<script>alert" not in own
    assert unescape(own).count(EVIL) > 5
    assert Reader(own).open == []
    assert grid(html)["columns"][0]["symbol"] == EVIL
    assert grid(html)["strategies"][0]["name"] == EVIL


@pytest.mark.parametrize("jobs", [(), (job((0, 0)),), (job((), ids=(), profiles=()),)])
def test_a_run_without_trades_is_a_page(jobs):
    words = Reader(page(*jobs)).words
    assert "there is nothing to judge" in words
    assert "No combination has 10 trades" in words


def test_the_grid_tells_not_run_from_never_traded():
    cells = grid(page(job((TRADES, 0)), job((TRADES,), symbol="B", profiles=("high",), ids=(2,))))
    assert [list(each.values()) for each in cells["columns"]] == [["B", "1Hour", "high"], ["SYN", "1Hour", "low"]]
    assert cells["trades"] == [[-1, TRADES], [TRADES, 0]]
    assert cells["t"] == [[None, 2.5], [2.5, None]]
    assert cells["mean"] == [[None, 1.0], [1.0, None]]
    assert cells["win"] == [[None, 50.0], [50.0, None]]


def test_jobs_of_one_series_share_its_columns():
    first, second = job((TRADES,), profiles=("low",), ids=(1,)), job((TRADES,), profiles=("low",), ids=(2,))
    html = page(first, second)
    assert grid(html)["trades"] == [[TRADES, TRADES]]
    assert Reader(html).words.count("12,345") == 1


def test_columns_go_by_timeframe_length_and_the_runs_order_of_profiles():
    hour = job(profiles=("high", "low"), ids=(1, 1))
    minutes = job(profiles=("high", "low"), ids=(1, 1), timeframe="15Min", source="15Min")
    names = [f"{each['timeframe']} {each['profile']}" for each in grid(page(hour, minutes))["columns"]]
    assert names == ["15Min low", "15Min high", "1Hour low", "1Hour high"]


def test_a_symbol_of_two_venues_goes_by_its_key():
    symbols = {each["symbol"] for each in grid(page(job(), job(venue="binance"), job(symbol="B")))["columns"]}
    assert symbols == {"local:SYN", "binance:SYN", "B"}


def test_derived_series_and_their_partial_buckets_are_named():
    words = Reader(page(job(timeframe="1Day", partial_buckets=[PARTIAL_NS]))).words
    assert "1 series is derived from shorter bars" in words
    assert "derived from 1Hour" in words
    assert "2021-02-03 14:30" in words


def test_an_unfinished_run_says_so():
    words = Reader(page(job(), stored=run(status="cancelled", total_combinations=9))).words
    assert "Not a whole run (cancelled): 2 of 9 combinations are stored" in words


def test_strategies_that_left_the_book_or_changed_are_told_apart():
    other = msgspec.structs.replace(strategy(2, "Fast Cross"), time_stop_bars=5)
    words = Reader(page(job((TRADES, TRADES)), book=RuleBook([other]))).words
    assert "rule_1" in words
    assert "Strategies whose rules were changed after this run: 2." in words


# Colours.


def family(edges, noise=200):
    """A job of combinations of 26 trades: some with an edge, by their t, and others that draw from luck alone."""
    t = np.concatenate([edges, np.random.default_rng(5).standard_normal(noise)])
    index = job([TRADES] * t.size, ids=range(1, t.size + 1), profiles=["low"] * t.size)
    index.totals.pnl_mean[:] = (t * DEVIATION / math.sqrt(TRADES - 1)).tolist()
    return index


def test_luck_alone_has_no_colour_and_the_legend_says_what_it_would_have_had():
    index = family([])
    html = page(index, stored=run(total_combinations=200))
    ranking = rank([index], 200)
    words = " ".join(Reader(html).words.split())
    assert not np.any(grid(html)["marks"])
    assert ranking.gains.uncorrected > 3
    assert "corrected for all 200 tries of the run" in words
    assert "Full colour: 0 cells of gain" in words
    wanted = f"{ranking.gains.uncorrected} gains and {ranking.losses.uncorrected} losses of 200 tested cells would be"
    assert wanted in words
    assert "luck alone colours some 10 of each" in words
    assert 'class="gain' not in html
    assert 'class="loss' not in html


def test_only_what_is_significant_after_the_correction_has_a_colour():
    index = family([7.0, 3.8, 3.8, 3.8, -7.0])
    html = page(index, stored=run(total_combinations=205))
    ranking = rank([index], 205)
    marks = grid(html)["marks"][0]
    assert marks[:5] == [2, 1, 1, 1, -2]
    assert not any(marks[5:])
    assert html.count('<tr class="gain">') == html.count('<tr class="loss">') == 1
    assert html.count('<tr class="gain maybe">') == 3
    words = " ".join(Reader(html).words.split())
    assert f"with z above {ranking.gains.significant_z:.2f}, and 1 of loss" in words
    assert f"3 more of gain, from {ranking.gains.discovered_z:.2f} on" in words
    assert grid(html)["adjusted"][0] == np.round(ranking.p_adjusted, 4).tolist()


def test_what_a_run_planned_and_did_not_do_counts_against_what_it_did():
    index = family([4.5], noise=20)
    whole = page(index, stored=run(total_combinations=21))
    broken_off = page(index, stored=run(status="cancelled", total_combinations=5_000))
    assert grid(whole)["marks"][0][0] == 2
    assert grid(broken_off)["marks"][0][0] == 0
    assert "4,979 were planned and are not stored" in Reader(broken_off).words
    assert "corrected for all 5,000 tries" in Reader(broken_off).words
