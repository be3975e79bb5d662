"""The series that points of an optimisation run over: each is read once, however many points share it."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from daemon.core.backtest import Funding, Market
from daemon.core.market import Timeframe, TsNs
from daemon.research.backtest_market import digests_of, read_series, warmup_bars
from daemon.research.optimization.records import SERIES_KEPT
from daemon.research.sweep import NOTHING, Sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemon.core.backtest import BacktestSpec
    from daemon.research.sweep import Tested
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

    def __init__(self, bars: BarStore) -> None:
        self._bars = bars
        self._kept: OrderedDict[_Reading, Sweep] = OrderedDict()
        self._sources: dict[_Reading, Source] = {}

    def of(self, spec: BacktestSpec) -> Sweep:
        """Return the series of a specification; NotFound NO_BARS."""
        reading = _reading(spec)
        if reading in self._kept:
            self._kept.move_to_end(reading)
        else:
            while len(self._kept) >= SERIES_KEPT:
                self._kept.popitem(last=False)
            series = [read_series(self._bars, spec, market, reading.warmup) for market in spec.markets]
            sweep = self._kept[reading] = Sweep(spec, series)
            self._sources[reading] = Source(digests_of(series), sweep.year_days)
        return self._kept[reading]

    def source(self, spec: BacktestSpec) -> Source:
        """Return what is known of the series of a specification, which are not read again for it."""
        reading = _reading(spec)
        if reading not in self._sources:
            self.of(spec)
        return self._sources[reading]

    def run(
        self, specs: Sequence[BacktestSpec], checkpoint: Callable[[], None], progress: Callable[[int], None]
    ) -> list[Tested]:
        """Run each over the whole range; returns what came of it, in their order."""
        groups: dict[_Reading, list[int]] = {}
        for place, spec in enumerate(specs):
            groups.setdefault(_reading(spec), []).append(place)
        found = [NOTHING] * len(specs)
        done = 0
        for places in groups.values():
            checkpoint()
            sweep = self.of(specs[places[0]])
            before = done
            runs = sweep.run(
                [specs[place] for place in places],
                [sweep.span],
                checkpoint,
                lambda count, before=before: progress(before + count),  # type: ignore[misc]
            )
            for place, tested in zip(places, runs, strict=True):
                found[place] = tested[0]
            done += len(places)
        return found


def _reading(spec: BacktestSpec) -> _Reading:
    warmup = 0 if spec.start_ns is None else warmup_bars(spec)
    return _Reading(spec.markets, spec.timeframe, spec.start_ns, spec.stop_ns, spec.funding, spec.calendar_days, warmup)
