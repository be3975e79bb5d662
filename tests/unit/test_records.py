from types import SimpleNamespace

from daemon.core.market import NS_PER_DAY
from daemon.research.records import notes_on


def test_derived_bars_that_are_covered_in_part_are_named_with_their_source():
    index = SimpleNamespace(
        instrument="local:SPY",
        timeframe="1Day",
        source="1Hour",
        partial_buckets=[0, 19_000 * NS_PER_DAY],
        holes=0,
    )
    assert notes_on(index) == [
        "local:SPY 1Day: derived from 1Hour bars; the bar of 1970-01-01T00:00:00Z is covered in part",
        "local:SPY 1Day: derived from 1Hour bars; the bar of 2022-01-08T00:00:00Z is covered in part",
    ]


def test_holes_in_the_trades_that_bars_were_made_from_are_counted():
    index = SimpleNamespace(
        instrument="binance:X", timeframe="1Min", source="trades", partial_buckets=[], holes=2, missing_rows=1_200
    )
    (note,) = notes_on(index)
    assert note == (
        "binance:X 1Min: derived from trades with 2 known holes, at least 1,200 rows missing: "
        "`atlasd data gaps binance:X`"
    )
