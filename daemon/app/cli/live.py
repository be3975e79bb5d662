"""`atlasd record`, `atlasd fetch`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from daemon.app.cli.options import ConfigFile, DataDir

if TYPE_CHECKING:
    from daemon.ingest.recording import RecordStatus

Venue = Annotated[str, typer.Argument(help="binance or coinbase.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("fetch")(fetch)
    app.command("record")(record)


def record(
    venue: Venue,
    symbols: Annotated[list[str], typer.Argument(help="Such as BTCUSDT, BTCUSDT-PERP, BTC-USD.")],
    streams: Annotated[str, typer.Option(help="trades, agg_trades, quotes, depth, bars:1Min; by commas.")] = "trades",
    seconds: Annotated[float | None, typer.Option(help="Stop after so long; Ctrl-C without.", min=0.0)] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Record live streams until stopped; what a lost connection missed is fetched afterwards."""
    import asyncio
    import logging

    from daemon.app import recording, wiring
    from daemon.app.config import load
    from daemon.core.errors import Code, Conflict

    settings = load(config)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    feed = recording.FeedConfig(venue=venue, symbols=symbols, streams=[each.strip() for each in streams.split(",")])

    async def run() -> list[RecordStatus]:
        made = recording.recorders(store, feed, settings.venues, settings.record)
        typer.echo(f"recording {streams} of {', '.join(symbols)} from {venue}; Ctrl-C stops", err=True)
        await recording.record(made, seconds, recording.learn(store, feed, settings.venues))
        return [recorder.status for recorder in made]

    try:
        with wiring.owner(settings, settings.data_dir(data_dir), "record") as store:
            statuses = asyncio.run(run())
    except Conflict as error:
        if error.code is not Code.STORE_LOCKED:
            raise
        why = f"{error.message}. A daemon records what its config.toml names in [feeds.NAME]"
        raise Conflict(error.code, why, error.details) from None
    rows: dict[str, int] = {}
    for status in statuses:
        for stream, count in status.rows.items():
            rows[stream] = rows.get(stream, 0) + count
    parts = [f"{count:,} {stream}" for stream, count in rows.items()] or ["nothing"]
    typer.echo(
        f"{', '.join(parts)} stored; {sum(status.reconnects for status in statuses)} reconnects, "
        f"{sum(status.backfilled for status in statuses):,} rows backfilled, "
        f"{sum(status.odd for status in statuses)} messages not understood"
    )


def fetch(
    venue: Venue,
    symbol: Annotated[str, typer.Argument(help="Such as BTCUSDT, BTCUSDT-PERP, BTC-USD.")],
    start: Annotated[str, typer.Option(help="First day, YYYY-MM-DD.")],
    end: Annotated[str | None, typer.Option(help="Last day, included; today without.")] = None,
    stream: Annotated[str, typer.Option(help="trades, agg_trades or bars.")] = "trades",
    timeframe: Annotated[str | None, typer.Option(help="Of bars.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave downloaded archives in downloads/.")] = False,  # noqa: FBT002
    recheck: Annotated[bool, typer.Option("--recheck", help="Fetch stored archives that were published anew.")] = False,  # noqa: FBT002
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Fetch history: archives where the venue has them, requests for the rest; run again to go on."""
    from daemon.app import wiring
    from daemon.app.cli.importing import progress_bar, sum_up, told
    from daemon.app.config import load
    from daemon.app.fetching import Fetch, Fetcher, days_between, wanted_stream

    settings = load(config)
    folder = settings.data_dir(data_dir)
    chosen, length = wanted_stream(stream, timeframe)
    first, stop = days_between(start, end)
    with wiring.writer(settings, folder, "fetch") as writer, progress_bar((stop - first).days) as progress:
        fetcher = Fetcher(writer, folder, settings.venues, progress)
        wanted = Fetch(venue, symbol, chosen, length, first, stop, keep, recheck)
        outcomes = [told(outcome, files=2) for outcome in fetcher.run(wanted)]
    sum_up(outcomes)
    if not all(outcome.succeeded for outcome in outcomes):
        raise typer.Exit(1)
