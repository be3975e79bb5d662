"""`atlasd montecarlo`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from daemon.app.cli.options import ConfigFile, DataDir, Format, Listing

if TYPE_CHECKING:
    from daemon.research.monte_carlo_records import Simulation

_FIGURES: Final = (
    "method",
    "percentile5",
    "median_return",
    "percentile95",
    "median_drawdown",
    "percentile95_drawdown",
    "probability_of_profit",
    "probability_of_ruin",
    "probability_of2x_return",
)


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command("montecarlo")(montecarlo)


def montecarlo(
    backtest_id: Annotated[str, typer.Argument(metavar="ID", help="A completed backtest.", show_default=False)],
    runs: Annotated[int, typer.Option(help="Simulated runs of each method, 1 to 1,000,000.")] = 1_000,
    seed: Annotated[int, typer.Option(help="Of the random numbers; the same gives the same runs.")] = 1,
    block: Annotated[
        float | None,
        typer.Option(help="Mean length of the bootstrap's blocks, in trades; else chosen.", show_default=False),
    ] = None,
    confidence: Annotated[float, typer.Option(help="Of the interval that holds the final return.")] = 0.95,
    form: Listing = Format.TABLE,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Draw a backtest's trades again, reorder, leave out and disturb them, and show where that ends.

    Returns, drawdowns and chances are fractions in json and csv. The simulation is kept with the backtest; its verdict
    stays.
    """
    from daemon.app import wiring
    from daemon.app.config import load
    from daemon.research.monte_carlo_records import request_of

    asked = {"backtestId": backtest_id, "runs": runs, "seed": seed, "block": block, "confidenceLevel": confidence}
    request = request_of(asked)
    settings = load(config)
    with wiring.writer(settings, settings.data_dir(data_dir), "montecarlo") as writer:
        made = writer.monte_carlo(request)
    _show(made, form)


def _show(made: Simulation, form: Format) -> None:
    import msgspec

    from daemon.app.cli.output import emit
    from daemon.app.cli.printing import plain_text, print_parts, rows_table
    from daemon.research.validation_words import (
        METHOD_HEADINGS,
        method_rows,
        monte_carlo_returns,
        monte_carlo_words,
    )

    if form is Format.JSON:
        typer.echo(msgspec.json.format(msgspec.json.encode(made), indent=2).decode())
        return
    if form is Format.CSV:
        emit({name: [getattr(each, name) for each in made.methods] for name in _FIGURES}, form)
    else:
        print_parts([rows_table(METHOD_HEADINGS, method_rows(made), right_from=1)])
    typer.echo(plain_text(f"{monte_carlo_words(made)} Bootstrap: {monte_carlo_returns(made)}.").plain, err=True)
    if made.note:
        typer.echo(made.note, err=True)
