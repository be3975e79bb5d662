"""Ladders of bars: what walking them costs, and the dearest of several, against quantities one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import simulate as naive
from simulated import as_ladders

from daemon.core.backtest import Costs, NoSlippage
from daemon.engine.costs import record_of
from daemon.engine.ladders import MOST_LEVELS, UNKNOWN, dearer, joined, walk, with_dearest

LEVELS = st.lists(st.tuples(st.sampled_from([0.001, 0.5, 1.0, 3.0, 40.0]), st.integers(1, 60)), min_size=1, max_size=6)
BOOKS = st.lists(st.none() | st.tuples(LEVELS, LEVELS), min_size=1, max_size=14)
QUANTITIES = st.floats(1e-3, 500.0)
BPS = 1e-4


def book_of(drawn):
    """Return a book around 100 of drawn (size, step to the next level in basis points)."""
    if drawn is None:
        return None
    asks, bids = (
        list(zip((100 * (1 + way * BPS * np.cumsum([step for _, step in side]))).tolist(), sizes, strict=True))
        for way, side in zip((1, -1), drawn, strict=True)
        for sizes in [[size for size, _ in side]]
    )
    return naive.Book(asks, bids)


def laid_out(ladders, bar):
    """Return the costs of a bar as the loop has them."""
    (cost,) = record_of(Costs(maker_rate=0.0, taker_rate=0.0), [NoSlippage()], 1.0)
    row = ladders.row[bar]
    for side in range(2):
        first, stop = ladders.edges[2 * row + side : 2 * row + side + 2]
        cost["book_levels"][side] = stop - first
        cost["book_sizes"][side][: stop - first] = ladders.sizes[first:stop]
        cost["book_distances"][side][: stop - first] = ladders.distances[first:stop]
    return cost


@given(BOOKS, QUANTITIES)
@settings(max_examples=100, deadline=None)
def test_any_quantity_pays_what_the_dearest_book_asks_level_by_level(drawn, quantity):
    books = [book_of(each) for each in drawn]
    ladders = as_ladders(books)
    for bar, book in enumerate(books):
        known = [book] if book else [each for each in books[:bar] if each]
        assert (ladders.row[bar] == UNKNOWN) == (not known)
        for side in (1, -1) if known else ():
            best, mean = walk(laid_out(ladders, bar), side, quantity)
            half_spread, impact = naive.by_books(known, side, quantity)
            assert best == pytest.approx(half_spread, rel=1e-9)
            assert mean == pytest.approx(half_spread + impact, rel=1e-9)
            held = min(sum(size for _, size in (each.asks if side > 0 else each.bids)) for each in known)
            assert ladders.held[2 * ladders.row[bar] + (side < 0)] == pytest.approx(held, rel=1e-12)


@given(BOOKS, st.integers(0, 14))
@settings(max_examples=60, deadline=None)
def test_books_to_come_change_nothing_of_the_bars_before(drawn, bars):
    books = [book_of(each) for each in drawn]
    whole, part = as_ladders(books), as_ladders(books[:bars])
    for bar in range(part.row.size):
        assert (whole.row[bar] == UNKNOWN) == (part.row[bar] == UNKNOWN)
        if part.row[bar] != UNKNOWN:
            assert laid_out(whole, bar).tobytes() == laid_out(part, bar).tobytes()


def test_an_envelope_of_too_many_corners_costs_no_less_and_hardly_more():
    rng = np.random.default_rng(7)
    sizes, distances, count = np.zeros(MOST_LEVELS), np.zeros(MOST_LEVELS), 0
    ladders = []
    for _ in range(300):
        # Each is the dearest somewhere: flat ones that begin far away, steep ones that begin near.
        begin = rng.uniform(1, 30) * BPS
        other = rng.uniform(0.5, 3.0, MOST_LEVELS), begin + np.cumsum(rng.uniform(0, 1, MOST_LEVELS)) * 2e-7 / begin
        count = dearer(sizes, distances, count, *other)
        ladders.append(other)
    assert count == MOST_LEVELS
    assert (np.diff(distances[:count]) > 0).all()
    for quantity in np.geomspace(0.01, 300.0, 40):
        exact = max(_mean(*each, quantity) for each in ladders)
        found = _mean(sizes[:count], distances[:count], quantity)
        assert exact * (1 - 1e-12) <= found <= exact * 1.02


def _mean(sizes, distances, quantity):
    left, paid = quantity, 0.0
    for size, distance in zip(sizes[:-1], distances[:-1], strict=True):
        taken = min(left, size)
        paid, left = paid + taken * distance, left - taken
    return (paid + left * distances[-1]) / quantity


def test_symbols_are_laid_one_after_another_with_ladders_or_without():
    one = as_ladders([None, book_of(([(1.0, 2)], [(2.0, 3)]))])
    two = as_ladders([book_of(([(5.0, 7), (1.0, 1)], [(2.0, 9)])), None])
    both = joined([one, as_ladders([]), two], [2, 3, 2])
    assert both.row.tolist() == [UNKNOWN, 0, UNKNOWN, UNKNOWN, UNKNOWN, 1, 2]
    for bar, part, place in ((1, one, 1), (5, two, 0), (6, two, 1)):
        assert laid_out(both, bar).tobytes() == laid_out(part, place).tobytes()


def test_bars_that_all_have_a_book_stay_as_they_are():
    ladders = as_ladders([book_of(([(1.0, 2)], [(2.0, 3)]))] * 3)
    assert with_dearest(ladders) is ladders
