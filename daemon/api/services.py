"""What the interface needs of the rooms below, built by `app.wiring`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.api.auth import Access
    from daemon.api.limits import JobStarts
    from daemon.api.settings import HttpConfig, Setting
    from daemon.core.bus import Bus
    from daemon.ingest.recording import RecordStatus
    from daemon.research.backtests import Backtests
    from daemon.research.executors import WorkerCounts
    from daemon.research.monte_carlos import MonteCarlos
    from daemon.research.optimizations import Optimizations
    from daemon.research.runs import Runs
    from daemon.research.strategies import RuleBook
    from daemon.store.bars import BarStore
    from daemon.store.env import Environment
    from daemon.store.journal import Journal
    from daemon.store.ticks import TickStore


class Resources(Protocol):
    """What the daemon uses, measured when it is asked."""

    @property
    def is_fresh(self) -> bool:
        """Whether all of it was measured a moment ago, so that asking again takes no time."""

    def uptime_s(self) -> int:
        """Seconds since the start."""

    def stored_rows(self) -> int:
        """Rows of bars and ticks that are stored."""

    def memory_bytes(self) -> int:
        """Resident memory of the daemon and its workers."""


class Services(NamedTuple):
    """What the routes need."""

    env: Environment
    bars: BarStore
    ticks: TickStore
    book: RuleBook
    runs: Runs
    backtests: Backtests
    optimizations: Optimizations
    monte_carlos: MonteCarlos
    bus: Bus
    journal: Journal
    feeds: Callable[[], list[tuple[str, RecordStatus]]]
    config: HttpConfig
    access: Access
    starts: JobStarts
    resources: Resources
    settings: tuple[Setting, ...] = ()
    workers: Callable[[], WorkerCounts] | None = None
