"""The bench of the tick store: what it prints, not how fast it is."""

import json
import math

import pytest

UNITS = (
    "_rows",
    "_bytes_per_row",
    "_rows_per_s",
    "_gb_per_s",
    "_ms",
    "_per_s",
    "_mb",
    "_gb",
    "_cores",
    "_core",
    "_states",
)
WORDS = ("_origin", "_of_parquet", "_of_arcticdb")


@pytest.fixture(scope="module")
def figures(cli, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    done = cli("bench", "store", "--rows", "400000", "--format", "json", "--data-dir", folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_figure_says_its_unit(figures):
    for name, value in figures.items():
        assert name.endswith((*UNITS, *WORDS)), name
        assert isinstance(value, str) or math.isfinite(value), name


def test_a_store_without_ticks_is_measured_on_a_simulated_market(figures):
    assert figures["trades_origin"] == figures["depth_origin"] == "simulated"
    assert figures["trades_speed_rows"] >= 400_000


def test_no_reader_of_the_live_tail_saw_a_torn_state(figures):
    assert figures["tail_torn_states"] == 0
    assert figures["tail_readers_polls_per_s"] > 0


def test_the_store_is_smaller_than_parquet(figures):
    assert figures["trades_bytes_per_row"] < figures["trades_parquet_zstd_bytes_per_row"]
    assert figures["depth_bytes_per_row"] < figures["depth_parquet_zstd_bytes_per_row"]
