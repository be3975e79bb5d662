"""The live tail: records of some dozens of rows, whatever the rows are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import overlay as naive

from daemon.core.errors import Code, StoreCorrupt
from daemon.core.ticks import BUY, NO_ID, SELL, Stream, ticks
from daemon.store import tail
from daemon.store.env import Environment, StoreConfig

SERIES, OTHER = b"series-of-ticks", b"series-of-tickt"
LEAST, MOST = -(1 << 63), (1 << 63) - 1
MOST_LMDB_KEEPS_IN_A_PAGE = 1_980


@pytest.fixture(scope="module")
def env(tmp_path_factory):
    with Environment(tmp_path_factory.mktemp("tail"), StoreConfig(sync=False)) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _empty(env):
    clear(env)


def clear(env):
    for series in (SERIES, OTHER):
        env.write(lambda transaction, series=series: tail.clear(transaction, series))


def append(env, rows, number=0, series=SERIES):
    before = read(env, series=series, stream=rows.stream)
    before_ns = int(before.time_ns[-1]) if before.size else tail.EARLIEST_NS
    return env.write(lambda transaction: tail.append(transaction, series, number, rows, before_ns))


def read(env, *edges, series=SERIES, stream=Stream.TRADES):
    with env.read() as transaction:
        return tail.read(transaction, series, stream, *edges)


def records(env, series=SERIES):
    with env.read() as transaction:
        return [(key, bytes(value)) for key, value in transaction.scan(tail.DATABASE, series)]


def trades(times, *, ids=None, prices=None, decimals=2):
    times = np.asarray(times, dtype=np.int64)
    return ticks(
        Stream.TRADES,
        time_ns=times,
        id=np.arange(times.size) if ids is None else ids,
        price=np.ones(times.size) if prices is None else prices,
        size=np.ones(times.size),
        side=np.where(np.arange(times.size) % 2, BUY, SELL),
        price_decimals=decimals,
        size_decimals=0,
    )


whole = st.sampled_from([LEAST, MOST, 0, -1]) | st.integers(LEAST, MOST) | st.integers(0, 10**6)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 40), st.booleans())
def test_any_rows_come_back_bit_for_bit(env, data, size, is_float):
    def column(values):
        return data.draw(st.lists(values, min_size=size, max_size=size))

    price = np.array(column(whole))
    rows = ticks(
        Stream.TRADES,
        time_ns=np.sort(np.array(column(whole))),
        local_ns=column(whole),
        id=np.arange(size),
        price=price.view(np.float64) if is_float else price,
        size=column(whole),
        side=column(st.integers(-128, 127)),
        price_decimals=None if is_float else 7,
        size_decimals=18,
    )
    clear(env)
    append(env, rows)
    found = read(env)
    assert (found.price_decimals, found.size_decimals) == (rows.price_decimals, 18)
    assert [column.dtype for column in found.columns] == [column.dtype for column in rows.columns]
    assert [column.tobytes() for column in found.columns] == [column.tobytes() for column in rows.columns]


@pytest.mark.parametrize("size", [1, 255, 256, 257, 3_000])
def test_records_stay_within_a_page_however_wide_the_rows_are(env, size):
    rng = np.random.default_rng(size)
    rows = trades(np.sort(rng.integers(LEAST, MOST, size)), prices=rng.integers(LEAST, MOST, size))
    number, written = append(env, rows)
    found = records(env)
    assert len(found) == number
    assert sum(len(value) for _, value in found) == written
    assert max(len(value) for _, value in found) <= tail.RECORD_BYTES < MOST_LMDB_KEEPS_IN_A_PAGE
    assert naive.rows_of(read(env)) == naive.rows_of(rows)


def test_rows_alike_share_a_record(env):
    number, written = append(env, trades(np.arange(1_000) * 1_000))
    assert number <= 5
    assert written < 4_000


def test_the_next_number_goes_on_and_nothing_is_overwritten(env):
    number, _ = append(env, trades([1, 2]))
    assert append(env, trades([3], ids=[2]), number)[0] == number + 1
    assert read(env).column("id").tolist() == [0, 1, 2]


def test_no_rows_are_no_record(env):
    assert append(env, trades([]), 7) == (7, 0)
    assert read(env).size == 0


def test_records_out_of_order_read_in_order_of_time_and_id(env):
    number, _ = append(env, trades([50, 60, 60], ids=[5, 7, 6]))
    number, _ = append(env, trades([10, 60], ids=[1, 3]), number)
    append(env, trades([55], ids=[2]), number)
    assert read(env).column("id").tolist() == [1, 5, 2, 3, 6, 7]


def test_ranges_are_half_open_and_open_where_there_is_no_edge(env):
    number = 0
    for start in range(0, 60, 10):
        number, _ = append(env, trades([start, start + 3, start + 3], ids=[start, start + 1, start + 2]), number)
    times = read(env).time_ns.tolist()
    for low in [None, *range(-1, 56), LEAST, MOST]:
        for high in (None, -1, 0, 13, 14, 30, 53, 54, LEAST, MOST):
            wanted = [each for each in times if (low is None or each >= low) and (high is None or each < high)]
            assert read(env, low, high).time_ns.tolist() == wanted


def test_rows_of_other_decimals_are_read_at_the_largest_and_stay_as_they_arrived(env):
    number = 0
    for place, decimals in enumerate([2, 4, 2, 3]):
        rows = trades([5, 5], ids=[NO_ID, NO_ID], prices=[(2 * place + 1) * 10**decimals] * 2, decimals=decimals)
        number, _ = append(env, rows, number)
    found = read(env)
    assert found.price_decimals == 4
    assert (found.column("price") // 10**4).tolist() == [1, 1, 3, 3, 5, 5, 7, 7]


def test_floats_among_integers_make_floats_of_both(env):
    number, _ = append(env, trades([1], prices=[15], decimals=1))
    append(env, trades([2], ids=[1], prices=[np.nan], decimals=None), number)
    found = read(env)
    assert found.price_decimals is None
    assert found.column("price").tobytes() == np.array([1.5, np.nan]).tobytes()


def test_series_do_not_mix_and_clearing_one_leaves_the_other(env):
    append(env, trades([1]))
    append(env, trades([2]), series=OTHER)
    env.write(lambda transaction: tail.clear(transaction, SERIES))
    assert read(env).size == 0
    assert read(env, series=OTHER).time_ns.tolist() == [2]


def test_any_flipped_byte_of_a_record_is_damage(env):
    append(env, trades([100, 200, 300], prices=[5, 6, 1 << 40]))
    ((key, value),) = records(env)
    for place in range(len(value)):
        damaged = bytearray(value)
        damaged[place] ^= 0x41
        env.write(lambda transaction, damaged=damaged: transaction.put(tail.DATABASE, key, bytes(damaged)))
        with pytest.raises(StoreCorrupt) as caught:
            read(env)
        assert caught.value.code == Code.STORE_CORRUPT


def test_a_record_cut_short_is_damage(env):
    append(env, trades([100, 200, 300]))
    ((key, value),) = records(env)
    for size in range(len(value)):
        env.write(lambda transaction, size=size: transaction.put(tail.DATABASE, key, value[:size]))
        with pytest.raises(StoreCorrupt):
            read(env)
