"""The rule book refuses what it cannot run, and says which strategy and which field."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.core.errors import Code, ConfigError, InvalidRequest, NotFound
from daemon.research.strategies import digest, load

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "strategies.json"
RULES = ROOT.parent / "shared" / "spec" / "strategies-rules.json"

ABOVE = {"type": "above", "col": "close", "ref": "sma_20"}


def strategy(**changes):
    return {
        "id": 101,
        "name": "mine",
        "display_name": "Mine",
        "philosophy": "A test.",
        "category": "trend",
        "direction": "long_only",
        "entry_long": [ABOVE],
        "entry_short": [],
        "exit_long": [],
        "exit_short": [],
        "required_indicators": ["sma_20", "atr_14"],
        **changes,
    }


@pytest.fixture
def write(tmp_path):
    def write(*strategies, version=1, **more):
        path = tmp_path / "mine.json"
        path.write_text(json.dumps({"version": version, "strategies": list(strategies), **more}))
        return path

    return write


def test_the_shipped_rules_are_the_reference_rules():
    if not RULES.exists():
        pytest.skip("the reference rules are not beside this checkout")
    shipped = {each["id"]: each for each in json.loads(SHIPPED.read_text())["strategies"]}
    reference = json.loads(RULES.read_text())
    assert len(shipped) == len(reference) == 100
    for rules in reference:
        assert {name: shipped[rules["id"]][name] for name in rules} == rules


def test_the_shipped_strategies_have_words_of_their_own():
    book = load([SHIPPED])
    assert len({each.philosophy for each in book}) == len({each.display_name for each in book}) == 100
    assert all(each.tags for each in book)


def condition(**fields):
    return strategy(entry_long=[ABOVE, fields])


@pytest.mark.parametrize(
    ("broken", "field", "words"),
    [
        (condition(type="moon_phase", col="close"), "entry_long[1].type", "moon_phase"),
        (
            condition(type="above", col="close", ref="sma_021"),
            "entry_long[1].ref",
            "unknown column `sma_021` (position 1)",
        ),
        (condition(type="above", col="close", ref="2 * (sma_20"), "entry_long[1].ref", "position"),
        (condition(type="above", col="close", ref="sma_20 + 2 ** atr_14"), "entry_long[1].ref", "position 1"),
        (condition(type="above", col="close", ref="2 + shift(sma_20, 1.5)"), "entry_long[1].ref", "position 19"),
        (condition(type="above", col="close"), "entry_long[1]", "ref"),
        (condition(type="above", col="close", ref=1, bars=2), "entry_long[1]", "bars"),
        (condition(type="rising", col="close", bars="3"), "entry_long[1].bars", "int"),
        (condition(type="rising", col="close", bars=0), "entry_long[1].bars", ">= 1"),
        (condition(type="crosses_above", col_a="close"), "entry_long[1]", "exactly one of `col_b` and `value`"),
        (
            condition(type="crosses_below", col_a="close", col_b="sma_20", value=1),
            "entry_long[1]",
            "exactly one of `col_b` and `value`",
        ),
        (condition(type="at_least", k=3, conditions=[ABOVE, ABOVE]), "entry_long[1].k", "3, of 2 conditions"),
        (
            condition(type="all_of", conditions=[ABOVE, {"type": "not_", "condition": {**ABOVE, "col": "nope"}}]),
            "entry_long[1].conditions[1].condition.col",
            "unknown column `nope`",
        ),
        (strategy(required_indicators=["atr_0"]), "required_indicators", "unknown column `atr_0`"),
        (strategy(direction="sideways"), "direction", "sideways"),
        (strategy(atr_stop_mult=-1), "atr_stop_mult", ">= 0"),
        (strategy(surprise=1), "", "surprise"),
        ({name: value for name, value in strategy().items() if name != "exit_long"}, "", "exit_long"),
    ],
)
def test_a_wrong_rule_is_refused_with_the_strategy_and_the_field(write, broken, field, words):
    with pytest.raises(ConfigError) as refusal:
        load([write(broken)])
    assert refusal.value.code == Code.STRATEGIES_INVALID
    assert "strategy 101" in refusal.value.message
    assert "mine.json" in refusal.value.message
    assert words in refusal.value.message
    assert refusal.value.details["field"] == field


def test_an_id_is_used_once(write):
    with pytest.raises(ConfigError, match=r"strategy 101, id: is used twice"):
        load([write(strategy(), strategy(name="other"))])
    with pytest.raises(ConfigError, match=r"strategy 1, id: is used twice .*strategies.json"):
        load([SHIPPED, write(strategy(id=1))])


def test_a_name_is_used_once(write):
    with pytest.raises(ConfigError, match=r"strategy 102, name: `mine` is strategy 101's"):
        load([write(strategy(), strategy(id=102))])


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"version": 1}', b'{"version": 1, "strategies": 3}', b"\xff\xfe"]
)
def test_a_file_that_is_no_rule_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "mine.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"mine\.json"):
        load([path])


def nest(path, depth):
    nested = '{"type": "not_", "condition": ' * depth + json.dumps(ABOVE) + "}" * depth
    path.write_text(path.read_text().replace('"@"', nested))
    return path


@pytest.mark.parametrize("depth", [51, 900, 5_000])
def test_rules_nested_deeper_than_50_are_refused_by_name(write, depth):
    assert len(load([nest(write(strategy(entry_long=["@"])), 50)])) == 1
    with pytest.raises(ConfigError, match=r"mine\.json") as refusal:
        load([nest(write(strategy(entry_long=["@"])), depth)])
    assert refusal.value.code == Code.STRATEGIES_INVALID


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.json: cannot be read"):
        load([tmp_path / "absent.json"])


def test_a_file_of_another_version_is_refused(write):
    with pytest.raises(ConfigError, match="version: is 2, this release reads 1"):
        load([write(strategy(), version=2)])


def test_own_strategies_join_the_shipped_ones(write):
    book = load([SHIPPED, write(strategy())])
    assert len(book) == 101
    assert book.get(101).name == "mine"


def test_every_alias_and_function_of_the_documentation_is_understood(write):
    operands = ["sar", "apo_12_26", "max_high_10", "-close", "abs(rsi_14) + max(open, min(low, 3))"]
    operands += ["rolling_percentile(atr_14, 200, 20, 20) / rolling_mean(close, 5)", "(high - low) * 0.5", 7]
    load(
        [
            write(
                *(
                    strategy(id=101 + n, name=f"s{n}", entry_long=[{**ABOVE, "ref": each}])
                    for n, each in enumerate(operands)
                )
            )
        ]
    )


def test_an_unknown_id_is_not_found_and_an_unknown_category_refused():
    book = load([SHIPPED])
    with pytest.raises(NotFound, match="Strategy 999 not found"):
        book.get(999)
    with pytest.raises(InvalidRequest, match="category `nope` is not one of breakout"):
        book.of_category("nope")
    assert {each.category for each in book.of_category("trend")} == {"trend"}


def test_the_fingerprint_is_of_the_rules_and_not_of_the_words(write):
    plain = load([write(strategy())]).get(101)
    assert digest(load([write(strategy(philosophy="Other words.", tags=["x"]))]).get(101)) == digest(plain)
    assert digest(load([write(strategy(time_stop_bars=5))]).get(101)) != digest(plain)


def test_validation_loads_neither_numba_nor_talib():
    code = (
        "import sys; from pathlib import Path; from daemon.research.strategies import load;"
        f"load([Path({str(SHIPPED)!r})]); print([name for name in ('numba', 'talib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
