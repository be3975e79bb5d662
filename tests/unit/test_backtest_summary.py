import msgspec
import pytest
from samples import sample_result
from verdicts import bare_validation, hostile_validation, no_validation, sample_verdict, sample_walk_forward

from daemon.app.cli.backtest_summary import print_list, print_result
from daemon.app.cli.validation_summary import LISTED_FOLDS
from daemon.research.backtest_result import BacktestStatus

PARTS = {
    "walk_forward": "Walk-forward",
    "monte_carlo": "Monte Carlo ",
    "overfitting": "overfitting ",
    "sensitivity": "Sensitivity",
    "look_ahead": "look-ahead ",
}
HOSTILE = "\x1b[31m\x07[bold]a[/bold] \r\n\N{ROCKET} \u202eb <b> :smile: \x9b2J"


@pytest.fixture
def printed(capsys):
    def run(**fields):
        print_result(sample_result(**fields))
        return capsys.readouterr().out

    return run


def flowing(text):
    return " ".join(text.split())


def test_a_summary_begins_with_the_verdict_and_its_reasons(printed):
    lines = printed().splitlines()
    assert lines[0] == "Verdict: \N{MULTIPLICATION SIGN} overfitted"
    assert [line.strip()[:2] for line in lines[1:4]] == ["1.", "2.", "3."]
    text = flowing("\n".join(lines[:12]))
    assert "tries 412 tries of this idea (411 before); Sharpe 1.90, by chance 2.10, deflated 38.7 %" in text
    assert "granted taker fees of 0.1 % and 2 bps of slippage positions over gaps are counted" in text
    assert "would change it a year more of data with the same Sharpe costs half as high" in text
    assert text.index("would change it") < text.index("Momentum breakout")


@pytest.mark.parametrize("word", ["robust", "doubtful", "overfitted", "insufficient data"])
def test_each_verdict_is_named(printed, word):
    assert printed(verdict=sample_verdict(verdict=word)).splitlines()[0].endswith(f" {word}")


def test_folds_and_chances_stand_below_the_figures(printed):
    text = flowing(printed())
    assert "1 2022-01-19 to 2022-01-21 take_profit 0.02, stop_loss 0.05 2.50 +3.50 % \N{EN DASH} -0.20 %" in text
    assert "1,000 runs of 40 trades: median +4.00 %, 95 % of runs between -18.00 % and +31.00 %" in text
    assert "profit in 63.4 %" in text
    assert "PBO 61.0 % (55.0 % to 68.0 % on other cuts): 27 parameter sets, 50 days, 12,870 splits" in text
    assert "costs x 2 -0.40 % -0.20 5.50 % 40" in text
    assert "look-ahead Checked: the run is the same on its beginning" in text


def test_many_folds_are_cut(printed):
    text = printed(walk_forward=sample_walk_forward(folds=50))
    assert text.count("take_profit") == LISTED_FOLDS
    assert "and 38 more folds: --format json has all" in text


def test_a_result_of_an_older_release_begins_with_its_name(printed):
    text = printed(**no_validation())
    assert text.startswith("Momentum breakout")
    assert "erdict" not in text
    assert not [said for said in PARTS.values() if said in text]


@pytest.mark.parametrize("part", PARTS)
def test_what_was_not_asked_for_is_left_out(printed, part):
    text = printed(verdict=None, **{part: [] if part == "sensitivity" else None})
    assert [name for name, said in PARTS.items() if said not in text] == [part]


def test_parts_without_values_are_dashes(printed):
    text = printed(**bare_validation())
    assert text.startswith("Verdict: ? insufficient data")
    assert "deflated \N{EN DASH}" in text
    assert "one fold" in text


def test_no_text_steers_the_terminal(printed):
    text = printed(
        name=HOSTILE, readings=[HOSTILE], assumptions=[HOSTILE], notes=[HOSTILE], **hostile_validation(HOSTILE)
    )
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert text.count("[bold]a[/bold]") > 10
    assert ":smile:" in text


def test_the_list_has_a_column_of_verdicts(capsys):
    status = BacktestStatus(
        id="a", name="n", status="completed", priority="normal", progress=100.0, created_at=0, symbols=["X"],
        timeframe="1Hour", verdict="doubtful",
    )  # fmt: skip
    print_list([status, msgspec.structs.replace(status, id="b", verdict=None)], "csv")
    header, first, second = capsys.readouterr().out.splitlines()
    place = header.split(",").index("verdict")
    assert [line.split(",")[place] for line in (first, second)] == ["doubtful", ""]
