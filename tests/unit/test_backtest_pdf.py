import re
import zlib

import msgspec
import pytest
from pages import EVIL, evil_sample, replaced
from samples import Sample, sample_backtest
from verdicts import bare_validation, hostile_validation, no_validation, sample_verdict, sample_walk_forward

from daemon.research.backtest_pdf import LISTED_FOLDS, report_pdf
from daemon.research.backtest_result import Event
from daemon.research.pdf_page import UNKNOWN, latin
from daemon.research.validation_result import StitchedPoint

HOSTILE = (
    "\N{ROCKET}\u4e2d\u6587 \u202eabc\u202c \u05e9\u05dc\u05d5\u05dd \x00\x1b[31m\x07\r\n) Tj (\\ {nb} caf\u00e9 \ud800"
)


class Document:
    """A PDF's sheets: the texts of each, and what it draws."""

    def __init__(self, content):
        assert content.startswith(b"%PDF-")
        assert content.rstrip().endswith(b"%%EOF")
        streams = re.findall(rb"stream\n(.*?)\nendstream", content, re.DOTALL)
        self.sheets = [stream for stream in map(_inflated, streams) if stream is not None and b" Tf" in stream]
        self.texts = [
            [_text(each) for each in re.findall(rb"\(((?:\\.|[^\\)])*)\) Tj", sheet)] for sheet in self.sheets
        ]
        self.words = " ".join(text for sheet in self.texts for text in sheet)


def _inflated(stream):
    try:
        return zlib.decompress(stream)
    except zlib.error:
        return None


def _text(letters):
    return re.sub(rb"\\(.)", rb"\1", letters, flags=re.DOTALL).decode("cp1252")


def pdf(sample, **options):
    return Document(report_pdf(sample.result, sample.equity, **options))


def test_the_first_sheet_has_the_verdict_the_figures_and_the_curve():
    document = pdf(sample_backtest(), labels=["simulated market, seed 7"])
    first = document.texts[0]
    assert "\N{MULTIPLICATION SIGN} Verdict: overfitted" in first
    for said in (*sample_verdict().reasons, "a year more of data with the same Sharpe", "! simulated market, seed 7"):
        assert said in first
    for heading in ("Total return", "Sharpe", "Max drawdown", "Trades", "Buy and hold", "Equity and drawdown"):
        assert heading in first
    assert document.sheets[0].count(b" l\n") > 200  # the curve is lines
    assert b" Do" not in b"".join(document.sheets)  # and no picture


def test_every_part_has_its_heading_and_its_chart():
    document = pdf(sample_backtest())
    for heading in (
        "What was checked", "Walk-forward", "Monte Carlo", "Overfitting", "Sensitivity", "Look-ahead",
        "Where the money went", "Monthly returns, percent", "What it rests on", "The largest trades", "Data",
    ):  # fmt: skip
        assert sum(texts.count(heading) for texts in document.texts) == 1, heading
    assert "take_profit 0.02," in document.words
    assert "12,870 of 16 blocks, 50 days, 27 sets" in document.words
    assert re.search(rb"\[2\.83\d* 2\.2\d*\] 0", b"".join(document.sheets))  # the dashes of the zero line


def test_sheets_are_numbered_under_one_header():
    document = pdf(sample_backtest())
    assert len(document.sheets) > 2
    for number, texts in enumerate(document.texts, 1):
        assert (
            texts[0]
            == "Momentum breakout \N{MIDDLE DOT} backtest bt_0123456789 \N{MIDDLE DOT} 00112233445566778899aabbccddeeff"
        )
        assert texts[-1] == f"page {number}"


def test_equal_input_gives_equal_bytes_and_the_time_is_that_of_the_run():
    sample = sample_backtest()
    made = report_pdf(sample.result, sample.equity)
    assert made == report_pdf(sample.result, sample.equity)
    assert b"/CreationDate (D:20231114221321Z" in made
    assert made != report_pdf(msgspec.structs.replace(sample.result, id="bt_other"), sample.equity)


def test_what_was_not_asked_for_has_no_heading():
    document = pdf(sample_backtest(**no_validation()))
    for word in ("erdict", "checked", "Walk-forward", "Monte Carlo", "Overfitting", "Sensitivity", "Look-ahead"):
        assert word not in document.words
    assert "Total return" in document.texts[0]


def test_parts_without_values_are_told_with_dashes():
    document = pdf(sample_backtest(**bare_validation()))
    assert "? Verdict: insufficient data" in document.words
    assert "one fold" in document.words
    assert "\N{EN DASH}" in document.words


def test_a_backtest_of_nothing_is_a_document():
    sample = sample_backtest(trades=0, events=[], monthly_returns=[], band=None, data=[], **no_validation())
    nothing = Sample(sample.result, {name: column[:0] for name, column in sample.equity.items()}, {})
    assert "The largest trades" not in pdf(nothing).words


@pytest.mark.parametrize(
    "text", [HOSTILE, EVIL, "x" * 100_000, "\N{ROCKET}" * 5_000, "", " ", "\N{COMBINING ACUTE ACCENT}" * 500]
)
def test_any_text_in_any_place_is_a_document(text):
    sample = sample_backtest(
        trades=10, id=text, name=text, fingerprint=text, readings=[text], notes=[text] * 3, assumptions=[text],
        **hostile_validation(text),
    )  # fmt: skip
    trades = [
        msgspec.structs.replace(trade, symbol=text, exit_reason=text, exit_note=text) for trade in sample.result.trades
    ]
    used = [msgspec.structs.replace(each, symbol=text, digest=text) for each in sample.result.data]
    events = [Event(timestamp=0, type=text, symbol=text, message=text)]
    document = pdf(replaced(sample, trades=trades, data=used, events=events), labels=[text])
    assert len(document.sheets) < 16
    assert all(letter.isprintable() for letter in document.words)


def test_letters_that_the_fonts_lack_are_marked_and_the_foot_says_so():
    document = pdf(sample_backtest(name=HOSTILE))
    title = document.texts[0][1]
    assert title.startswith(f"{UNKNOWN}{UNKNOWN}{UNKNOWN} abc {UNKNOWN * 4}")
    assert ") Tj (\\ {nb} caf\N{LATIN SMALL LETTER E WITH ACUTE}" in title
    assert any("fonts of a PDF lack" in text for text in document.texts[0])
    assert "fonts of a PDF lack" not in pdf(sample_backtest(name="caf\u00e9")).words


def test_accents_that_were_typed_apart_are_put_together():
    assert latin("cafe\N{COMBINING ACUTE ACCENT}") == "caf\N{LATIN SMALL LETTER E WITH ACUTE}"
    assert latin("\N{MINUS SIGN}1") == "-1"
    assert latin("abcdef", 3) == "abc\N{HORIZONTAL ELLIPSIS}"


def test_an_evil_result_is_plain_text():
    document = pdf(evil_sample())
    assert "</script><img" in document.words
    assert "Not a whole backtest (failed): </script><img" in document.words


def test_ten_thousand_trades_make_no_more_sheets_than_forty():
    few, many = sample_backtest(), sample_backtest(bars=20_000, trades=10_000)
    assert abs(len(pdf(many).sheets) - len(pdf(few).sheets)) <= 1
    assert "15 of 10,000, those with the largest gain or loss." in pdf(many).words


def test_long_tables_are_cut_and_say_so():
    symbols = sample_backtest().result.data * 500
    months = sample_backtest().result.monthly_returns
    years = [msgspec.structs.replace(months[0], month=f"{year}-01") for year in range(1000, 2000)]
    sample = sample_backtest(
        data=symbols, monthly_returns=years, notes=["a note"] * 5_000, walk_forward=sample_walk_forward(folds=3_000)
    )
    document = pdf(sample)
    assert len(document.sheets) < 20
    assert f"The first {LISTED_FOLDS} of 3,000 folds; the result has all." in document.words
    assert document.words.count("and 960 more: the result has all") == 2
    assert "and 4,970 more: the result has all" in document.words


@pytest.mark.parametrize(
    "values", [(0.0, 0.0), (1e300, 1e300), (1e-300, 1e-300), (-1e307, 1e307), (7.0,), (float("nan"),)]
)
def test_values_beyond_reason_are_drawn(values):
    points = [StitchedPoint(timestamp=at, equity=value) for at, value in enumerate(values)]
    document = pdf(sample_backtest(trades=2, walk_forward=sample_walk_forward(equity=points)))
    assert "Equity of the tests, one after the other" in document.words


def test_what_a_fold_chose_is_shown_whole():
    walk = sample_walk_forward(folds=3)
    chosen = {"take_profit": 0.02, "stop_loss": 0.1, "trailing_stop": 0.0025, "indicator_length": 0.5}
    folds = [msgspec.structs.replace(each, parameters=chosen) for each in walk.folds]
    document = pdf(sample_backtest(trades=2, walk_forward=msgspec.structs.replace(walk, folds=folds)))
    assert document.words.count("indicator_length 0.5") == 3


def test_an_account_that_never_traded_is_a_flat_line():
    assert "Equity and drawdown" in pdf(sample_backtest(trades=0)).words
