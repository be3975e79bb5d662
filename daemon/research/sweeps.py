"""The series that points of an optimisation or a walk-forward run over: read once, however many points share them."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from daemon.core.backtest import Funding, Market
from daemon.core.market import Timeframe, TsNs
from daemon.research.backtest_market import digests_of, read_series
from daemon.research.own_runs import needed_bars
from daemon.research.sweep import Sweep
from daemon.research.swept import is_fed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemon.core.backtest import BacktestSpec
    from daemon.research.backtest_market import Used
    from daemon.research.own.folder import StrategyFolder
    from daemon.research.sweep import Span, Tested
    from daemon.store.bars import BarStore


class _Reading(NamedTuple):
    """All of a specification that its series depend on. warmup: bars before the first that it looks back on."""

    markets: tuple[Market, ...]
    timeframe: Timeframe
    start_ns: TsNs | None
    stop_ns: TsNs | None
    funding: Funding
    calendar_days: int | None
    warmup: int


class Source(NamedTuple):
    """What stays known of series that were let go. digests: of all their rows."""

    digests: list[str]
    year_days: int


class Sweeps:
    """Series by what they were read for: points differ in how far they look back, and some in dates or calendar."""

    def __init__(
        self, bars: BarStore, *, kept: int, warmup: int | None = None, folder: StrategyFolder | None = None
    ) -> None:
        """kept: series that are held at a time. warmup: bars that all look back on, None for what each needs.

        folder: of own strategies.
        """
        self._folder = folder
        self._bars = bars
        self._most = kept
        self._warmup = warmup
        self._kept: OrderedDict[_Reading, Sweep] = OrderedDict()
        self._sources: dict[_Reading, Source] = {}
        self._fed: dict[_Reading, list[Used]] = {}

    def of(self, spec: BacktestSpec) -> Sweep:
        """Return the series of a specification; NotFound NO_BARS."""
        reading = self._reading(spec)
        if reading in self._kept:
            self._kept.move_to_end(reading)
        else:
            while len(self._kept) >= self._most:
                self._kept.popitem(last=False)
            series = [read_series(self._bars, spec, market, reading.warmup) for market in spec.markets]
            sweep = self._kept[reading] = Sweep(spec, series, folder=self._folder, store=self._bars)
            self._sources[reading] = Source(digests_of(series), sweep.year_days)
        return self._kept[reading]

    def source(self, spec: BacktestSpec) -> Source:
        """Return what is known of the series of a specification, which are not read again for it."""
        reading = self._reading(spec)
        if reading not in self._sources:
            self.of(spec)
        return self._sources[reading]

    def fed(self, spec: BacktestSpec, checkpoint: Callable[[], None]) -> list[Used]:
        """Read through what runs of a specification read beside bars, and say what it is; nothing of rules."""
        if not is_fed(spec):
            return []
        reading = self._reading(spec)
        if reading not in self._fed:
            self._fed[reading] = self.of(spec).fed(spec, checkpoint)
        return self._fed[reading]

    def whole(
        self, specs: Sequence[BacktestSpec], checkpoint: Callable[[], None], progress: Callable[[int], None]
    ) -> list[Tested]:
        """Run each over the whole of its own range; returns what came of it, in their order."""
        return [runs[0] for runs in self.run(specs, None, checkpoint, progress)]

    def run(
        self,
        specs: Sequence[BacktestSpec],
        spans: Sequence[Span] | None,
        checkpoint: Callable[[], None],
        progress: Callable[[int], None],
    ) -> list[list[Tested]]:
        """Run each over every span, None for the whole of its own range; a list a specification, in their order."""
        groups: dict[_Reading, list[int]] = {}
        for place, spec in enumerate(specs):
            groups.setdefault(self._reading(spec), []).append(place)
        found: list[list[Tested]] = [[] for _ in specs]
        done = 0
        for places in groups.values():
            checkpoint()
            sweep = self.of(specs[places[0]])
            before = done
            runs = sweep.run(
                [specs[place] for place in places],
                [sweep.span] if spans is None else spans,
                checkpoint,
                lambda count, before=before: progress(before + count),  # type: ignore[misc]
            )
            for place, tested in zip(places, runs, strict=True):
                found[place] = tested
            done += sum(map(len, runs))
        return found

    def _reading(self, spec: BacktestSpec) -> _Reading:
        needed = needed_bars(spec, self._folder) if self._warmup is None else self._warmup
        warmup = 0 if spec.start_ns is None else needed
        return _Reading(
            spec.markets, spec.timeframe, spec.start_ns, spec.stop_ns, spec.funding, spec.calendar_days, warmup
        )
