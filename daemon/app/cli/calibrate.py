"""`atlasd calibrate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from daemon.app.cli.options import ConfigFile, DataDir, Format, Listing

if TYPE_CHECKING:
    from daemon.research.calibration import Calibration


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command("calibrate")(calibrate)


def calibrate(
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
