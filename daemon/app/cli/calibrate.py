"""`atlasd calibrate`: what a symbol's own ticks say of it, kept for its backtests.

`atlasd calibrate SYMBOL` is short for `atlasd calibrate run SYMBOL`. A symbol that is named as a command is given with
its venue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from daemon.app.cli.options import ConfigFile, DataDir, Format, Listing, RunOrCommand

if TYPE_CHECKING:
    from daemon.research.calibration import Calibration
    from daemon.research.latency_calibration import LatencyCalibration


class _SymbolOrCommand(RunOrCommand):
    """A group that runs on a symbol unless a command is named."""

    argument: ClassVar[str] = "SYMBOL"


calibrate = typer.Typer(cls=_SymbolOrCommand, rich_markup_mode=None, no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.add_typer(
        calibrate,
        name="calibrate",
        short_help="Fit a symbol's impact parameters, or measure its latency, on its stored ticks.",
        help="""
        Fit a symbol's slippage and impact parameters on its stored trades; backtests take them from then on.

        `atlasd calibrate latency SYMBOL` measures how long its messages take. A symbol that is named as one of the
        commands below is given with its venue.
        """,
    )


@calibrate.command("run")
def run(
    symbol: Annotated[str, typer.Argument(help="Of which trades are stored.", show_default=False)],
    bucket: Annotated[str, typer.Option(help="Time that is summed up: 1Sec, 1Min, 5Min, 15Min, 1Hour or 1Day.")] = (
        "5Min"
    ),
    start: Annotated[str | None, typer.Option(help="First day or time of the trades.", show_default=False)] = None,
    end: Annotated[str | None, typer.Option(help="Last day, or time behind the last.", show_default=False)] = None,
    form: Listing = Format.TABLE,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Fit a symbol's slippage and impact parameters on its stored trades; backtests take them from then on."""
    from daemon.app import wiring
    from daemon.app.config import load
    from daemon.research.calibration import CalibrationRequest

    settings = load(config)
    request = CalibrationRequest(symbol, bucket, start, end)
    with wiring.writer(settings, settings.data_dir(data_dir), "calibrate") as writer:
        made = writer.calibrate(request)
    _show(made, form)


@calibrate.command("latency")
def latency(
    symbol: Annotated[str, typer.Argument(help="Of which ticks with a local time are stored.", show_default=False)],
    stream: Annotated[
        Literal["depth", "quotes", "trades", "agg_trades"] | None,
        typer.Option(help="Measure on these; unless given the first of them that has both times.", show_default=False),
    ] = None,
    bucket: Annotated[
        str | None,
        typer.Option(
            help="Time of which the median is kept: 1Sec, 1Min … ; unless given the finest that is not too many.",
            show_default=False,
        ),
    ] = None,
    floor_ms: Annotated[
        float, typer.Option("--floor-ms", min=0, max=10_000, help="The least latency there is: no single clock tells.")
    ] = 1.0,
    start: Annotated[str | None, typer.Option(help="First day or time of the ticks.", show_default=False)] = None,
    end: Annotated[str | None, typer.Option(help="Last day, or time behind the last.", show_default=False)] = None,
    form: Listing = Format.TABLE,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Measure a symbol's feed latency on its ticks' times; backtests with a measured latency take it from then on."""
    from daemon.app import wiring
    from daemon.app.config import load
    from daemon.research.latency_calibration import LatencyRequest

    settings = load(config)
    request = LatencyRequest(symbol, stream, bucket, floor_ms, start, end)
    with wiring.writer(settings, settings.data_dir(data_dir), "calibrate") as writer:
        made = writer.calibrate_latency(request)
    _show_latency(made, form)


def _show(made: Calibration, form: Format) -> None:
    import msgspec

    from daemon.app.cli.output import emit

    if form is Format.JSON:
        typer.echo(msgspec.json.format(msgspec.json.encode(made), indent=2).decode())
        return
    names = ("model", "name", "value", "standard_error", "r2", "buckets", "is_used", "note")
    emit({name: [getattr(each, name) for each in made.parameters] for name in names}, form)
    typer.echo(
        f"{made.symbol}: {made.rows:,} {made.stream.replace('_', ' ')} in {made.buckets:,} buckets of {made.bucket}; "
        f"aggressor unknown for {made.unknown_percent:.3g} % of the volume. A backtest that names one of these models "
        "without parameters takes those that are used",
        err=True,
    )


def _show_latency(made: LatencyCalibration, form: Format) -> None:
    import msgspec

    from daemon.app.cli.output import emit

    if form is Format.JSON:
        typer.echo(msgspec.json.format(msgspec.json.encode(made), indent=2).decode())
        return
    names = ("p50_ms", "p90_ms", "p99_ms", "max_ms", "offset_ms", "drift_ppm", "wander_ms", "rows", "messages")
    emit({"figure": list(names), "value": [round(getattr(made, name), 6) for name in names]}, form)
    typer.echo(
        f"{made.symbol}: {made.messages:,} messages of {made.stream.replace('_', ' ')} in {made.buckets:,} buckets of "
        f"{made.bucket}; the fastest are taken to take {made.floor_ms:g} ms. A backtest whose latencyMs says "
        "`measured` takes the series",
        err=True,
    )
