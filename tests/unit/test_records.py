from types import SimpleNamespace

from daemon.core.market import NS_PER_DAY
from daemon.research.records import notes_on


def test_derived_bars_that_are_covered_in_part_are_named_with_their_source():
    index = SimpleNamespace(
        instrument="local:SPY", timeframe="1Day", source="1Hour", partial_buckets=[0, 19_000 * NS_PER_DAY]
    )
    assert notes_on(index) == [
        "local:SPY 1Day: derived from 1Hour bars; the bar of 1970-01-01T00:00:00Z is covered in part",
        "local:SPY 1Day: derived from 1Hour bars; the bar of 2022-01-08T00:00:00Z is covered in part",
    ]
