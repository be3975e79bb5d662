"""What a run of the user's own code may take: time and memory, measured from outside of the process that runs it.

Such code comes to no checkpoint unless it wants to: it may loop for ever, with or without the interpreter's lock, or
keep all it ever saw. So the process that started the worker looks at the clock and at the worker's size ten times a
second, and kills what outruns its budget. A leak that is faster than that meets a limit inside the worker, where the
system has one.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from daemon.core.backtest import Own
from daemon.core.errors import Code, StrategyFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.core.backtest import BacktestSpec
    from daemon.core.errors import AtlasError

_MIB: Final = 1 << 20

SPARE_BYTES: Final = 256 * _MIB
"""What a worker may reserve beyond its budget: stacks of threads and the allocator's arenas are hardly ever used whole,
and the limit inside counts what is reserved."""


class Budget(msgspec.Struct, frozen=True):
    """What one run may take. seconds: wall time. memory_bytes: beyond what its worker had when the run began."""

    seconds: float = 600.0
    memory_bytes: int = 2_048 * _MIB


USUAL: Final = Budget()
"""What a run may take where nobody says."""


def budget_for(spec: BacktestSpec, budget: Budget) -> Budget | None:
    """Return the budget where a specification runs code of the user's own; None where all of its code is ours."""
    return budget if isinstance(spec.program, Own) else None


class Watch:
    """One run's use of its budget, seen by the process that started its worker. Begins when it is made.

    pid: of the worker. OSError where that has ended.
    """

    def __init__(self, budget: Budget, pid: int) -> None:
        self._budget = budget
        self._pid = pid
        self._began_s = time.monotonic()
        self._had_bytes = private_bytes(pid)

    def restart(self) -> None:
        """Count the time anew, such as for an optimisation's next point."""
        self._began_s = time.monotonic()

    @property
    def grown_bytes(self) -> int:
        """How much larger the worker is than it was. OSError where it has ended."""
        return max(0, private_bytes(self._pid) - self._had_bytes)

    def check(self) -> None:
        """Refuse to go on where the budget is spent: StrategyFailed STRATEGY_TIMEOUT or STRATEGY_MEMORY.

        OSError where the worker has ended.
        """
        used_s = time.monotonic() - self._began_s
        if used_s > self._budget.seconds:
            raise StrategyFailed(
                Code.STRATEGY_TIMEOUT,
                f"the strategy has run for {used_s:,.1f} s and may take {self._budget.seconds:g} s: look for a loop "
                "that never ends, take less data, or raise strategies.seconds in config.toml",
                {"budget_s": self._budget.seconds, "used_s": round(used_s, 3)},
            )
        if (grown := self.grown_bytes) > self._budget.memory_bytes:
            raise _over_memory(self._budget, grown)

    @property
    def is_bloated(self) -> bool:
        """Whether the run, which has ended, left so much behind that the worker is better replaced."""
        return self.grown_bytes > self._budget.memory_bytes // 2


def out_of_memory(error: MemoryError | AtlasError, budget: Budget) -> StrategyFailed:
    """Say that a run met the limit inside its worker; an error of its strategy says where."""
    lines = getattr(error, "details", None) or {}
    where = str(error) if isinstance(error, StrategyFailed) else ""
    return _over_memory(budget, None, where, lines)


def _over_memory(
    budget: Budget, grown_bytes: int | None, where: str = "", lines: dict[str, object] | None = None
) -> StrategyFailed:
    allowed = budget.memory_bytes / _MIB
    used = f"holds {grown_bytes / _MIB:,.0f} MiB" if grown_bytes is not None else "asked for more memory than it may"
    details: dict[str, object] = {"budget_mb": round(allowed, 1)}
    if grown_bytes is not None:
        details["used_mb"] = round(grown_bytes / _MIB, 1)
    return StrategyFailed(
        Code.STRATEGY_MEMORY,
        f"the strategy {used}, and may hold {allowed:,.0f} MiB{f' ({where})' if where else ''}: look for what "
        "it keeps of every event, or raise strategies.memory_mb in config.toml",
        details | (lines or {}),
    )


@contextmanager
def bounded_memory(budget: Budget) -> Iterator[None]:
    """Have this process's allocations fail with MemoryError beyond a budget and SPARE_BYTES.

    Private memory alone counts, so that reading the store's map does not. Only Linux counts so: nothing happens
    elsewhere, or where the limit cannot be set.
    """
    if sys.platform != "linux":
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = _reserved_bytes() + budget.memory_bytes + SPARE_BYTES
    bounds = [limit for limit in before if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([wanted, *bounds]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def private_bytes(pid: int) -> int:
    """Return how much memory a process has for itself; OSError where there is no such process.

    Without the pages of mapped files, where that can be told: those of the store come and go as it is read.
    """
    if sys.platform != "linux":
        return _told_bytes(pid)
    _, resident, shared, *_ = map(int, Path(f"/proc/{pid}/statm").read_bytes().split())
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def _told_bytes(pid: int) -> int:
    """Return what psutil says; of resident pages where it does not know private ones."""
    import psutil

    try:
        used = psutil.Process(pid).memory_info()
    except psutil.Error as error:
        raise ProcessLookupError(str(error)) from error
    return int(getattr(used, "private", used.rss))


def _reserved_bytes() -> int:
    """Return what RLIMIT_DATA counts of this process."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) << 10
    return 0
