"""The bench of one strategy: what it says of a handler, and that its process ends when its time is up."""

import pytest

from daemon.app import bench_strategy as bench
from daemon.app.bench_book_strategies import IN_PYTHON
from daemon.core.errors import InvalidRequest


def test_a_handler_that_runs_as_python_is_called_and_says_why(monkeypatch):
    monkeypatch.setattr(bench, "_TRADES", 20_000)
    monkeypatch.setattr(bench, "_ENOUGH_S", 0.01)
    figures = bench._measured(IN_PYTHON, "in_python.py", 2, 10_000)  # noqa: SLF001 - in this process, whose kernels are ready
    assert (figures["fills"], figures["on_bar_compiled"]) == ("bars", 0)
    assert figures["on_bar_why_not"]
    assert figures["on_bar_calls_per_s"] > 0
    assert figures["events"] > 200


def test_one_that_does_not_end_is_killed():
    endless = IN_PYTHON + b"\n\nwhile True:\n    pass\n"
    with pytest.raises(InvalidRequest, match="was not done within 1 s"):
        bench.bench_strategy(endless, "endless.py", symbols=1, depth_rows=10_000, seconds=1.0)
