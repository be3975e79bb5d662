"""Byte order of keys is the order of what they stand for."""

from hypothesis import given
from hypothesis import strategies as st

from daemon.store import keys
from daemon.store.keys import ResultKind, Stream

CHUNKS = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**63), st.integers(-(2**63), 2**63 - 1))


def chunk(number, width_ns, first_ns):
    return keys.chunk(keys.series(number, Stream.BARS, width_ns), first_ns)


@given(CHUNKS, CHUNKS)
def test_chunks_sort_by_instrument_then_width_then_time(one, other):
    assert (chunk(*one) < chunk(*other)) == (one < other)


@given(CHUNKS)
def test_a_chunk_key_tells_its_series_and_its_time(parts):
    number, width_ns, first_ns = parts
    series = keys.series(number, Stream.BARS, width_ns)
    assert chunk(*parts).startswith(series)
    assert series.startswith(keys.series_of(number, Stream.BARS))
    assert keys.instrument_of(series) == (number, Stream.BARS, width_ns)
    assert keys.chunk_time(chunk(*parts)) == first_ns


@given(st.integers(0, 2**32 - 1), st.sampled_from(ResultKind), st.integers(0, 2**32 - 1))
def test_a_result_key_splits_into_what_it_was_made_of(batch, kind, part):
    key = keys.result(keys.job("run-1", "binance:BTC/USDT", "1Hour"), batch, kind, part)
    assert keys.split_job(key) == ("run-1", "binance:BTC/USDT", "1Hour", batch, kind, part)
