import msgspec
import pytest

from daemon.core.strategy import Condition
from daemon.engine.columns import ALIASES, NAMES
from daemon.engine.expressions import ExpressionError, Node, column, columns_of, number, parse

CLOSE, OPEN, LOW = column("close"), column("open"), column("low")


@pytest.mark.parametrize(
    ("operand", "node"),
    [
        (30, number(30.0)),
        (-0.5, number(-0.5)),
        ("30", number(30.0)),
        ("1e3", number(1000.0)),
        (".5", number(0.5)),
        ("close", CLOSE),
        ("  close ", CLOSE),
        ("close + open", Node("+", (CLOSE, OPEN))),
        ("close - 1", Node("-", (CLOSE, number(1)))),
        ("2 * close", Node("*", (number(2), CLOSE))),
        ("close / open", Node("/", (CLOSE, OPEN))),
        ("-close", Node("negative", (CLOSE,))),
        ("-1", Node("negative", (number(1),))),
        ("abs(close)", Node("abs", (CLOSE,))),
        ("max(close, open)", Node("max", (CLOSE, OPEN))),
        ("min(close, 1)", Node("min", (CLOSE, number(1)))),
        ("shift(close, 0)", Node("shift", (CLOSE,), parameters=(0.0,))),
        ("shift(close, 3.0)", Node("shift", (CLOSE,), parameters=(3.0,))),
        ("rolling_mean(close, 100000)", Node("rolling_mean", (CLOSE,), parameters=(100_000.0,))),
        (
            "rolling_percentile(close, 50, 12.5, 7)",
            Node("rolling_percentile", (CLOSE,), parameters=(50.0, 12.5, 7.0)),
        ),
        ("abs(close - open)", Node("abs", (Node("-", (CLOSE, OPEN)),))),
    ],
)
def test_an_operand_is_a_number_a_column_or_an_expression_over_them(operand, node):
    assert parse(operand) == node


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("close + open * low", "close + (open * low)"),
        ("close - open - low", "(close - open) - low"),
        ("close / open / low", "(close / open) / low"),
        ("close / open * low", "(close / open) * low"),
        ("close - open / low + 1", "(close - (open / low)) + 1"),
        ("-close * open", "(-close) * open"),
        ("close * -open", "close * (-open)"),
        ("close - -open", "close - (-open)"),
        ("--close", "-(-close)"),
        ("((close))", "close"),
    ],
)
def test_precedence_is_that_of_python(text, same):
    assert parse(text) == parse(same)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("close + (open + low)", "close + open + low"),
        ("close + open", "open + close"),
        ("-(close * open)", "-close * open"),
        ("close - 1", "close + -1"),
    ],
)
def test_nothing_is_re_associated_or_simplified(text, other):
    assert parse(text) != parse(other)


def test_a_negative_zero_is_the_same_number_as_zero():
    assert repr(parse(-0.0)) == repr(parse(0.0))


@pytest.mark.parametrize("alias", sorted(ALIASES))
def test_an_alias_parses_as_the_column_it_stands_for(alias):
    assert parse(f"abs({alias})") == parse(f"abs({ALIASES[alias]})")


@pytest.mark.parametrize("name", sorted(NAMES - set(ALIASES)))
def test_every_column_of_the_catalogue_can_be_named(name):
    assert parse(name) == column(name)


ALLOWED = "only + - * /, parentheses, numbers, columns and functions"


@pytest.mark.parametrize(
    ("text", "reason", "position"),
    [
        ("", "does not parse", 1),
        ("(close", "does not parse", 1),
        ("close)", "does not parse", 6),
        ("  close)", "does not parse", 8),
        ("close\0", "does not parse", 1),
        ("clse", "unknown column `clse`", 1),
        ("  close + clse", "unknown column `clse`", 11),
        ("shift(clse, 1)", "unknown column `clse`", 7),
        ("shift", "unknown column `shift`", 1),
        ("close ** 2", ALLOWED, 1),
        ("open + (close // 2)", ALLOWED, 9),
        ("close % 2", ALLOWED, 1),
        ("1 + +close", ALLOWED, 5),
        ("not close", ALLOWED, 1),
        ("close > open", ALLOWED, 1),
        ("close and open", ALLOWED, 1),
        ("close if 1 else open", ALLOWED, 1),
        ("1 + close.real", ALLOWED, 5),
        ("close[-1]", ALLOWED, 1),
        ("1 + True", ALLOWED, 5),
        ("1 + None", ALLOWED, 5),
        ("'close'", ALLOWED, 1),
        ("2j", ALLOWED, 1),
        ("lambda: 1", ALLOWED, 1),
        ("close, open", ALLOWED, 1),
        ("abs(close)(1)", ALLOWED, 1),
        ("abs(*close)", ALLOWED, 5),
        ("1 + 1e400", "number is out of range", 5),
        ("1 + 1" + "0" * 400, "number is out of range", 5),
        ("1 + round(close)", "`round` is not a function: shift, abs, max, min", 5),
        ("__import__('os')", "`__import__` is not a function", 1),
        ("1 + abs(close, 2)", "`abs` takes 1 arguments, not 2", 5),
        ("max(close)", "`max` takes 2 arguments, not 1", 1),
        ("shift(close)", "`shift` takes 2 arguments, not 1", 1),
        ("rolling_percentile(close, 5, 50)", "`rolling_percentile` takes 4 arguments, not 3", 1),
        ("shift(close, -1)", "must be a literal number from 0 to 100000", 14),
        ("shift(close, 100001)", "must be a literal number from 0 to 100000", 14),
        ("shift(close, volume)", "must be a literal number", 14),
        ("shift(close, True)", "must be a literal number", 14),
        ("shift(close, 1.5)", "must be a whole number of bars", 14),
        ("rolling_mean(close, 0)", "must be a literal number from 1 to 100000", 21),
        ("rolling_percentile(close, 5, 100.5, 1)", "must be a literal number from 0 to 100", 30),
        ("rolling_percentile(close, 5, 50, 0)", "must be a literal number from 1 to 100000", 34),
        ("rolling_percentile(close, 5, 50, 2.5)", "must be a whole number of bars", 34),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason_and_position(text, reason, position):
    with pytest.raises(ExpressionError) as refused:
        parse(text)
    assert refused.value.reason.startswith(reason)
    assert refused.value.position == position
    assert str(refused.value) == f"{refused.value.reason} (position {position})"


@pytest.mark.parametrize("text", ["close +", "close open", "close = open", "close; open", "1 2", "x: int", "\ud800"])
def test_what_is_no_expression_at_all_does_not_parse(text):
    with pytest.raises(ExpressionError, match="does not parse"):
        parse(text)


def test_nesting_is_refused_beyond_its_limit_where_it_passes_it():
    assert parse("-" * 50 + "close").op == "negative"
    with pytest.raises(ExpressionError, match=r"nests deeper than 50 \(position 52\)"):
        parse("-" * 51 + "close")


def test_a_long_chain_counts_as_nesting():
    assert parse(" + ".join(["close"] * 51)).op == "+"
    with pytest.raises(ExpressionError, match="nests deeper than 50"):
        parse(" + ".join(["close"] * 52))


def test_more_parentheses_than_the_parser_takes_are_an_error_as_any_other():
    with pytest.raises(ExpressionError, match="does not parse"):
        parse("(" * 240 + "close" + ")" * 240)


def test_a_rule_refuses_expressions_that_are_too_long_or_empty():
    longest = "close" + " " * 495
    assert msgspec.convert({"type": "above", "col": longest, "ref": 1.0}, Condition).col == longest
    with pytest.raises(msgspec.ValidationError, match=r"length <= 500.*\$\.col"):
        msgspec.convert({"type": "above", "col": longest + " ", "ref": 1.0}, Condition)
    with pytest.raises(msgspec.ValidationError, match=r"length >= 1.*\$\.ref"):
        msgspec.convert({"type": "above", "col": "close", "ref": ""}, Condition)


@pytest.mark.parametrize(
    ("operand", "names"),
    [
        (30, set()),
        ("2 * -3", set()),
        ("close", {"close"}),
        ("sar", {"psar"}),
        ("sma_20 + 2 * stddev_37 - sma_20", {"sma_20", "stddev_37"}),
        ("max(macd_12_26_9, shift(macd, 1)) / abs(rsi_7 - bb_upper_30_2p0)", {"macd", "rsi_7", "bb_upper_30"}),
        ("rolling_percentile(bb_width_20, 50, 12.5, 7)", {"bb_width"}),
    ],
)
def test_the_columns_an_operand_reads_go_by_the_catalogues_names(operand, names):
    assert columns_of(operand) == names


def test_an_operand_that_cannot_be_used_has_no_columns():
    with pytest.raises(ExpressionError, match="unknown column `rsi_0`"):
        columns_of("close + rsi_0")
