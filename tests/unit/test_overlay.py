"""New rows over stored ones, against an oracle of dictionaries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import overlay as naive

from daemon.core.ticks import BUY, COLUMNS, NO_ID, SELL, DepthFlag, Kind, Stream, empty, ticks
from daemon.store import overlay
from daemon.store.overlay import in_order, lay_over

MS, US = 1_000_000, 1_000
LEAST, MOST = -(1 << 63), (1 << 63) - 1
ODD_FLOATS = [np.nan, np.inf, -np.inf, -0.0, 0.0, 5e-324, 0.1 + 0.2]


def trades(*rows, decimals=2):
    """Trades of (time in ms, id, price)."""
    time_ms, ids, prices = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    return ticks(
        Stream.TRADES,
        time_ns=(time_ms * MS).astype(np.int64),
        id=ids.astype(np.int64),
        price=prices if decimals is None else np.rint(prices * 10**decimals).astype(np.int64),
        size=np.ones(prices.size) if decimals is None else np.full(prices.size, 10**decimals),
        side=np.full(prices.size, BUY),
        price_decimals=decimals,
        size_decimals=decimals,
    )


def depth(*rows):
    """Depth of (time in ms, id, side, price, size, flags)."""
    time_ms, ids, side, price, size, flags = np.array(rows, dtype=np.int64).reshape(-1, 6).T
    columns = {"id": ids, "side": side, "price": price, "size": size, "flags": flags}
    return ticks(Stream.DEPTH, time_ns=time_ms * MS, **columns, price_decimals=0, size_decimals=0)


def counts(overlaid):
    return overlaid.added, overlaid.repeated, overlaid.replaced, overlaid.conflict


def prices(rows):
    return (rows.column("price") / 10**rows.price_decimals).tolist()


def test_a_row_whose_id_is_stored_is_repeated():
    overlaid = lay_over(trades((1, 10, 5), (2, 11, 6)), trades((2, 11, 6), (3, 12, 7)))
    assert counts(overlaid) == (1, 1, 0, None)
    assert overlaid.rows.column("id").tolist() == [10, 11, 12]
    assert overlaid.fresh.column("id").tolist() == [12]


def test_the_same_id_told_in_another_unit_of_time_is_the_same_row_and_keeps_the_stored_time():
    overlaid = lay_over(trades((5, 10, 1)), trades((5.678, 10, 1)))
    assert counts(overlaid) == (0, 1, 0, None)
    assert overlaid.rows.time_ns.tolist() == [5 * MS]
    overlaid = lay_over(trades((5.678, 10, 1)), trades((5, 10, 1)), replace=True)
    assert counts(overlaid) == (0, 1, 0, None)
    assert overlaid.rows.time_ns.tolist() == [5_678 * US]


@pytest.mark.parametrize("decimals", [2, None])
def test_two_equal_trades_of_one_millisecond_stay_two_after_their_file_comes_again(decimals):
    file = trades((1, NO_ID, 5), (1, NO_ID, 5), (1, NO_ID, 6), decimals=decimals)
    once = lay_over(empty(Stream.TRADES), file)
    assert counts(once) == (3, 0, 0, None)
    again = lay_over(once.rows, file)
    assert counts(again) == (0, 3, 0, None)
    assert again.rows.size == 3


def test_of_rows_without_ids_only_those_beyond_the_stored_count_are_new():
    overlaid = lay_over(trades((1, NO_ID, 5), (1, NO_ID, 5)), trades((1, NO_ID, 5), (1, NO_ID, 5), (1, NO_ID, 5)))
    assert counts(overlaid) == (1, 2, 0, None)
    assert overlaid.rows.size == 3


def test_rows_without_ids_that_differ_in_anything_are_different_rows():
    stored = trades((1, NO_ID, 5))
    other_side = stored._replace(columns=(*stored.columns[:-1], np.array([SELL], dtype=np.int8)))
    for new in (trades((2, NO_ID, 5)), trades((1, NO_ID, 6)), other_side):
        assert counts(lay_over(stored, new)) == (1, 0, 0, None)


def test_a_level_is_told_by_update_side_price_and_flags():
    snapshot = int(DepthFlag.SNAPSHOT)
    stored = depth((1, 7, BUY, 100, 5, 0), (1, 7, SELL, 101, 5, 0))
    new = depth(
        (1, 7, BUY, 100, 5, 0),  # repeated
        (1, 7, SELL, 100, 5, 0),
        (1, 7, BUY, 101, 5, 0),
        (1, 8, BUY, 100, 5, 0),
        (1, 7, BUY, 100, 5, snapshot),
    )
    assert counts(lay_over(stored, new)) == (4, 1, 0, None)
    assert counts(lay_over(stored, depth((1, 7, BUY, 100, 6, 0)))) == (0, 0, 1, 0)


def test_levels_of_one_update_keep_their_order():
    rows = depth(*((1, 7, BUY, price, 1, 0) for price in (5, 9, 1, 7)), (0, 6, BUY, 3, 1, 0))
    assert in_order(rows).column("price").tolist() == [3, 5, 9, 1, 7]


def test_a_contradiction_is_named_by_its_place_among_the_new_rows_and_stored_rows_stay():
    stored = trades((1, 10, 5), (2, 11, 6), (3, 12, 7))
    overlaid = lay_over(stored, trades((0, 9, 1), (1, 10, 5), (3, 12, 70), (2, 11, 60)))
    assert counts(overlaid) == (1, 1, 2, 2)
    assert prices(overlaid.rows) == [1, 5, 6, 7]


def test_replacing_takes_the_new_rows_where_they_differ():
    stored = trades((1, 10, 5), (2, 11, 6))
    overlaid = lay_over(stored, trades((1.5, 10, 5), (2.5, 11, 60)), replace=True)
    assert counts(overlaid) == (0, 1, 1, 1)
    assert prices(overlaid.rows) == [5, 60]
    assert overlaid.rows.time_ns.tolist() == [1 * MS, 2_500 * US]


def test_of_several_new_words_on_a_row_the_last_is_taken_also_where_it_is_the_stored_one():
    stored = trades((1, 10, 5))
    assert prices(lay_over(stored, trades((1, 10, 6), (1, 10, 7)), replace=True).rows) == [7]
    assert prices(lay_over(stored, trades((1, 10, 6), (1, 10, 5)), replace=True).rows) == [5]


def test_numbers_are_compared_at_common_decimals():
    overlaid = lay_over(trades((1, 10, 1.5), decimals=1), trades((1, 10, 1.5), (2, 11, 1.25), decimals=3))
    assert counts(overlaid) == (1, 1, 0, None)
    assert prices(overlaid.rows) == [1.5, 1.25]
    assert overlaid.rows.price_decimals == 3


def test_floats_and_integers_that_say_the_same_are_the_same_row():
    odd = trades((1, 10, 0.1), (2, 11, np.nan), decimals=None)
    overlaid = lay_over(odd, trades((1, 10, 0.1), (3, 12, 0.3), decimals=1))
    assert counts(overlaid) == (1, 1, 0, None)
    assert overlaid.rows.column("price").view(np.int64).tolist() == np.array([0.1, np.nan, 0.3]).view(np.int64).tolist()


@pytest.mark.parametrize("odd", ODD_FLOATS)
def test_floats_are_compared_by_their_bits(odd):
    stored = trades((1, 10, odd), decimals=None)
    for other in ODD_FLOATS:
        is_same = np.float64(odd).tobytes() == np.float64(other).tobytes()
        new = trades((1, 10, other), decimals=None)
        assert counts(lay_over(stored, new)) == ((0, 1, 0, None) if is_same else (0, 0, 1, 0))


@pytest.mark.parametrize("stream", list(COLUMNS))
def test_nothing_over_nothing_is_nothing(stream):
    overlaid = lay_over(empty(stream), empty(stream))
    assert counts(overlaid) == (0, 0, 0, None)
    assert overlaid.rows.size == overlaid.fresh.size == 0


@given(st.lists(st.tuples(st.sampled_from([LEAST, LEAST + 1, -1, 0, 1, MOST - 1, MOST]), st.integers(-1, 3))))
def test_order_is_by_time_then_id_up_to_the_ends_of_64_bits(pairs):
    times, ids = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    nothing = np.zeros(times.size, dtype=np.int64)
    rows = ticks(
        Stream.TRADES,
        time_ns=times,
        local_ns=np.arange(times.size),
        id=ids,
        price=nothing,
        size=nothing,
        price_decimals=0,
        size_decimals=0,
    )
    assert naive.rows_of(in_order(rows)) == naive.in_order(naive.rows_of(rows))


@st.composite
def some_rows(draw, stream, decimals):
    """Few ids, times and values, so that rows meet."""
    columns = {}
    size = draw(st.integers(0, 8))

    def column(values):
        return draw(st.lists(values, min_size=size, max_size=size))

    for name, kind in COLUMNS[stream].items():
        if name == "id":
            columns[name] = column(st.sampled_from([NO_ID, NO_ID, 1, 2, 3]))
        elif kind in (Kind.PRICE, Kind.SIZE) and decimals is None:
            columns[name] = column(st.sampled_from([1.0, 1.0, 2.5, np.nan, -0.0]))
        elif kind in (Kind.PRICE, Kind.SIZE):
            columns[name] = [value * 10**decimals for value in column(st.sampled_from([1, 1, 2]))]
        elif kind is Kind.TIME:
            columns[name] = column(st.integers(0, 2))
        else:
            columns[name] = column(st.sampled_from([1, 1, -1]))
    return ticks(stream, **columns, price_decimals=decimals, size_decimals=decimals)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(COLUMNS)), st.data())
def test_any_rows_lie_over_any_others_as_in_the_oracle(stream, data):
    decimals = st.sampled_from([0, 2, None])
    stored = lay_over(empty(stream), data.draw(some_rows(stream, data.draw(decimals)))).rows
    new = data.draw(some_rows(stream, data.draw(decimals)))
    for replace in (False, True):
        wanted = naive.lay_over(stream, naive.rows_of(stored), naive.rows_of(new), replace=replace)
        found = lay_over(stored, new, replace=replace)
        assert found._replace(rows=naive.rows_of(found.rows), fresh=naive.rows_of(found.fresh)) == wanted


def test_the_oracle_compares_the_same_columns():
    assert naive.SAYS == overlay._VALUES  # noqa: SLF001 - a column that neither knew would never be compared
