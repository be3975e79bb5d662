"""`atlasd data symbols`, `gaps`, `verify`, `compact`, `stats`, `delete`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.app.cli.options import ConfigFile, DataDir, Format, Listing

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.app.config import Config

Only = Annotated[str | None, typer.Argument(help="Of this symbol alone.", show_default=False)]


def register(stored: typer.Typer) -> None:
    """Add this module's commands."""
    for name, command in (
        ("symbols", symbols),
        ("instrument", instrument),
        ("gaps", gaps),
        ("verify", verify),
        ("compact", compact),
        ("stats", stats),
        ("delete", delete),
    ):
        stored.command(name)(command)


def symbols(form: Listing = Format.TABLE, data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """List stored series: symbol, stream, timeframe, rows, first and last, bytes, known holes, what volumes count."""
    from daemon.api.messages import iso
    from daemon.app import wiring
    from daemon.app.cli.output import emit
    from daemon.app.config import load
    from daemon.core.ticks import Stream
    from daemon.research.holes import open_counts
    from daemon.store.funding import FundingStore

    settings = load(config)
    with wiring.reader(settings, settings.data_dir(data_dir)) as store:
        bars, ticks, gaps = store.bars.series(), store.ticks.series(), open_counts(store.env)
        funding = FundingStore(store.env).series()
    rows: list[tuple[Any, ...]] = [
        (
            each.instrument.key,
            "bars",
            str(each.timeframe),
            each.rows,
            each.first_ns,
            each.last_ns,
            each.stored_bytes,
            gaps[each.instrument, Stream.BARS, each.timeframe],
            each.volume_unit,
        )
        for each in bars
    ] + [
        (
            each.instrument.key,
            str(each.stream),
            None,
            each.rows,
            each.first_ns,
            each.last_ns,
            each.stored_bytes,
            each.open_holes,
            None,
        )
        for each in ticks
    ]
    rows += [
        (each.instrument.key, "funding", None, each.rows, each.first_ns, each.last_ns, each.stored_bytes, 0, None)
        for each in funding
    ]
    rows.sort(key=lambda row: row[0])
    names = ("symbol", "stream", "timeframe", "rows", "first", "last", "bytes", "gaps", "volume_unit")
    columns = (
        dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)) if rows else {name: [] for name in names}
    )
    for name in ("first", "last"):
        columns[name] = [iso(time_ns) for time_ns in columns[name]]
    emit(columns, form)


def instrument(
    symbol: Annotated[str, typer.Argument(help="Of this symbol.")],
    form: Listing = Format.TABLE,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Show what the venue said of an instrument when it was recorded: steps of price and size, least notional."""
    import msgspec

    from daemon.app import wiring
    from daemon.app.cli.output import emit
    from daemon.app.config import load
    from daemon.store.instruments import facts

    settings = load(config)
    with wiring.reader(settings, settings.data_dir(data_dir)) as store:
        told = facts(store.env, store.bars.resolve(symbol))
    emit({name: [value] for name, value in msgspec.structs.asdict(told).items()} if told else {"symbol": []}, form)


def gaps(
    symbol: Only = None,
    repaired: Annotated[bool, typer.Option("--repaired", help="Those that were filled as well.")] = False,  # noqa: FBT002
    form: Listing = Format.TABLE,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """List the known holes: where, how many rows, why."""
    from daemon.app import wiring
    from daemon.app.cli.output import emit
    from daemon.app.config import load
    from daemon.app.ledger import holes_table

    settings = load(config)
    with wiring.reader(settings, settings.data_dir(data_dir)) as store:
        table = holes_table(store, symbol, repaired=repaired)
    emit(table, form)


def verify(data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Check every checksum, the order of rows, and the index and ledger against them."""
    from daemon.app import wiring
    from daemon.app.config import load
    from daemon.store.verify import verify as check

    settings = load(config)
    failed, series = 0, 0
    with wiring.reader(settings, settings.data_dir(data_dir)) as store:
        for each in check(store.env):
            series += 1
            what = f"{each.instrument.key} {each.series}: {each.rows:,} rows in {each.chunks} chunks"
            typer.echo(f"{what}: {'sound' if not each.problems else 'DAMAGED'}")
            for problem in each.problems:
                typer.echo(f"  {problem}", err=True)
            failed += bool(each.problems)
    typer.echo(f"{series} series, {failed} damaged")
    if failed:
        why = (
            "restore a copy of the store, or delete the whole damaged series (`atlasd data delete`) and import it again"
        )
        typer.echo(f"error: {why} [STORE_CORRUPT]", err=True)
        raise typer.Exit(1)


def compact(symbol: Only = None, data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Lay live tails over the chunks and join small chunks; readers may go on."""
    settings, folder = _settings(config, data_dir)
    from daemon.app import wiring
    from daemon.store.upkeep import compact as lay

    with wiring.owner(settings, folder, "compact") as store:
        chosen = None if symbol is None else store.bars.resolve(symbol)
        for each in store.ticks.series():
            if chosen in (None, each.instrument):
                done = lay(store.ticks, each.instrument, each.stream)
                typer.echo(
                    f"{each.instrument.key} {each.stream}: {done.chunks_before} chunks, {done.bytes_before:,} bytes -> "
                    f"{done.chunks_after} chunks, {done.bytes_after:,} bytes"
                )


def stats(form: Listing = Format.TABLE, data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Say what the store takes: by series bytes a row, the file's size, and what of it is in use."""
    settings, folder = _settings(config, data_dir)
    from daemon.app import wiring
    from daemon.app.cli.output import emit

    with wiring.reader(settings, folder) as store:
        series = store.ticks.series()
        bars = store.bars.series()
        used, file = store.env.size_bytes(), store.env.path.stat()
        reserved = getattr(file, "st_blocks", 0) * 512 or file.st_size  # Windows tells no blocks
    names = [f"{each.instrument.key} {each.stream}" for each in series]
    names += [f"{each.instrument.key} bars {each.timeframe}" for each in bars]
    rows = [each.rows for each in series] + [each.rows for each in bars]
    size = [each.stored_bytes for each in series] + [each.stored_bytes for each in bars]
    tail = [each.tail_rows for each in series] + [0] * len(bars)
    emit(
        {
            "series": [*names, "file"],
            "rows": [*rows, sum(rows)],
            "live": [*tail, sum(tail)],
            "bytes": [*size, used],
            "bytes_per_row": [
                round(b / r, 3) if r else 0.0 for b, r in zip([*size, used], [*rows, sum(rows)], strict=True)
            ],
        },
        form,
    )
    if form is Format.TABLE:
        typer.echo(f"{store.env.path}: {used:,} bytes in use, {reserved:,} on the disk", err=True)


def delete(
    symbol: Annotated[str, typer.Argument(help="Whose rows.")],
    stream: Annotated[str, typer.Option(help="trades, agg_trades, quotes, depth or funding.")],
    start: Annotated[str | None, typer.Option(help="First day, YYYY-MM-DD.")] = None,
    end: Annotated[str | None, typer.Option(help="Last day, included.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,  # noqa: FBT002
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Delete stored ticks or funding rates, all or of some days."""
    settings, folder = _settings(config, data_dir)
    from daemon.app import wiring
    from daemon.app.ledger import tick_stream
    from daemon.research.plans import date_range
    from daemon.store.upkeep import delete as remove

    if stream == "funding":
        _delete_funding(settings, folder, symbol, date_range(start, end), yes=yes)
        return
    chosen = tick_stream(stream)
    with wiring.owner(settings, folder, "delete") as store:
        instrument = store.bars.resolve(symbol)
        start_ns, stop_ns = date_range(start, end)
        count = store.ticks.count(instrument, chosen, start_ns, stop_ns)
        if count and not yes:
            typer.confirm(f"delete {count:,} rows of {instrument.key} {chosen}?", abort=True, err=True)
        typer.echo(f"{remove(store.ticks, instrument, chosen, start_ns, stop_ns):,} rows deleted")


def _delete_funding(
    settings: Config, folder: Path, symbol: str, days: tuple[int | None, int | None], *, yes: bool
) -> None:
    from daemon.app import wiring
    from daemon.app.importing import perpetual
    from daemon.store.funding import FundingStore

    with wiring.owner(settings, folder, "delete") as store:
        funding, instrument = FundingStore(store.env), perpetual(store.env, symbol, None)
        if not yes:
            typer.confirm(f"delete the funding rates of {instrument.key}?", abort=True, err=True)
        deleted = store.env.write(lambda transaction: funding.delete(transaction, instrument, *days))
        typer.echo(f"{deleted:,} rows deleted")


def _settings(config: Path | None, data_dir: Path | None) -> tuple[Config, Path]:
    from daemon.app.config import load

    settings = load(config)
    return settings, settings.data_dir(data_dir)
