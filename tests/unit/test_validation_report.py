import json
import re

import msgspec
import pytest
from pages import Reader, own
from samples import sample_backtest
from verdicts import bare_validation, no_validation, sample_monte_carlo, sample_verdict, sample_walk_forward

from daemon.research.backtest_report import report_html
from daemon.research.validation_charts import FAN_LINES, MOST_BARS, MOST_PATHS, MOST_POINTS, validation_charts
from daemon.research.validation_report import LISTED_FOLDS

HEADINGS = ("Walk-forward", "Monte Carlo", "Overfitting", "Sensitivity", "Look-ahead")
PARTS = ("walk_forward", "monte_carlo", "overfitting", "sensitivity", "look_ahead")
EMPTY = {"sensitivity": []}


def page(**fields):
    return own(report_html(*sample_backtest(**fields)))


def words(**fields):
    return Reader(page(**fields)).words


def headings(html):
    return re.findall(r"<h2>(.*?)</h2>", html)


def drawn(**fields):
    return validation_charts(sample_backtest(**fields).result)


# The verdict.


def test_the_verdict_stands_first_with_its_reasons_figures_and_checks():
    html = page()
    main = html[html.index("<main>") :]
    assert main.index("<h1>") < main.index("Verdict: overfitted") < main.index('class="figures"')
    text = Reader(html).words
    verdict = sample_verdict()
    for said in (*verdict.reasons, *verdict.assumptions, *verdict.would_change):
        assert said in text
    assert "412, 411 of them before this run" in text
    assert "38.7 %" in text
    assert "\N{MULTIPLICATION SIGN} faildeflated Sharpe0.3870.95too many tries" in text
    assert "\N{CHECK MARK} passlook-ahead\N{EN DASH}\N{EN DASH}none was found" in text


@pytest.mark.parametrize(
    ("word", "kind", "sign"),
    [
        ("robust", "good", "\N{CHECK MARK}"),
        ("doubtful", "care", "!"),
        ("overfitted", "bad", "\N{MULTIPLICATION SIGN}"),
        ("insufficient data", "open", "?"),
    ],
)
def test_each_verdict_has_a_colour_a_sign_and_its_word(word, kind, sign):
    html = page(verdict=sample_verdict(verdict=word))
    assert f'class="verdict {kind}"' in html
    assert f"{sign} Verdict: {word}" in Reader(html).words


def test_a_result_of_an_older_release_says_nothing_of_a_verdict():
    html = page(**no_validation())
    assert "verdict" not in Reader(html).words.lower()
    assert 'class="verdict' not in html
    assert not set(headings(html)) & set(HEADINGS)
    assert Reader(html).open == []
    assert drawn(**no_validation()) == {}


@pytest.mark.parametrize("part", PARTS)
def test_what_was_not_asked_for_has_no_section(part):
    left = [heading for heading, name in zip(HEADINGS, PARTS, strict=True) if name != part]
    found = headings(page(**{part: EMPTY.get(part)}))
    assert [each for each in found if each in HEADINGS] == left


def test_parts_without_values_are_a_page_with_dashes():
    html = page(**bare_validation())
    text = Reader(html).words
    assert Reader(html).open == []
    assert "Verdict: insufficient data" in text
    assert "no number of them would prove it" in text
    assert "one fold" in text
    assert drawn(**bare_validation()) == {}
    for name in ("folds", "stitched", "fan", "logits"):
        assert f'id="{name}"' not in html


# Walk-forward.


def test_folds_show_dates_parameters_and_both_figures():
    table = re.search(r'<table class="folds">(.*?)</table>', page())[1]
    cells = re.findall(r"<td>(.*?)</td>", table)[:11]
    assert cells[:4] == [
        "1",
        "2022-01-12 to 2022-01-19",
        "2022-01-19 to 2022-01-21",
        "take_profit 0.02, stop_loss 0.05",
    ]
    assert cells[4:] == ["2.50", "+3.50 %", "9", "\N{EN DASH}", "\N{MINUS SIGN}0.20 %", "3", "+0.10 %"]
    text = words()
    assert "Rolling: trained on 7 days, tested on the 2 after them; 27 parameter sets, chosen by sharpe." in text
    assert "take_profit0.02, 0.04, 0.02, 0.04, 0.02, 0.040.0250 % of folds0.75" in text
    assert "in sample0.42" in text


def test_bars_compare_returns_a_day_since_trainings_are_longer_than_tests():
    folds = drawn()["folds"]
    assert folds["inside"][0] == pytest.approx(3.5 / 7)
    assert folds["outside"] == [pytest.approx(-0.1)] * 6


def test_many_folds_are_cut_and_the_page_says_so():
    walk = sample_walk_forward(folds=1_000)
    html = page(walk_forward=walk)
    assert len(re.findall("<tr", re.search(r'<table class="folds">(.*?)</table>', html)[1])) == 1 + LISTED_FOLDS
    assert f"The first {LISTED_FOLDS} of 1,000; the result has all." in Reader(html).words
    charts = drawn(walk_forward=walk)
    assert len(charts["folds"]["number"]) == MOST_BARS
    assert len(charts["stitched"]["time"]) <= MOST_POINTS
    assert charts["stitched"]["time"][0] == walk.equity[0].timestamp
    assert max(charts["stitched"]["equity"]) == pytest.approx(max(point.equity for point in walk.equity), rel=1e-7)


# Monte Carlo, overfitting.


def test_the_fan_is_as_long_as_its_percentiles_and_its_paths():
    fan = drawn()["fan"]
    assert fan["trades"] == list(range(41))
    assert {len(fan[name]) for name in FAN_LINES} == {41}
    assert [len(path) for path in fan["paths"]] == [41] * 12


def test_a_long_simulation_is_thinned_out_from_the_first_trade_to_the_last():
    simulated = sample_monte_carlo(trades=5_000)
    many = msgspec.structs.replace(simulated, sample_paths=simulated.sample_paths * 10)
    fan = drawn(monte_carlo=many)["fan"]
    assert len(fan["trades"]) == MOST_POINTS
    assert (fan["trades"][0], fan["trades"][-1]) == (0, 5_000)
    assert len(fan["paths"]) == MOST_PATHS
    assert {len(path) for path in fan["paths"]} == {MOST_POINTS}


def test_chances_and_methods_are_told_in_percent():
    text = words()
    assert "Bootstrap: median +4.00 %, 95 % of runs between \N{MINUS SIGN}18.00 % and +31.00 %; profit in" in text
    assert "drawdown 9.0 % (median), 21.0 % (95 %)" in text
    assert "ruin is 50 % of the capital lost at any time" in text
    assert "shuffle: the same trades in another order" in text


def test_logits_and_p_values_are_there():
    assert drawn()["logits"]["counts"] == [1_000, 3_000, 3_851, 3_000, 2_019]
    text = words()
    assert "61.0 %" in text
    assert "55.0 % to 68.0 %" in text
    assert "0.234" in text


def test_sensitivity_and_look_ahead_are_told():
    text = words()
    assert "costs x 2\N{MINUS SIGN}0.40 %\N{MINUS SIGN}0.205.50 %40" in text
    assert "Checked: the run is the same on its beginning" in text


def test_numbers_without_a_value_are_null_in_the_page():
    simulated = sample_monte_carlo()
    fan = msgspec.structs.replace(simulated.fan, percentile95=[float("nan")] * 41)
    html = page(monte_carlo=msgspec.structs.replace(simulated, fan=fan))
    charts = json.loads(re.search(r'id="charts">(.*?)</script>', html, re.DOTALL)[1])
    assert charts["validation"]["fan"]["percentile95"] == [None] * 41
