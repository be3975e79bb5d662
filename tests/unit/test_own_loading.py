"""A strategy's file: what it declares, read from its text and by running it, and every kind of file that is refused."""

import inspect
import linecache
import re
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest

import daemon.research
from daemon.core.backtest import Own
from daemon.core.errors import AtlasError, Code
from daemon.engine.context import Context, Strategy
from daemon.engine.own import Handler
from daemon.research.own.declaring import HANDLERS, INSIDES, MOST_STEPS, declared
from daemon.research.own.folder import StrategyFolder, digest_of
from daemon.research.own.loading import load, loaded
from daemon.research.own.template import template

PAGE = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text()
HEAD = "from daemon.research import Column, Context, Parameter, Strategy\nimport numpy as np\n"

WHOLE = (
    HEAD
    + '''
LIMITS = {"largest": 4}


class Quoter(Strategy):
    """Quotes both sides.

    And more.
    """

    half_spread = Parameter(2, low=-1.0, high=+8, step=0.5)
    slow: Column = Column("ema_9")
    same = Column(name="macd_12_26_9")
    every_ms = 0.5
    count = np.int64(3)
    is_on, _last = True, 1.5
    recent = np.zeros(LIMITS["largest"])

    def on_timer(self, context):
        self.helped(context)

    def on_bar(self, context: Context, bar) -> None:
        raise KeyError("the bar")

    def helped(self, context):
        pass

    only = 1
'''
)


def a_class(*lines, base="Strategy"):
    """Return a file with a class of these lines, the first of them line 4; it has a handler unless a line does."""
    body = lines if any("def on" in line for line in lines) else (*lines, "def on_book(self, context): pass")
    return HEAD + f"class A({base}):\n" + "\n".join(f"    {line}" for line in body) + "\n"


def refusal(source, read=load):
    with pytest.raises(AtlasError) as refused:
        read(source.encode() if isinstance(source, str) else source, "mine.py")
    assert refused.value.code is Code.STRATEGY_INVALID
    return refused.value


def test_a_file_declares_the_same_by_its_text_and_when_it_runs():
    source = WHOLE.encode()
    said, made = declared(source, "mine.py"), load(source, "mine.py")
    assert (said.name, said.summary) == (made.name, "Quotes both sides.") == ("Quoter", "Quotes both sides.")
    assert said.parameters["half_spread"] == (2.0, -1.0, 8.0, 0.5)
    assert made.parameters["half_spread"].step == 0.5
    assert said.columns == made.columns == {"slow": "ema_9", "same": "macd"}
    assert said.handlers == ("on_bar", "on_timer")
    assert made.handlers == {Handler.BAR, Handler.TIMER}
    assert (made.timer_ns, load(a_class().encode(), "mine.py").timer_ns) == (500_000, 0)
    assert issubclass(made.made, Strategy)
    assert (made.file, made.digest) == ("mine.py", digest_of(source))


def test_state_is_numbers_and_arrays_of_its_own():
    made = load(WHOLE.encode(), "mine.py")
    recent = made.state["recent"]
    assert {name: type(value) for name, value in made.state.items()} == {
        "count": int, "is_on": bool, "_last": float, "recent": np.ndarray, "only": int,
    }  # fmt: skip
    assert recent.tolist() == [0.0] * 4
    assert recent is not made.made.recent


def test_tracebacks_quote_the_lines_of_a_source_that_lies_in_no_file():
    made = load(WHOLE.encode(), "quoter-4711.py")
    with pytest.raises(KeyError) as raised:
        made.made().on_bar(None, None)
    frame = traceback.extract_tb(raised.value.__traceback__)[-1]
    assert (frame.filename, frame.name, frame.line) == ("quoter-4711.py", "on_bar", 'raise KeyError("the bar")')
    assert linecache.getline("quoter-4711.py", frame.lineno).strip() == frame.line


def test_words_may_be_imported_under_other_names():
    for head in (
        "import daemon.research as dr\nS, P = dr.Strategy, dr.Parameter\nclass A(dr.Strategy):\n    p = dr.Parameter",
        "from daemon import research\nclass A(research.Strategy):\n    p = research.Parameter",
        "import daemon.research\nclass A(daemon.research.Strategy):\n    p = daemon.research.Parameter",
        "from daemon.research import Strategy as S, Parameter as P\nclass A(S):\n    p = P",
        "from daemon.research import *\nclass A(Strategy):\n    p = Parameter",
    ):
        source = f"{head}(1, low=0, high=2, step=1)\n    def on_book(self, context): pass\n".encode()
        assert list(load(source, "mine.py").parameters) == list(declared(source, "mine.py").parameters) == ["p"]


PARAMETER = "p = Parameter({})"
TEXT_REFUSALS = {
    "does not parse": (a_class("x = (", "y = 1"), 4, "does not parse: '\\(' was never closed"),
    "no utf-8": (b"x = '\xff\xfe'\n", None, "does not parse"),
    "a null byte": (b"x = 1\0\n", None, "does not parse"),
    "nested for ever": ("x = " + "(" * 5_000 + ")" * 5_000, None, "does not parse"),
    "empty": ("", None, "no class that derives from Strategy"),
    "no class": ("class A: pass\n", None, "no class that derives from Strategy"),
    "not imported": ("class A(Strategy): pass\n", 1, "A derives from a Strategy that is not imported"),
    "two classes": (a_class() + "class B(Strategy): pass\n", 5, "a second strategy, B, after A"),
    "a derived one": (a_class() + "class B(A): pass\n", 5, "a second strategy, B, after A"),
    "hidden": (HEAD + "if True:\n    class A(Strategy):\n        pass\n", 4, "A stands inside of something else"),
    "no handler": (HEAD + "class A(Strategy):\n    x = 1\n", 3, "A is never called: give it at least one of on_bar"),
    "misspelt": (a_class("def on_bars(self, context, bar): pass"), 4, r"on_bars is no handler: did you mean on_bar\?"),
    "in camel": (a_class("def onBar(self, context, bar): pass"), 4, r"onBar is no handler: did you mean on_bar\?"),
    "unheard of": (a_class("def on_zzz(self): pass"), 4, "on_zzz is no handler: there are on_bar, on_trade"),
    "too few": (
        a_class("def on_bar(self, bar): pass"),
        4,
        r"on_bar\(self, bar\) is called with 3 .*: write `def",
    ),
    "too many": (a_class("def on_book(self, context, book): pass"), 4, "is called with 2 arguments"),
    "any": (a_class("def on_book(*all): pass"), 4, "is called with 2 arguments"),
    "a default": (a_class("def on_book(self, context=None): pass"), 4, "is called with 2 arguments"),
    "async": (a_class("async def on_book(self, context): pass"), 4, "must be a plain function"),
    "yields": (a_class("def on_book(self, context): yield 1"), 4, "must be a plain function"),
    "decorated": (a_class("@staticmethod", "def on_book(self, context): pass"), 5, "on_book has a decorator"),
    "twice": (a_class(*["def on_book(self, context): pass"] * 2), 5, "on_book is written twice"),
    "an __init__": (a_class("def __init__(self): pass"), 4, "a strategy has no __init__"),
    "no column": (a_class('c = Column("rsi14x")'), 4, r"no column `rsi14x`: did you mean rsi_14"),
    "far from any": (a_class('c = Column("qqqqqqqq")'), 4, "no column `qqqqqqqq`: docs"),
    "a computed column": (a_class('c = Column("rsi_" + "14")'), 4, "column c is not written as"),
    "out of range": (a_class(PARAMETER.format("9, low=1, high=8, step=1")), 4, "p is 9 from 1 to 8 in steps of 1"),
    "turned around": (a_class(PARAMETER.format("2, low=3, high=1, step=1")), 4, "low <= default <= high"),
    "no step": (a_class(PARAMETER.format("2, low=1, high=3, step=0")), 4, "a step above 0"),
    "infinite": (a_class(PARAMETER.format("2, low=1, high=1e999, step=1")), 4, "not finite"),
    "tiny steps": (a_class(PARAMETER.format("2, low=1, high=3, step=1e-9")), 4, f"{MOST_STEPS:,} steps"),
    "too few numbers": (a_class(PARAMETER.format("2, 1, 3")), 4, "is not written as `p = Parameter"),
    "unknown ones": (a_class(PARAMETER.format("2, low=1, high=3, step=1, unit=2")), 4, "is not written as"),
    "computed": (a_class(PARAMETER.format("2, low=1, high=LIMIT, step=1")), 4, "high of parameter p is `LIMIT`"),
    "a truth": (a_class(PARAMETER.format("True, low=0, high=1, step=1")), 4, "default of parameter p is `True`"),
    "in a list": (a_class("p = [Parameter(2, low=1, high=3, step=1)]"), 4, "is not plainly declared"),
    "private": (a_class("_p = Parameter(2, low=1, high=3, step=1)"), 4, "_p cannot be a parameter"),
    "every_ms": (a_class("every_ms = Parameter(2, low=1, high=3, step=1)"), 4, "every_ms cannot be"),
    "declared twice": (a_class("p = 1", 'p = Column("rsi_14")'), 5, "declared a second time, first on line 4"),
    "no value": (a_class("x: float"), 4, "x has no value"),
    "a look inside": (a_class("def f(self, context): return context.values[3, -1]"), 4, "context.values is the engine"),
    "by another name": (a_class("def on_fill(self, c, fill): c.account['cash'][0] = 9"), 4, "c.account is the engine"),
    "by an annotation": (a_class("def f(self, x, now: Context): now.symbols"), 4, "now.symbols is the engine's own"),
}
RUN_REFUSALS = {
    "imports nothing": ("import no_such_module_4711\n" + a_class(), 1, "imports what is not there: No module named"),
    "imports no name": ("from daemon.research import Nothing\n" + a_class(), 1, "imports what is not there"),
    "raises": (a_class() + "def f():\n    return 1 / 0\nf()\n", 6, "raises while it is imported: ZeroDivisionError"),
    "exits": ("import sys\nsys.exit(3)\n" + a_class(), 2, "raises while it is imported: SystemExit: 3"),
    "a list": (a_class("x = 1", "seen = []"), 5, "seen is list: state is"),
    "a text": (a_class('word = "x"'), 4, "word is str"),
    "none": (a_class("x = None"), 4, "x is NoneType"),
    "a large number": (a_class("x = 1 << 63"), 4, "x is int: state is a bool, an int of 64 bits"),
    "objects": (a_class("x = np.array([None])"), 4, "x is an array of object"),
    "texts": (a_class("x = np.array(['a'])"), 4, "x is an array of <U1"),
    "no time": (a_class("every_ms = 0"), 4, "every_ms is 0"),
    "no number": (a_class("every_ms = np.nan"), 4, "every_ms is nan"),
    "a long time": (a_class("every_ms = 1e9"), 4, "at most a day"),
    "made elsewhere": (a_class() + "A.p = Parameter(1, low=0, high=1, step=1)\n", 3, "parameters of A are not those"),
    "other numbers": (
        a_class("p = Parameter(1, low=0, high=1, step=1)") + "A.p = Parameter(0, low=0, high=1, step=1)\n", 3,
        "parameters of A are not those that its text declares",
    ),
    "a handler more": (a_class() + "A.on_bar = A.on_book\n", 3, "handlers of A are not those"),
    "another thing": (a_class() + "A = 3\n", 3, "A is no strategy once the file was run"),
}  # fmt: skip


@pytest.mark.parametrize("case", TEXT_REFUSALS)
def test_a_file_that_cannot_be_a_strategy_is_refused_from_its_text_with_the_line(case):
    source, line, why = TEXT_REFUSALS[case]
    for read in (declared, load):
        error = refusal(source, read)
        assert re.search(why, error.message), error.message
        if line is not None:
            assert error.details == {"file": "mine.py", "line": line}
            assert error.message.startswith(f"mine.py, line {line}: ")


@pytest.mark.parametrize("case", RUN_REFUSALS)
def test_a_file_that_fails_when_it_runs_is_refused_with_the_line_and_leaves_nothing_behind(case):
    source, line, why = RUN_REFUSALS[case]
    declared(source.encode(), "mine.py")
    before = set(sys.modules)
    error = refusal(source)
    assert re.search(why, error.message), error.message
    assert error.details["line"] == line
    assert not [name for name in set(sys.modules) - before if name.startswith("atlasd_own")]


def test_running_out_of_memory_is_no_fault_of_the_files():
    with pytest.raises(MemoryError):
        load((a_class() + "raise MemoryError\n").encode(), "mine.py")


def test_the_insides_of_a_context_are_all_known():
    assert Context._fields == INSIDES


def test_reading_declarations_runs_nothing():
    source = (a_class() + "raise SystemExit\n").encode()
    assert declared(source, "mine.py").name == "A"


def test_a_version_is_loaded_once_and_an_edited_file_is_another(tmp_path):
    folder = StrategyFolder(tmp_path / "own")
    path = folder.add("mine", a_class("x = 1").encode())
    first = Own("mine", digest_of(path.read_bytes()))
    folder.pin(first)
    made = loaded(first, folder)
    path.write_bytes(a_class("x = 2").encode())
    assert loaded(first, folder) is made
    second = Own("mine", digest_of(path.read_bytes()))
    assert loaded(second, folder).state == {"x": 2}


@pytest.mark.parametrize("name", ["market_maker", "7up", "x", "strategy", "none", "a-b.c"])
def test_a_new_strategy_loads_as_it_stands(name):
    made = load(template(name), f"{name}.py")
    assert made.name.isidentifier()
    assert list(made.parameters) == ["low", "high", "share"]
    assert made.handlers == {Handler.BAR, Handler.FILL}


# What is written about it.


def test_the_page_shows_every_method_of_the_context_as_it_is_called():
    values = {-1: "HERE"}
    methods = []
    for name, function in vars(Context).items():
        if not inspect.isfunction(function) or name.startswith("_"):
            continue
        said = []
        for each in list(inspect.signature(function).parameters.values())[1:]:
            default = values.get(each.default, each.default)
            words = {"price": "MARKET", "force": "GTC"}
            default = words.get(each.name, default) if name == "submit" else default
            said.append(each.name if each.default is each.empty else f"{each.name}={default}")
        methods.append(f"{name}({', '.join(said)})")
    table = PAGE[PAGE.index("## The context") : PAGE.index("## What runs compiled")]
    assert re.findall(r"^\| `(\w+\(.*?\))` \|", table, re.MULTILINE) == methods


def test_the_page_shows_every_handler_and_its_example_loads():
    for name, arguments in HANDLERS.items():
        assert f"| `{name}({', '.join(arguments)})` |" in PAGE
    example = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    assert load(example.encode(), "example.py").name == "Recovery"


def test_names_of_the_file_s_first_line_come_from_the_package():
    for name in daemon.research.__all__:
        assert getattr(daemon.research, name) is not None
    assert daemon.research.Strategy is Strategy
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = daemon.research.Nothing
