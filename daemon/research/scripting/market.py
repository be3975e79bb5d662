"""A data folder as scripts and notebooks see it: what is stored, as arrays, and backtests over it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from daemon.core.errors import Code, ConfigError
from daemon.research.backtest_config.fields import text
from daemon.research.backtest_config.given import with_given
from daemon.research.backtest_records import stored_statuses
from daemon.research.optimization.records import stored_states
from daemon.research.parameters import read_specification
from daemon.research.records import stored_runs
from daemon.research.scripting.opening import find_settings, lease
from daemon.research.scripting.results import Backtest, Optimization, Probe, stored_backtest
from daemon.research.scripting.running import Bench, read_wanted, run_stored
from daemon.research.scripting.series import read_blocks, read_columns, read_indicators
from daemon.store.bars import BarStore

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from daemon.core.market import TsNs
    from daemon.research.backtest_result import BacktestStatus
    from daemon.research.optimization.result import OptimizationStatus
    from daemon.research.records import Run
    from daemon.research.scripting.opening import Settings
    from daemon.research.scripting.series import Columns, Moment
    from daemon.research.strategies import RuleBook

    Source = Mapping[str, Any] | str | os.PathLike[str]


class Stored(NamedTuple):
    """A stored series. series: a stream or a timeframe, as `Market.columns` takes it. first_ns, last_ns: ns UTC."""

    symbol: str
    series: str
    rows: int
    first_ns: TsNs
    last_ns: TsNs


class Market:
    """An open data folder, to read; a daemon may run over it. Closed by `close`, at the end of a `with`, or with it.

    settings: where it is, and what else the configuration says; ConfigError STORE_UNUSABLE where it holds no store.
    Methods raise AtlasErrors with the codes of docs/errors.md, and ConfigError STORE_UNUSABLE once it is closed.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lease = lease(settings)
        self._env = self._lease.env
        self._stored_bars = BarStore(self._env)
        self._bench: Bench | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Market({str(self._settings.folder)!r}{'' if self._lease.is_open else ', closed'})"

    def close(self) -> None:
        """Let go of the folder; results that came of it stay, with their rows. Closing twice is no error."""
        if self._bench is not None:
            self._bench.close()
            self._bench = None
        self._lease.end()

    # Data.

    def symbols(self) -> list[Stored]:
        """List what is stored: bars and ticks, by symbol."""
        bars = self._bars
        found = [
            Stored(each.instrument.key, str(each.timeframe), each.rows, each.first_ns, each.last_ns)
            for each in bars.series()
        ]
        found += [
            Stored(each.instrument.key, str(each.stream), each.rows, each.first_ns, each.last_ns)
            for each in bars.ticks.series()
        ]
        return sorted(found, key=lambda each: each.symbol)

    def columns(
        self,
        symbol: str,
        series: str,
        start: Moment | None = None,
        end: Moment | None = None,
        names: Sequence[str] | None = None,
    ) -> Columns:
        """Return a series' columns by name, as new arrays: times and ids int64, prices and sizes the exact float64.

        series: `trades`, `agg_trades`, `quotes` or `depth`; a timeframe such as `1h` or `1Hour`, made of shorter bars
        or trades where it is not stored; `volume:N` or `notional:N`. start, end: days, moments or ns; None for all.
        names: of columns, None for all. No rows are no error.
        """
        return read_columns(*read_blocks(self._bars, symbol, series, start, end, names))

    def blocks(
        self,
        symbol: str,
        series: str,
        start: Moment | None = None,
        end: Moment | None = None,
        names: Sequence[str] | None = None,
    ) -> Iterator[Columns]:
        """Walk what `columns` returns block by block, in constant memory however long the series is."""
        return read_blocks(self._bars, symbol, series, start, end, names)[1]

    def indicators(
        self,
        symbol: str,
        timeframe: str,
        names: Sequence[str],
        start: Moment | None = None,
        end: Moment | None = None,
    ) -> Columns:
        """Return `timestamp` and columns of the engine's by name, such as `rsi_14`: what a backtest's rules see.

        Bars before `start` are read for their warm-up where there are any; rows without a value are NaN.
        """
        self._prepared  # noqa: B018 - kernels may be cached from here on
        return read_indicators(self._bars, symbol, timeframe, names, start, end)

    # Backtests and studies.

    def run(
        self,
        config: Source,
        *,
        point: Mapping[str, float] | None = None,
        name: str | None = None,
        keep: bool = False,
        apart: bool = False,
        progress: Callable[[float], None] | None = None,
    ) -> Backtest:
        """Run a backtest. config: what docs/backtest-config.md describes, or a JSON file's path.

        point: parameters by name and the values that they are set to. name: what to call it. keep: store it, as
        `atlasd backtest` does, through the daemon where one runs; otherwise it leaves nothing behind, no try in the
        ledger either. apart: in a worker process, which a trader's own strategy always has. progress: told the fraction
        done, where it is not kept.
        """
        bars, book = self._bars, self._prepared
        wanted = read_wanted(config, point)
        name = None if name is None else text(name, "name")
        if book.own is not None:
            wanted = with_given(wanted, Path(), book.own)
        if keep:
            read_specification(wanted, bars, book, self._settings.profiles)  # refused here, with all that errors carry
            return stored_backtest(self._lease.another(), run_stored(self._settings, wanted, name))
        self._bench = self._bench or Bench(self._settings, bars, book)
        return self._bench.run(wanted, name, progress, apart=apart)

    def backtests(self) -> list[BacktestStatus]:
        """List the stored backtests, the newest first."""
        self._check_open()
        with self._env.read() as transaction:
            return stored_statuses(transaction)

    def backtest(self, backtest_id: str) -> Backtest:
        """Take a stored backtest; NotFound BACKTEST_NOT_FOUND, Conflict BACKTEST_NOT_FINISHED."""
        self._check_open()
        return stored_backtest(self._lease.another(), str(backtest_id))

    def probes(self) -> list[Run]:
        """List the runs of the strategy probe, the newest first."""
        self._check_open()
        with self._env.read() as transaction:
            return [each.run for each in stored_runs(transaction)]

    def probe(self, run_id: str) -> Probe:
        """Take a run of the strategy probe; NotFound RUN_NOT_FOUND."""
        self._check_open()
        return Probe(self._lease.another(), str(run_id), self._prepared)

    def optimizations(self) -> list[OptimizationStatus]:
        """List the optimisations, the newest first."""
        self._check_open()
        with self._env.read() as transaction:
            found = sorted(stored_states(transaction), key=lambda state: state.sequence, reverse=True)
        return [state.status for state in found]

    def optimization(self, optimization_id: str) -> Optimization:
        """Take an optimisation, finished or not; NotFound OPTIMIZATION_NOT_FOUND."""
        self._check_open()
        return Optimization(self._lease.another(), str(optimization_id))

    @property
    def _bars(self) -> BarStore:
        self._check_open()
        return self._stored_bars

    @cached_property
    def _prepared(self) -> RuleBook:
        return self._settings.prepare()

    def _check_open(self) -> None:
        if not self._lease.is_open:
            raise ConfigError(Code.STORE_UNUSABLE, f"the market of {self._settings.folder} is closed: open it again")


def open_market(
    folder: str | os.PathLike[str] | None = None, *, config: str | os.PathLike[str] | None = None
) -> Market:
    """Open a data folder to read, beside a running daemon or without one.

    folder: None for the one that the command line finds: ATLASD_DATA_DIR, the configuration, the system's per-user
    folder. config: a config.toml that goes over your own. ConfigError STORE_UNUSABLE, CONFIG_INVALID or STORE_SCHEMA.
    """
    return Market(find_settings(None if folder is None else Path(folder), None if config is None else Path(config)))


def run(
    config: Source,
    *,
    folder: str | os.PathLike[str] | None = None,
    point: Mapping[str, float] | None = None,
    name: str | None = None,
    keep: bool = False,
) -> Backtest:
    """Open a data folder, run one backtest, and close it: `open_market` and `Market.run` in one."""
    with open_market(folder) as market:
        return market.run(config, point=point, name=name, keep=keep)
