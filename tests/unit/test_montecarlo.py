import math
import threading
import tracemalloc
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from daemon.engine import montecarlo, resampling
from daemon.engine.montecarlo import METHODS, simulate
from daemon.engine.resampling import block_length

RETURNS = np.random.default_rng(1).normal(0.004, 0.03, 120)
COSTS = np.full(RETURNS.size, 0.002)
# The 25th percentile of the final return and the 95th of the drawdown, to the bit.
RECORDED = {
    "bootstrap": ("0x1.af08e31954100p-10", "0x1.019302d7954b3p-2"),
    "shuffle": ("0x1.bfc26cb98d3e0p-4", "0x1.3ffaa94757c95p-2"),
    "missed": ("0x1.3624237ceaf30p-5", "0x1.26ffa174e4f1cp-3"),
    "noise": ("0x1.af97c364c16a0p-4", "0x1.32eb6ea06014cp-4"),
}
EVERY_METHOD = pytest.mark.parametrize("method", METHODS)


def run(returns=RETURNS, costs=None, **options):
    returns = np.asarray(returns, dtype=float)
    costs = np.full(returns.size, 0.002) if costs is None else np.asarray(costs, dtype=float)
    return simulate(returns, costs, **{"runs": 2_000, "seed": 1} | options)


def as_bytes(found):
    """Everything that came of it, to the bit."""
    return (*found[:5], found.spread, found.sample_paths.tobytes(), *(column.tobytes() for column in found.fan))


def final_of(returns):
    return math.prod((1 + returns).tolist()) - 1


# The same anywhere.


@EVERY_METHOD
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(method):
    assert as_bytes(run(method=method)) == as_bytes(run(method=method))
    assert run(method=method, seed=2).sample_paths.tobytes() != run(method=method).sample_paths.tobytes()


@EVERY_METHOD
def test_threads_and_chunks_do_not_change_a_byte(method, monkeypatch):
    whole = run(method=method)
    for threads, trades_of_a_chunk in ((1, 1), (2, 5_000), (5, 777), (3, 10**9)):
        monkeypatch.setattr(montecarlo, "_CHUNK_TRADES", trades_of_a_chunk)
        assert as_bytes(run(method=method, threads=threads)) == as_bytes(whole)


@EVERY_METHOD
def test_the_first_paths_do_not_depend_on_how_many_follow(method):
    assert np.array_equal(run(method=method, runs=7).sample_paths, run(method=method).sample_paths[:7])


def test_numbers_are_the_recorded_ones():
    # A change here breaks every stored result's promise that its seed repeats it.
    returns = (np.arange(90) * 37 % 101 - 48) / 1_000
    ends = {}
    for method in METHODS:
        found = run(returns, runs=500, seed=42, method=method, block=4)
        ends[method] = (found.spread.percentile25.hex(), found.spread.percentile95_drawdown.hex())
    assert ends == RECORDED


def test_paths_are_walked_on_as_many_threads_as_asked(monkeypatch):
    seen, together = set(), threading.Barrier(2, timeout=20)
    walk_paths = montecarlo.walk_paths

    def watched(*arguments):
        seen.add(threading.get_ident())
        together.wait()
        walk_paths(*arguments)

    monkeypatch.setattr(montecarlo, "walk_paths", watched)
    monkeypatch.setattr(montecarlo, "_CHUNK_TRADES", 1_000 * RETURNS.size)
    run(threads=2)
    assert len(seen) == 2


# What the methods do.


def test_a_shuffle_ends_where_the_trades_did_with_other_drawdowns():
    found = run(method="shuffle")
    spread = found.spread
    assert spread.median_return == pytest.approx(final_of(RETURNS), rel=1e-12)
    assert spread.percentile5 == spread.percentile95 == spread.mean_return == spread.median_return
    assert spread.std_return == 0
    assert spread.percentile95_drawdown > spread.median_drawdown > 0
    assert len(np.unique(found.sample_paths[:, 60])) == len(found.sample_paths)
    assert (found.sample_paths[:, -1] == 1 + spread.median_return).all()


def test_a_shuffle_of_trades_that_even_out_finds_no_profit_in_rounding():
    evened = np.repeat([0.1, 1 / 1.1 - 1], 40)
    spread = run(evened, method="shuffle").spread
    assert spread.probability_of_profit == float(final_of(evened) > 0)
    assert spread.std_return == 0


def test_every_order_of_a_shuffle_is_equally_likely():
    order, counts = np.empty(4), Counter()
    for path in range(12_000):
        montecarlo.shuffle(np.arange(4.0), resampling.stream(np.uint64(1), path), order)
        counts[tuple(order)] += 1
    assert len(counts) == 24
    assert sum((count - 500) ** 2 / 500 for count in counts.values()) < 55  # chi-squared of 23 degrees: 1 in 5,000


def test_no_trade_missed_is_the_run_itself():
    found = run(method="missed", miss_chance=0.0)
    assert found.spread.median_return == pytest.approx(final_of(RETURNS), rel=1e-12)
    assert found.spread.std_return == 0
    assert (found.sample_paths == found.sample_paths[0]).all()
    assert found.sample_paths[0] == pytest.approx(np.cumprod([1, *(1 + RETURNS)]))


def test_all_trades_missed_is_no_trading():
    spread = run(method="missed", miss_chance=1.0).spread
    assert (spread.median_return, spread.percentile95_drawdown, spread.probability_of_profit) == (0, 0, 0)


def test_a_tenth_of_the_trades_is_missed_by_default():
    spread = run([0.01] * 1_000, method="missed").spread
    assert math.log1p(spread.median_return) / math.log1p(0.01) == pytest.approx(900, abs=2)


def test_noise_is_in_units_of_a_trades_costs():
    # Of one trade: sd of the return is costs x sqrt(cost_noise^2 + fill_noise^2) / sqrt(12), its mean does not move.
    spread = run([0.05], [0.01], runs=50_000, method="noise", cost_noise=0.5, fill_noise=1.0).spread
    assert spread.mean_return == pytest.approx(0.05, abs=5e-5)
    assert spread.std_return == pytest.approx(0.01 * math.sqrt(1.25 / 12), rel=0.02)
    bounds = run([0.05], [0.01], runs=50_000, method="noise", confidence=0.9999999).spread.return_confidence_interval
    assert 0.05 - 0.015 <= bounds.lower < bounds.upper <= 0.05 + 0.015


def test_costs_alone_move_a_trade_by_at_most_themselves():
    chosen = {"runs": 20_000, "method": "noise", "cost_noise": 1.0, "fill_noise": 0.0, "confidence": 0.9999999}
    bounds = run([0.05], [0.01], **chosen).spread.return_confidence_interval
    assert 0.04 <= bounds.lower < 0.042
    assert 0.058 < bounds.upper <= 0.06


@pytest.mark.parametrize("options", [{"costs": [0.0] * 120}, {"cost_noise": 0.0, "fill_noise": 0.0}])
def test_without_costs_or_without_noise_nothing_is_disturbed(options):
    spread = run(method="noise", **options).spread
    assert spread.std_return == 0
    assert spread.median_return == pytest.approx(final_of(RETURNS), rel=1e-12)


def test_the_bootstrap_scatters_as_independent_trades_do():
    # log growth of n independent draws: mean n m, variance n s^2 of the log returns.
    logs = np.log1p(RETURNS)
    spread = run(runs=20_000, block=1).spread
    assert math.log1p(spread.median_return) == pytest.approx(logs.sum(), abs=0.01)
    width = math.log1p(spread.percentile95) - math.log1p(spread.percentile5)
    assert width == pytest.approx(2 * 1.645 * logs.std() * math.sqrt(logs.size), rel=0.03)


def test_the_block_is_chosen_from_the_returns_unless_it_is_given():
    clustered = np.repeat(RETURNS[:40], 3)
    assert run(clustered).block_length == block_length(clustered) > 2
    assert run(clustered, block=7).block_length == 7
    assert as_bytes(run(clustered, block=block_length(clustered))) == as_bytes(run(clustered))


def test_clustered_losses_are_seen_by_blocks_and_not_by_single_draws():
    clustered = np.repeat(RETURNS[:40], 5)
    assert run(clustered, block=15).spread.percentile95_drawdown > run(clustered, block=1).spread.percentile95_drawdown


# What is measured.


def test_figures_are_those_of_the_paths():
    found = run(runs=2_000, block=3)
    curves = found.sample_paths
    assert curves.shape == (30, 121)
    assert (curves[:, 0] == 1).all()
    peaks = np.maximum.accumulate(curves, axis=1)
    few = run(runs=30, block=3)
    assert few.spread.median_drawdown == pytest.approx(np.median((1 - curves / peaks).max(axis=1)))
    assert few.spread.median_return == pytest.approx(np.median(curves[:, -1] - 1))
    assert few.spread.std_return == pytest.approx(curves[:, -1].std(ddof=1))
    assert few.spread.mean_return == pytest.approx(curves[:, -1].mean() - 1)
    assert few.spread.probability_of_profit == np.mean(curves[:, -1] > 1)
    assert few.spread.probability_of_ruin == np.mean(curves.min(axis=1) <= 0.5)
    assert few.spread.probability_of2x_return == np.mean(curves[:, -1] >= 2)


def test_the_fan_is_of_the_paths_and_ends_where_the_figures_do():
    found = run(runs=2_000)
    fan, spread = found.fan, found.spread
    assert fan.trades.tolist() == list(range(121))
    lines = (fan.percentile5, fan.percentile25, fan.median, fan.percentile75, fan.percentile95)
    assert all((below <= above).all() for below, above in pairwise(lines))
    ends = (spread.percentile5, spread.percentile25, spread.median_return, spread.percentile75, spread.percentile95)
    assert [line[-1] - 1 for line in lines] == pytest.approx(ends)


def test_without_curves_the_figures_are_the_same():
    found = run(fan_paths=0)
    assert found.spread == run().spread
    assert [column.size for column in found.fan] == [0] * 6
    assert len(found.sample_paths) == 0


@pytest.mark.parametrize("trades", [1, 2, 198, 199, 200, 201, 1_000, 12_345])
def test_curves_have_200_points_at_most_from_no_trade_to_all(trades):
    marks = run(np.full(trades, 0.001), runs=3).fan.trades
    assert marks.size == min(trades + 1, 200)
    assert (marks[0], marks[-1]) == (0, trades)
    assert (np.diff(marks) > 0).all()


def test_thinned_curves_hold_the_equity_at_their_points():
    returns = np.random.default_rng(3).normal(0, 0.01, 1_000)
    found = run(returns, runs=2, method="missed", miss_chance=0.0)
    whole = np.cumprod([1, *(1 + returns)])
    assert found.sample_paths[0] == pytest.approx(whole[found.fan.trades])
    peaks = np.maximum.accumulate(whole)
    assert found.spread.median_drawdown == pytest.approx((1 - whole / peaks).max())


def test_ruin_is_half_of_the_capital_at_any_time():
    recovered = run([-0.5, 3.0], method="missed", miss_chance=0.0).spread
    assert (recovered.probability_of_ruin, recovered.probability_of_profit) == (1, 1)
    assert recovered.probability_of2x_return == 1
    assert run([-0.49, 3.0], method="missed", miss_chance=0.0).spread.probability_of_ruin == 0


def test_the_interval_leaves_as_much_out_on_either_side():
    wide, narrow = (run(confidence=level).spread.return_confidence_interval for level in (0.9, 0.5))
    spread = run().spread
    assert (wide.lower, wide.upper) == pytest.approx((spread.percentile5, spread.percentile95))
    assert (narrow.lower, narrow.upper) == pytest.approx((spread.percentile25, spread.percentile75))
    assert narrow.confidence == 0.5


# Unusual trades.


def test_without_trades_there_is_nothing_to_simulate():
    assert run([]) is None


@EVERY_METHOD
def test_one_trade_is_enough(method):
    found = run([0.1], [0.0], method=method, miss_chance=0.0)
    assert found.spread.median_return == pytest.approx(0.1)
    assert found.sample_paths.shape == (30, 2)


def test_one_run_has_no_deviation():
    assert run(runs=1).spread.std_return == 0


@EVERY_METHOD
def test_wins_alone_never_draw_down(method):
    spread = run(np.linspace(0.01, 0.05, 50), method=method).spread
    assert (spread.probability_of_profit, spread.probability_of_ruin, spread.percentile95_drawdown) == (1, 0, 0)


@pytest.mark.parametrize("method", ["bootstrap", "shuffle"])
def test_equal_trades_leave_no_doubt(method):
    spread = run([0.01] * 100, method=method).spread
    assert spread.std_return == 0
    assert spread.percentile5 == spread.median_return == spread.mean_return == spread.percentile95
    assert spread.median_return == pytest.approx(1.01**100 - 1)


@EVERY_METHOD
@pytest.mark.parametrize("loss", [-1.0, -3.0])
def test_a_bankrupt_stays_bankrupt(method, loss):
    spread = run([loss] * 3 + [9.0] * 5, [0.0] * 8, method=method, miss_chance=0.0, block=8).spread
    if method != "bootstrap":  # which may have drawn wins alone
        assert (spread.median_return, spread.percentile95) == (-1, -1)
        assert spread.probability_of_ruin == 1
    assert spread.percentile5 == -1
    assert spread.percentile95_drawdown == 1


def test_gains_beyond_all_bounds_give_finite_figures():
    spread = run([1.0] * 3_000 + [-0.5]).spread
    assert spread.median_return == 1e150
    assert all(math.isfinite(figure) for figure in (*spread[:12], *spread.return_confidence_interval))


@EVERY_METHOD
def test_frozen_columns_are_simulated_like_any_others(method):
    frozen, costs = RETURNS.copy(), COSTS.copy()
    frozen.setflags(write=False)
    costs.setflags(write=False)
    assert as_bytes(simulate(frozen, costs, runs=50, seed=1, method=method)) == as_bytes(run(runs=50, method=method))
    assert np.array_equal(frozen, RETURNS)


# Memory and cancelling.


def test_a_million_runs_keep_no_more_than_their_ends():
    tracemalloc.start()
    found = run([0.1, -0.05], runs=1_000_000, block=1, threads=2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Of four equally likely pairs of trades one loses.
    assert found.spread.probability_of_profit == pytest.approx(0.75, abs=0.002)
    assert peak < 120_000_000


@pytest.mark.parametrize("method", METHODS)
def test_ten_million_trades_are_walked_in_seconds_and_little_beside_their_columns(method):
    returns, costs = np.resize(RETURNS / 1_000, 10_000_000), np.full(10_000_000, 1e-6)
    tracemalloc.start()
    found = simulate(returns, costs, runs=2, seed=1, method=method, block=5.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.trades, found.fan.trades[-1], found.sample_paths.shape) == (10_000_000, 10_000_000, (2, 200))
    assert math.isfinite(found.spread.mean_return)
    assert peak < 5 * returns.nbytes


def test_a_caller_may_end_it_between_chunks(monkeypatch):
    monkeypatch.setattr(montecarlo, "_CHUNK_TRADES", 10 * RETURNS.size)
    calls = []

    def checkpoint():
        calls.append(threading.active_count())
        if len(calls) == 3:
            raise InterruptedError

    before = threading.active_count()
    with pytest.raises(InterruptedError):
        run(threads=2, checkpoint=checkpoint)
    assert len(calls) == 3
    assert threading.active_count() == before


def test_a_caller_is_asked_once_a_chunk_of_each_thread(monkeypatch):
    monkeypatch.setattr(montecarlo, "_CHUNK_TRADES", 100 * RETURNS.size)
    calls = []
    run(threads=2, checkpoint=lambda: calls.append(None))
    assert len(calls) == 10


# Bad input.


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_trades_that_are_no_numbers_are_refused_with_their_row(value):
    with pytest.raises(ValueError, match=r"returns\[2\] is"):
        run([0.1, 0.2, value])
    with pytest.raises(ValueError, match=r"costs\[1\] is"):
        run([0.1, 0.2, 0.3], [0, value, 0])


@pytest.mark.parametrize(("returns", "costs"), [([0.1], []), ([0.1], [0.1, 0.1]), ([[0.1]], [[0.1]])])
def test_columns_of_other_lengths_are_refused(returns, costs):
    with pytest.raises(ValueError, match="one row a trade"):
        simulate(np.array(returns), np.array(costs), runs=10, seed=1)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("method", "guess"),
        ("runs", 0),
        ("runs", -5),
        ("threads", 0),
        ("seed", -1),
        ("seed", 2**64),
        ("block", 0.5),
        ("block", math.nan),
        ("block", math.inf),
        ("confidence", 0.0),
        ("confidence", 1.0),
        ("confidence", math.nan),
        ("miss_chance", -0.1),
        ("miss_chance", 1.1),
        ("cost_noise", 1.5),
        ("cost_noise", math.nan),
        ("fill_noise", -1.0),
        ("fill_noise", math.inf),
        ("fan_paths", -1),
    ],
)
def test_options_without_a_meaning_are_refused_by_name(option, value):
    with pytest.raises(ValueError, match=f"{option} is"):
        run(**{option: value})
    with pytest.raises(ValueError, match=f"{option} is"):
        run([], **{option: value})
