from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import numpy as np
import pytest

from daemon import engine
from daemon.core.market import NS_PER_HOUR, Bars
from daemon.core.strategy import RiskProfile
from daemon.engine import bars as engine_bars
from daemon.engine import conditions, probe, rolling
from daemon.engine.columns import ATR, NAMES
from daemon.engine.indicators import IndicatorColumns
from daemon.engine.jit import KERNELS
from daemon.engine.program import compile_strategies
from daemon.research.strategies import load

# What Python calls; other kernels are called by these, and compiled within them.
ENTRANCES = {
    engine_bars._merge,  # noqa: SLF001
    conditions.evaluate,
    conditions.pack,
    probe.trade,
    probe.aggregate,
    rolling.rolling_max,
    rolling.running_mean,
}


def name_of(kernel):
    return f"{kernel.py_func.__module__}.{kernel.py_func.__name__}"


def use_everything(bars):
    strategies = list(load([Path(__file__).parents[2] / "strategies.json"]))
    program = compile_strategies(strategies)
    columns = IndicatorColumns(bars)
    for name in NAMES:
        columns[name]
    signals = conditions.signals(program, columns)
    combinations = probe.combine(strategies, [(place, RiskProfile()) for place in range(len(strategies))])
    list(probe.run(bars, columns[ATR], signals, program.strategy_signals, combinations))
    engine_bars.lengthen(bars, 4 * NS_PER_HOUR)


def some_bars(size, volume):
    wave = 100 + 5 * np.sin(np.arange(size) / 9)
    return Bars(np.arange(size) * NS_PER_HOUR, wave, wave + 1, wave - 1, wave, np.full(size, volume))


@pytest.mark.parametrize("kernel", KERNELS, ids=name_of)
def test_a_kernel_runs_without_the_gil_and_from_the_cache_with_ieee_division(kernel):
    assert kernel.targetoptions["nogil"] is True
    assert kernel.targetoptions["nopython"] is True
    assert kernel.targetoptions["error_model"] == "numpy"
    assert "fastmath" not in kernel.targetoptions
    assert kernel.stats.cache_path is not None


def test_nothing_in_the_engine_is_compiled_without_the_decorator():
    modules = [import_module(f"daemon.engine.{module.name}") for module in iter_modules(engine.__path__)]
    compiled = {value for module in modules for value in vars(module).values() if hasattr(value, "py_func")}
    assert ENTRANCES <= compiled <= set(KERNELS)


def test_kernels_have_one_specialisation_whatever_the_series():
    longer = some_bars(700, 1.5)
    use_everything(some_bars(300, 0.0))
    use_everything(longer)
    use_everything(longer.rows(50, 650))
    counts = {name_of(kernel): len(kernel.signatures) for kernel in KERNELS}
    assert {name_of(kernel): counts[name_of(kernel)] for kernel in ENTRANCES} == {
        name_of(kernel): 1 for kernel in ENTRANCES
    }
    # Where an entrance came from the cache whole, what it calls has no signature of its own.
    assert max(counts.values()) == 1
