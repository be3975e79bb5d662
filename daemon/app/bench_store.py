"""`atlasd bench store`: what the tick store takes and gives, on your own rows, files, or a simulated market.

Sizes are of the rows as they are. For speed they are repeated, with times and ids shifted, to millions of rows.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray

from daemon.app.bench import peak_rss_bytes
from daemon.core.market import NS_PER_HOUR, NS_PER_SECOND, Instrument, Timeframe
from daemon.core.ticks import COLUMNS, Kind, Stream, Ticks, concatenate, ticks
from daemon.store.bulk import BulkWriter
from daemon.store.codec import CHUNK_ROWS
from daemon.store.env import Environment, StoreConfig
from daemon.store.overlay import in_order
from daemon.store.ticks import TickStore

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

    from daemon.store.env import Transaction

_INSTRUMENT: Final = Instrument("bench", "BENCH")
_COMMIT_ROWS: Final = 64
_READERS: Final = 4
_POLL_S: Final = 1 / 200
_TAIL_S: Final = 3.0
_PASSES: Final = 5
_BLOCK_ROWS: Final = 1 << 18
_ARRAY_ROWS: Final = 4_000_000
_MANY: Final = 70_000_000_000
_MIB: Final = 1 << 20
_SIMULATED_ROWS: Final = 300_000
_SIMULATED_START_MS: Final = 1_723_161_600_000
_STORED_ROWS: Final = 1_000_000


class Sample(NamedTuple):
    """Rows to measure with, and where they are from."""

    rows: Ticks
    origin: str


def bench_store(samples: Iterable[Sample], target_rows: int) -> dict[str, Any]:
    """Measure the store; keys carry their stream and unit. target_rows: to repeat trades to, for speed."""
    figures: dict[str, Any] = {}
    by_stream: dict[Stream, list[Sample]] = {}
    for sample in samples:
        by_stream.setdefault(sample.rows.stream, []).append(sample)
    with tempfile.TemporaryDirectory() as folder:
        for stream, group in by_stream.items():
            figures |= _size(Path(folder) / f"size-{stream}", stream, group)
        for stream, group in by_stream.items():
            rows = max((sample.rows for sample in group), key=lambda each: each.size)
            wanted = target_rows if stream is Stream.TRADES else target_rows // 2
            figures |= _speed(Path(folder) / f"speed-{stream}", rows, wanted)
        trades = by_stream.get(Stream.TRADES)
        if trades:
            rows = trades[0].rows
            figures |= _tail(Path(folder) / "tail", rows)
            figures |= _estimate(figures)
    figures["peak_rss_mb"] = round(peak_rss_bytes(psutil.Process().memory_info().rss) / _MIB, 1)
    return figures


def simulated() -> list[Sample]:
    """Trades and changes of a book like those of a busy market, from a seed."""
    rng = np.random.default_rng(20_240_809)
    return [Sample(_simulated_trades(rng), "simulated"), Sample(_simulated_depth(rng), "simulated")]


def _simulated_trades(rng: np.random.Generator) -> Ticks:
    """Bursts of trades within a millisecond, runs of one side, sizes over three orders of magnitude."""
    n = _SIMULATED_ROWS
    is_in_burst = _chance(rng, 0.6)
    time_ns = (_SIMULATED_START_MS + np.cumsum(np.where(is_in_burst, 0, rng.geometric(0.01, n)))) * 1_000_000
    delay_ns = 45_000_000 + np.cumsum(rng.integers(1_000, 9_000, n)) % 5_000_000
    side = np.where(np.repeat(_chance(rng, 0.5), 5)[:n], 1, -1)
    return ticks(
        Stream.TRADES,
        price_decimals=1,
        size_decimals=3,
        time_ns=time_ns,
        local_ns=time_ns + delay_ns,
        id=np.arange(n),
        price=618_003 + np.cumsum(rng.integers(-8, 9, n) * _chance(rng, 0.2)) + side,
        size=np.maximum(1, np.rint(rng.lognormal(3.0, 1.8, n))),
        side=side,
    )


def _simulated_depth(rng: np.random.Generator) -> Ticks:
    """Events of some fifty levels, most of them near the best, a third of them levels that are gone."""
    n = _SIMULATED_ROWS
    event = np.cumsum(_chance(rng, 0.02))
    time_ns = (_SIMULATED_START_MS + event * 20) * 1_000_000
    side = np.where(_chance(rng, 0.5), 1, -1)
    level = np.rint(np.abs(rng.standard_cauchy(n)) * 30).astype(np.int64) % 40_000
    rows = ticks(
        Stream.DEPTH,
        price_decimals=1,
        size_decimals=3,
        time_ns=time_ns,
        local_ns=time_ns + 45_000_000 + event * 11_713 % 5_000_000,
        id=5_123_107_832_006 + event * 1_237,
        side=side,
        price=618_003 - side * level,
        size=np.where(_chance(rng, 0.3), 0, np.rint(rng.lognormal(4.0, 2.0, n))),
    )
    # An event changes a level once.
    return rows.take(np.sort(np.unique(np.stack([event, side * (level + 1)]), axis=1, return_index=True)[1]))


def _chance(rng: np.random.Generator, probability: float) -> NDArray[np.bool_]:
    return rng.random(_SIMULATED_ROWS) < probability


def stored(store: TickStore) -> list[Sample]:
    """Take up to a million rows of every stored series of trades and depth."""
    samples = []
    for series in store.series():
        if series.stream not in (Stream.TRADES, Stream.DEPTH):
            continue
        parts: list[Ticks] = []
        for rows in store.blocks(series.instrument, series.stream):
            parts.append(rows)
            if sum(part.size for part in parts) > _STORED_ROWS:
                break
        samples.append(Sample(concatenate(parts), series.instrument.key))
    return samples


def of_file(path: Path) -> list[Sample]:
    """Take the trades, and of a capture the depth too, of a file."""
    from adapters import registry

    is_archive = registry.source_of(path) == registry.BINANCE_ARCHIVE
    source = registry.BINANCE_ARCHIVE if is_archive else registry.BINANCE_STREAM
    samples = []
    for stream in (Stream.TRADES,) if is_archive else (Stream.TRADES, Stream.DEPTH):
        parts = list(registry.open_tick_file(source, path, stream).blocks())
        if parts:
            samples.append(Sample(in_order(concatenate(parts)), path.name))
    return samples


def _size(folder: Path, stream: Stream, samples: list[Sample]) -> dict[str, Any]:
    """Bytes a row with the store's pages, beside Parquet and, where it is installed, ArcticDB."""
    with Environment(folder, StoreConfig(sync=False)) as env:
        rows = sum(_write(env, [sample.rows], str(number)) for number, sample in enumerate(samples))
        pages = env.database_bytes("chunks")
    own = pages / rows
    parquet = sum(_parquet_bytes(folder, sample.rows) for sample in samples) / rows
    figures: dict[str, Any] = {
        f"{stream}_rows": rows,
        f"{stream}_origin": ", ".join(sample.origin for sample in samples),
        f"{stream}_bytes_per_row": round(own, 3),
        f"{stream}_parquet_zstd_bytes_per_row": round(parquet, 3),
        f"{stream}_of_parquet": round(own / parquet, 3),
    }
    arctic = _arctic_bytes(folder, [sample.rows for sample in samples])
    if arctic is not None:
        figures[f"{stream}_arcticdb_bytes_per_row"] = round(arctic / rows, 3)
        figures[f"{stream}_of_arcticdb"] = round(own * rows / arctic, 3)
    return figures


def _speed(folder: Path, sample: Ticks, target_rows: int) -> dict[str, Any]:
    name = sample.stream
    copies = max(1, -(-target_rows // sample.size))
    with Environment(folder, StoreConfig(sync=False)) as env:
        began = time.perf_counter()
        rows = _write(env, (shifted(sample, copy) for copy in range(copies)))
        append_s = time.perf_counter() - began
        store = TickStore(env)
        all_s = _median(lambda: _scan(store, sample.stream, None))
        price = "price" if "price" in COLUMNS[sample.stream] else "bid"
        two_s = _median(lambda: _scan(store, sample.stream, ("time_ns", price)))
        figures = {
            f"{name}_speed_rows": rows,
            f"{name}_append_rows_per_s": round(rows / append_s),
            f"{name}_scan_rows_per_s": round(rows / all_s),
            f"{name}_scan_time_price_rows_per_s": round(rows / two_s),
            f"{name}_scan_time_price_gb_per_s": round(16 * rows / two_s / 1e9, 2),
        }
        if sample.stream is Stream.TRADES:
            figures |= _range(store, sample, copies) | _bars(store, sample, rows)
    figures[f"{name}_cold_scan_rows_per_s"] = round(rows / _cold_scan(folder, sample.stream))
    return figures


def shifted(sample: Ticks, copy: int) -> Ticks:
    """Repeat rows later: times go on after the last, ids too."""
    span_ns = int(sample.time_ns[-1] - sample.time_ns[0]) + NS_PER_SECOND
    ids = sample.column("id")
    id_span = int(ids.max() - ids.min()) + 1
    columns = []
    for column, (name, kind) in zip(sample.columns, COLUMNS[sample.stream].items(), strict=True):
        is_unknown = name == "local_ns" and not column.any()
        if kind is Kind.TIME and not is_unknown:
            columns.append(column + copy * span_ns)
        elif kind is Kind.ID and column[0] >= 0:
            columns.append(column + copy * id_span)
        else:
            columns.append(column)
    return sample._replace(columns=tuple(columns))


def _write(env: Environment, parts: Iterable[Ticks], symbol: str = _INSTRUMENT.symbol) -> int:
    store = TickStore(env)
    instrument = Instrument(_INSTRUMENT.venue, symbol)
    writer: BulkWriter | None = None
    for part in parts:
        writer = writer or BulkWriter(store, instrument, part.stream)
        for start in range(0, part.size, _BLOCK_ROWS):
            writer.add(part.rows(start, start + _BLOCK_ROWS))
    if writer is None:
        return 0
    with writer:
        return writer.finish().added


def _scan(store: TickStore, stream: Stream, columns: tuple[str, ...] | None) -> int:
    return sum(block[0].size for block in store.scan(_INSTRUMENT, stream, columns))


def _median(action: Callable[[], object]) -> float:
    action()
    return statistics.median(_timed(action) for _ in range(_PASSES))


def _timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _range(store: TickStore, sample: Ticks, copies: int) -> dict[str, Any]:
    """Read 100,000 rows from the middle, as an hour of a busy market holds."""
    span_ns = int(sample.time_ns[-1] - sample.time_ns[0]) + NS_PER_SECOND
    start_ns = int(sample.time_ns[0]) + copies // 2 * span_ns
    stop_ns = start_ns + span_ns * 100_000 // sample.size
    seconds = _median(lambda: store.read(_INSTRUMENT, sample.stream, start_ns, stop_ns))
    return {
        "range_rows": store.count(_INSTRUMENT, sample.stream, start_ns, stop_ns),
        "range_ms": round(seconds * 1e3, 2),
    }


def _bars(store: TickStore, sample: Ticks, rows: int) -> dict[str, Any]:
    """Make bars of every timeframe in one pass, from arrays and from the store."""
    from daemon.engine.tick_bars import TickBars

    def build(blocks: Iterable[Ticks]) -> None:
        built = TickBars(list(Timeframe))
        for block in blocks:
            built.feed(block)

    names = ("time_ns", "price", "size")
    whole = concatenate([shifted(sample, copy) for copy in range(max(1, _ARRAY_ROWS // sample.size))])
    pieces = [whole.rows(start, start + CHUNK_ROWS) for start in range(0, whole.size, CHUNK_ROWS)]
    arrays_s = _median(lambda: build(pieces))
    store_s = _median(lambda: build(store.blocks(_INSTRUMENT, sample.stream, names, buffers=store.buffers())))
    return {
        "bars_from_arrays_rows_per_s": round(sum(piece.size for piece in pieces) / arrays_s),
        "bars_from_store_rows_per_s": round(rows / store_s),
    }


def _cold_scan(folder: Path, stream: Stream) -> float:
    """Scan once after the system has dropped the file's pages; Linux alone can be asked to."""
    path = folder / "atlas.lmdb"
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with Environment(folder, StoreConfig(sync=False), readonly=True) as env:
        return _timed(lambda: _scan(TickStore(env), stream, None))


def _tail(folder: Path, sample: Ticks) -> dict[str, Any]:
    """Commit small appends as fast as they go while processes read what is new and look for torn states."""
    sample = sample.rows(0, sample.size // _COMMIT_ROWS * _COMMIT_ROWS)  # ids go on without a jump from copy to copy
    context = multiprocessing.get_context("spawn")
    latest_ns = context.Value("q", int(sample.time_ns[0]))
    stop = context.Value("b", 0)
    results = context.Queue()
    with Environment(folder, StoreConfig(sync=False)) as env:
        store = TickStore(env)
        env.write(lambda transaction: store.append(transaction, _INSTRUMENT, sample.rows(0, _COMMIT_ROWS)))
        readers = [context.Process(target=_poll, args=(folder, latest_ns, stop, results)) for _ in range(_READERS)]
        for reader in readers:
            reader.start()
        for _ in readers:
            results.get()  # ready
        commits, seconds = _append_for(env, store, sample, latest_ns)
        stop.value = 1
        polls = [results.get() for _ in readers]
        for reader in readers:
            reader.join()
    return {
        "tail_commits_per_s": round(commits / seconds),
        "tail_readers_polls_per_s": round(sum(count for count, _, _ in polls) / seconds / _READERS),
        "tail_read_ms": round(statistics.median(read_ms for _, _, read_ms in polls), 2),
        "tail_torn_states": sum(torn for _, torn, _ in polls),
    }


def _append_for(env: Environment, store: TickStore, sample: Ticks, latest_ns: Synchronized[int]) -> tuple[int, float]:
    commits, copy, at = 0, 0, _COMMIT_ROWS
    rows = sample
    began = time.perf_counter()
    while time.perf_counter() - began < _TAIL_S:
        if at + _COMMIT_ROWS > rows.size:
            copy, at = copy + 1, 0
            rows = shifted(sample, copy)
        part = rows.rows(at, at + _COMMIT_ROWS)
        env.write(partial(_append, store=store, rows=part))
        at += _COMMIT_ROWS
        commits += 1
        latest_ns.value = int(part.time_ns[0])
    return commits, time.perf_counter() - began


def _append(transaction: Transaction, *, store: TickStore, rows: Ticks) -> None:
    store.append(transaction, _INSTRUMENT, rows)


def _poll(folder: Path, latest_ns: Synchronized[int], stop: Synchronized[int], results: Any) -> None:
    """Read what came last, 200 times a second; ids must follow one another without a gap."""
    polls = torn = 0
    times = [0.0]
    with Environment(folder, StoreConfig(sync=False), readonly=True) as env:
        store = TickStore(env)
        store.read(_INSTRUMENT, Stream.TRADES)
        results.put("ready")
        while not stop.value:
            began = time.perf_counter()
            ids = store.read(_INSTRUMENT, Stream.TRADES, latest_ns.value).column("id")
            torn += int((np.diff(np.sort(ids)) != 1).any())
            polls += 1
            times.append(time.perf_counter() - began)
            time.sleep(max(0.0, _POLL_S - times[-1]))
    results.put((polls, torn, statistics.median(times) * 1e3))


def _estimate(figures: dict[str, Any]) -> dict[str, Any]:
    """Say what 70 billion trades would take here."""
    scan_h = _MANY / figures["trades_scan_rows_per_s"] / (NS_PER_HOUR / NS_PER_SECOND)
    cores = os.cpu_count() or 1
    return {
        "estimate_70e9_rows_gb": round(_MANY * figures["trades_bytes_per_row"] / 1e9, 1),
        "estimate_70e9_scan_hours_1_core": round(scan_h, 2),
        f"estimate_70e9_scan_hours_{cores}_cores": round(scan_h / cores, 2),
    }


def _floats(rows: Ticks) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for column, (name, kind) in zip(rows.columns, COLUMNS[rows.stream].items(), strict=True):
        decimals = rows.decimals(kind) if kind in (Kind.PRICE, Kind.SIZE) else None
        columns[name] = column if decimals is None else column / 10.0**decimals
    return columns


def _parquet_bytes(folder: Path, rows: Ticks) -> int:
    """Write the rows as Parquet, each column at its best encoding, zstd at its strongest usual level."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = _floats(rows)
    path = folder / "rows.parquet"
    encodings = {
        name: "DELTA_BINARY_PACKED" if kind in (Kind.TIME, Kind.ID) else "BYTE_STREAM_SPLIT"
        for name, kind in COLUMNS[rows.stream].items()
        if kind is not Kind.CODE
    }
    dictionary = [name for name, kind in COLUMNS[rows.stream].items() if kind is Kind.CODE]
    smallest = None
    for options in (
        {"use_dictionary": dictionary, "column_encoding": encodings},
        {"use_dictionary": True},
    ):
        pq.write_table(pa.table(columns), path, compression="zstd", compression_level=9, **options)
        size = path.stat().st_size
        smallest = size if smallest is None else min(size, smallest)
    return smallest or 0


def _arctic_bytes(folder: Path, samples: list[Ticks]) -> int | None:
    """Write the rows with ArcticDB on its LMDB; None where it is not installed."""
    try:
        arcticdb, pd = import_module("arcticdb"), import_module("pandas")
    except ImportError:
        return None
    path = folder / "arctic"
    path.mkdir(parents=True, exist_ok=True)
    library = arcticdb.Arctic(f"lmdb://{path}?map_size=2GB").create_library("bench")
    for number, rows in enumerate(samples):
        columns = _floats(rows)
        frame = pd.DataFrame({name: column for name, column in columns.items() if name != "time_ns"})
        frame.index = pd.to_datetime(columns["time_ns"])
        library.write(str(number), frame)
    return int(sum(each.bytes_compressed for each in library.admin_tools().get_sizes().values()))
