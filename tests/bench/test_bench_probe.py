"""The bench itself: its figures' names are a contract, their sizes are not asserted."""

from daemon.app import wiring
from daemon.app.bench import bench_probe
from daemon.app.config import load


def test_the_probe_bench_returns_one_flat_object_with_units_in_its_keys():
    config = load()
    figures = bench_probe(wiring.rule_book(config), config.probe.risk_profiles, 1_000)
    assert list(figures) == [
        "bars", "combinations", "trades", "talib_ms", "indicators_ms", "conditions_ms", "kernel_ms", "aggregation_ms",
        "store_ms", "total_ms", "cold_s", "peak_rss_mb",
    ]  # fmt: skip
    assert figures["bars"] == 1_000
    assert figures["combinations"] == 300
    assert figures["trades"] > 0
    assert all(value > 0 for value in figures.values())
