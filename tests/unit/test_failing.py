"""A strategy's exception by the lines of its own file, whatever frames lie around them."""

import linecache
import pickle

import pytest

from daemon.core.errors import Code, StrategyFailed
from daemon.research.own.failing import strategy_failed

SOURCE = """
class Strategy:
    def on_bar(self, value):
        values = {}
        return values[value]

    def on_trade(self, depth):
        return self.on_trade(depth - 1) if depth else 1 / 0

    def on_book(self, values):
        return sorted(values, key=self.on_bar)

    def on_fill(self, kind):
        raise kind
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "market_maker.py"
    path.write_text(SOURCE)
    linecache.checkcache()
    return path


def strategy(file):
    names = {}
    exec(compile(file.read_text(), str(file), "exec"), names)  # noqa: S102
    return names["Strategy"]()


def told(file, call):
    try:
        call()
    except BaseException as error:  # noqa: BLE001
        return strategy_failed(error, str(file))
    raise AssertionError("nothing was raised")


def test_the_message_has_the_last_line_of_the_file_and_the_error(file):
    failure = told(file, lambda: strategy(file).on_bar("ema"))
    assert failure.code == Code.STRATEGY_RAISED
    assert failure.message == "market_maker.py, line 5, in on_bar: KeyError: 'ema'"
    assert failure.details == {"traceback": ["market_maker.py, line 5, in on_bar: return values[value]"]}


def test_frames_of_other_files_are_left_out_wherever_they_are(file):
    from statistics import median

    class Compared(list):
        def __iter__(self):
            return iter([strategy(file).on_bar("ema")])

    failure = told(file, lambda: median(Compared()))
    assert failure.details["traceback"] == ["market_maker.py, line 5, in on_bar: return values[value]"]


def test_deep_recursion_is_told_by_its_beginning_and_its_end(file):
    failure = told(file, lambda: strategy(file).on_trade(500))
    lines = failure.details["traceback"]
    assert len(lines) == 21
    assert lines[10] == "... 481 more lines"
    assert failure.message == "market_maker.py, line 8, in on_trade: ZeroDivisionError: division by zero"


def test_compiled_code_is_told_by_the_method_that_was_called(tmp_path):
    path = tmp_path / "compiled.py"
    path.write_text(
        "def on_bar(values, at):\n    if at > 2:\n        raise ValueError('too far')\n    return values[at]\n"
    )
    names = {}
    exec(compile(path.read_text(), str(path), "exec"), names)  # noqa: S102
    import numba

    failure = told(path, lambda: numba.njit(names["on_bar"])((1.0, 2.0), 3))
    assert failure.message.startswith("compiled.py, line ")
    assert failure.message.endswith("in on_bar: ValueError: too far")
    assert len(failure.details["traceback"]) == 1


def test_a_file_that_does_not_parse_is_told_by_its_line(file):
    file.write_text("class Strategy:\n    def on_bar(self:\n        pass\n")
    failure = told(file, lambda: strategy(file))
    assert failure.message.startswith("market_maker.py, line 2: SyntaxError: ")
    assert failure.details["traceback"] == ["market_maker.py, line 2: def on_bar(self:"]


def test_an_error_that_never_was_in_the_file_is_told_without_lines(file):
    failure = told(file, lambda: 1 / 0)
    assert (failure.message, failure.details) == (
        "market_maker.py: ZeroDivisionError: division by zero",
        {"traceback": []},
    )


class Unspeakable(Exception):  # noqa: N818
    def __str__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Unspeakable(), "Unspeakable"),
        (SystemExit(3), "SystemExit: 3"),
        (ValueError("a\nb\x1b[31m  c"), "ValueError: a b\x1b[31m c"),
        (ValueError("x" * 10_000), "ValueError: " + "x" * 500),
    ],
)
def test_whatever_is_raised_has_one_short_line(file, error, said):
    assert told(file, lambda: strategy(file).on_fill(error)).message == f"market_maker.py, line 14, in on_fill: {said}"


def test_running_out_of_memory_is_no_mistake_of_a_line(file):
    assert told(file, lambda: strategy(file).on_fill(MemoryError())).code == Code.STRATEGY_MEMORY


def test_it_travels_between_processes_whole(file):
    failure = told(file, lambda: strategy(file).on_bar("ema"))
    back = pickle.loads(pickle.dumps(failure))  # noqa: S301
    assert isinstance(back, StrategyFailed)
    assert (back.code, back.message, back.details) == (failure.code, failure.message, failure.details)
