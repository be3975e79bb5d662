"""Budgets without workers: who has one, what is counted, and that a limit leaves no trace."""

import os
import sys

import numpy as np
import pytest
from stand_ins import backtests, own

from daemon.core.errors import Code, StrategyFailed
from daemon.research import budgets
from daemon.research.budgets import Budget, Watch, bounded_memory, budget_for, private_bytes
from daemon.research.strategies import StrategiesConfig

MIB = 1 << 20
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts private memory")


def test_only_code_of_the_users_own_has_a_budget():
    assert budget_for(own.spec("loops"), Budget()) == Budget()
    assert budget_for(backtests.spec("steps 1 1"), Budget()) is None


def test_the_configuration_says_how_much_and_where(tmp_path):
    assert StrategiesConfig().budget == budgets.USUAL == Budget(600.0, 2_048 * MIB)
    assert StrategiesConfig(seconds=0.5, memory_mb=3).budget == Budget(0.5, 3 * MIB)
    assert StrategiesConfig().folder_in(tmp_path) == tmp_path / "strategies"
    assert StrategiesConfig(folder="/elsewhere").folder_in(tmp_path).as_posix() == "/elsewhere"


def code_of(watch):
    with pytest.raises(StrategyFailed) as caught:
        watch.check()
    return caught.value.code


def test_the_clock_begins_with_the_watch_and_again_with_a_point(monkeypatch):
    now_s = [100.0]
    monkeypatch.setattr(budgets.time, "monotonic", lambda: now_s[0])
    watch = Watch(Budget(10.0), os.getpid())
    now_s[0] += 10.0
    watch.check()
    now_s[0] += 0.1
    assert code_of(watch) == Code.STRATEGY_TIMEOUT
    watch.restart()
    now_s[0] += 10.0
    watch.check()


def test_memory_counts_from_what_there_was(monkeypatch):
    held = [300 * MIB]
    monkeypatch.setattr(budgets, "private_bytes", lambda _: held[0])
    watch = Watch(Budget(600.0, 64 * MIB), 1)
    held[0] += 32 * MIB
    watch.check()
    assert not watch.is_bloated
    held[0] += 32 * MIB
    watch.check()
    assert watch.is_bloated
    held[0] += 1
    assert code_of(watch) == Code.STRATEGY_MEMORY
    held[0] = 0
    assert watch.grown_bytes == 0


@linux
def test_pages_of_mapped_files_are_not_counted(tmp_path):
    import mmap

    (tmp_path / "map").write_bytes(bytes(64 * MIB))
    before = private_bytes(os.getpid())
    with (tmp_path / "map").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert not any(mapped[::4_096])
        assert private_bytes(os.getpid()) - before < 32 * MIB
    filled = np.ones(8 * MIB)
    assert private_bytes(os.getpid()) - before > 48 * MIB
    assert filled[-1] == 1


def test_a_process_that_has_ended_is_told():
    with pytest.raises(OSError, match=r".*"):
        private_bytes(1 << 30)


@linux
def test_the_limit_is_lifted_when_a_run_has_ended():
    def reserve():
        # So much that what the process frees meanwhile does not make room for it.
        return np.empty(budgets.SPARE_BYTES + 1_024 * MIB, dtype=np.uint8)

    with pytest.raises(MemoryError), bounded_memory(Budget(600.0, 32 * MIB)):
        reserve()
    assert reserve().size > 0
