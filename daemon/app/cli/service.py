"""`atlasd serve`, `warmup`, `demo`, `bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.app.cli.options import ConfigFile, DataDir, Format

bench = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("serve")(serve)
    app.command("warmup")(warmup)
    app.command("demo")(demo)
    app.add_typer(bench, name="bench", help="Measure speed and memory here.")


@bench.callback()
def _bench() -> None:
    """Measure speed and memory here."""


def serve(
    host: Annotated[str | None, typer.Option(help="Loopback address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port; 0 takes a free one.")] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Another name that requests may use for this machine; once a name.", show_default=False),
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Also write the ready file here, once requests are answered.")
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Run the daemon until it is told to stop (Ctrl-C, SIGTERM)."""
    import msgspec

    from daemon.app import wiring
    from daemon.app.config import load
    from daemon.app.config_origins import explained

    if ready_file is not None and not ready_file.absolute().parent.is_dir():
        raise typer.BadParameter(f"--ready-file {ready_file}: there is no such folder")
    settings = load(config)
    given: dict[str, Any] = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    if allow_host:
        given["allowed_hosts"] = [*settings.http.allowed_hosts, *allow_host]
    settings = msgspec.structs.replace(settings, http=msgspec.structs.replace(settings.http, **given))
    folder = settings.data_dir(data_dir)
    if data_dir is not None:
        settings = msgspec.structs.replace(settings, data=msgspec.structs.replace(settings.data, dir=str(folder)))
    wiring.serve(settings, folder, ready_file, typer.echo, tuple(explained(settings, config)))


def warmup(
    config: ConfigFile = None,
    data_dir: DataDir = None,  # noqa: ARG001 - goes with every command
) -> None:
    """Compile every kernel into the per-user cache, so that nothing compiles later."""
    import time

    import daemon
    from daemon.app import wiring
    from daemon.app.config import load

    wiring.check_cache()
    book = wiring.rule_book(load(config))
    if wiring.is_cache_cold():
        typer.echo("compiling the kernels once, about a minute", err=True)
    began = time.perf_counter()
    from daemon.research.warmup import warm_all

    warmth = warm_all(book)
    typer.echo(
        f"{warmth.compiled} kernels compiled, {warmth.loaded} loaded in {time.perf_counter() - began:.1f} s; "
        f"cache in {daemon.KERNEL_CACHE}"
    )


def demo(
    file: Annotated[Path | None, typer.Argument(help="Bars of your own; a simulated market without it.")] = None,
    timeframe: Annotated[str, typer.Option(help="Of the file's bars.")] = "1Hour",
    seed: Annotated[int, typer.Option(help="Of the simulated market.")] = 7,
    output: Annotated[Path, typer.Option(help="Where the report goes.")] = Path("atlas-demo.html"),
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Run the full probe on a simulated market, or on your file, and write a report."""
    from daemon.app.cli.demo import run_demo
    from daemon.app.config import load

    settings = load(config)
    run_demo(settings, settings.data_dir(data_dir), file, timeframe, seed, output)


@bench.command("probe")
def bench_probe(
    bars: Annotated[int, typer.Option(min=300, max=50_000_000, help="Length of the series.")] = 10_000,
    form: Annotated[Format, typer.Option("--format", help="How to print the figures.")] = Format.TABLE,
    config: ConfigFile = None,
    data_dir: DataDir = None,  # noqa: ARG001 - goes with every command
) -> None:
    """Probe one synthetic series with all strategies and risk profiles, stage by stage."""
    from daemon.app import wiring
    from daemon.app.cli.output import emit_figures
    from daemon.app.config import load

    settings = load(config)
    wiring.check_cache()
    from daemon.app.bench import bench_probe as measure

    emit_figures(measure(wiring.rule_book(settings), settings.probe.risk_profiles, bars), form)


@bench.command("store")
def bench_store(
    file: Annotated[
        list[Path] | None,
        typer.Option(help="Captures or archives to measure with; what is stored without any.", show_default=False),
    ] = None,
    rows: Annotated[int, typer.Option(min=100_000, help="Rows to repeat the trades to, for speed.")] = 10_000_000,
    form: Annotated[Format, typer.Option("--format", help="How to print the figures.")] = Format.TABLE,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Measure the tick store: bytes a row, appending, scanning, the live tail, bars from ticks."""
    from daemon.app import wiring
    from daemon.app.cli.output import emit_figures
    from daemon.app.config import load

    settings = load(config)
    wiring.check_cache()
    from daemon.app import bench_store as benches

    if file:
        samples = [sample for path in file for sample in benches.of_file(path)]
    else:
        with wiring.reader(settings, settings.data_dir(data_dir)) as store:
            samples = benches.stored(store.ticks)
        samples = samples or benches.simulated()
    emit_figures(benches.bench_store(samples, rows), form)


@bench.command("backtest")
def bench_backtest(
    rows: Annotated[int, typer.Option(min=100_000, max=200_000_000, help="Simulated trades.")] = 10_000_000,
    form: Annotated[Format, typer.Option("--format", help="How to print the figures.")] = Format.TABLE,
) -> None:
    """Backtest simulated trades, a year of minutes, and a hundred configurations at once."""
    from daemon.app import bench_backtest as benches
    from daemon.app.cli.output import emit_figures

    emit_figures(benches.bench_backtest(rows), form)


@bench.command("api")
def bench_api(
    seconds: Annotated[float, typer.Option(min=0.1, max=60, help="How long each part takes, about.")] = 2.0,
    form: Annotated[Format, typer.Option("--format", help="How to print the figures.")] = Format.TABLE,
    config: ConfigFile = None,
) -> None:
    """Measure the WebSocket: round trips, requests and events a second, slow and idle clients."""
    from daemon.app import bench_api as benches
    from daemon.app import wiring
    from daemon.app.cli.output import emit_figures
    from daemon.app.config import load

    emit_figures(benches.bench_api(wiring.rule_book(load(config)), seconds), form)


@bench.command("book")
def bench_book(
    capture: Annotated[
        Path | None,
        typer.Argument(
            metavar="CAPTURE", help="A recording to replay; a simulated perpetual without.", show_default=False
        ),
    ] = None,
    depth_rows: Annotated[
        int, typer.Option(min=10_000, max=100_000_000, help="Changes of levels to repeat it to.")
    ] = 4_000_000,
    trade_rows: Annotated[
        int, typer.Option(min=10_000, max=100_000_000, help="Trades for strategies that look at trades and bars.")
    ] = 5_000_000,
    form: Annotated[Format, typer.Option("--format", help="How to print the figures.")] = Format.TABLE,
) -> None:
    """Replay a book with a market maker's orders; call own strategies, compiled and as Python."""
    from daemon.app import bench_book as benches
    from daemon.app.cli.output import emit_figures

    emit_figures(benches.bench_book(capture, depth_rows, trade_rows), form)


@bench.command("validation")
def bench_validation(
    form: Annotated[Format, typer.Option("--format", help="How to print the figures.")] = Format.TABLE,
) -> None:
    """Walk a simulated year forward, disturb trades, cross-validate a sweep, optimise over a grid."""
    from daemon.app import bench_validation as benches
    from daemon.app.cli.output import emit_figures

    emit_figures(benches.bench_validation(), form)
