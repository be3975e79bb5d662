"""The bench of the API: what it prints, not how fast it is."""

import json
import math

import pytest

UNITS = ("_ms", "_per_s", "_mb", "_clients", "_connections")


@pytest.fixture(scope="module")
def figures(cli):
    done = cli("bench", "api", "--seconds", "0.1", "--format", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_figure_says_its_unit(figures):
    for name, value in figures.items():
        assert name.endswith(UNITS), name
        assert math.isfinite(value), name


def test_every_figure_of_the_api_is_there(figures):
    assert {
        "round_trip_p50_ms",
        "round_trip_p99_ms",
        "paced_busy_p99_ms",
        "pipelined_requests_per_s",
        "deliveries_per_s",
        "idle_memory_mb",
        "slow_client_delay_ms",
    } <= set(figures)
    assert figures["delivery_clients"] == 100
    assert figures["idle_connections"] > 0
    assert 0 < figures["round_trip_p50_ms"] <= figures["round_trip_p99_ms"]
