"""`atlasd optimize`, `optimizations`: try many points of a configuration's parameters, and judge the best of them.

`atlasd optimize CONFIG.json` is short for `atlasd optimize run CONFIG.json`, as with `atlasd backtest`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from daemon.app.cli.backtest import read_configuration, with_strategy_file
from daemon.app.cli.options import ConfigFile, DataDir, Format, Listing, RunOrCommand

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.app.stores import Store
    from daemon.app.writing import Writer
    from daemon.research.optimization.result import OptimizationStatus

optimize = typer.Typer(cls=RunOrCommand, rich_markup_mode=None, no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="The optimisation.")]
Report = Annotated[Path | None, typer.Option(help="Write a page to this file as well: .html.")]
Result = Annotated[Format, typer.Option("--format", help="A summary, the whole result as JSON, or all points as CSV.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.add_typer(
        optimize,
        name="optimize",
        short_help="Try many values of a configuration's parameters, and judge the best.",
        help="""
        Try many values of a configuration's parameters, and judge the best.

        `atlasd optimize CONFIG.json --param take_profit=0.01:0.05:0.01` tries every combination of the ranges given, or
        of those that are usual; every point counts as a try of the idea. What was interrupted goes on with `resume`.
        """,
    )
    app.command("optimizations")(optimizations)


@optimize.command("run")
def run(
    configuration: Annotated[str, typer.Argument(metavar="CONFIG.json", help="The configuration; - for stdin.")],
    parameters: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="NAME=RANGE", help="LOW:HIGH:STEP, LOW:HIGH or A,B,C; repeat."),
    ] = None,
    target: Annotated[str, typer.Option(help="What is best: sharpe, sortino, calmar or return.")] = "sharpe",
    method: Annotated[str, typer.Option(help="Every combination (grid), random ones, or optuna's choice.")] = "grid",
    budget: Annotated[
        int | None, typer.Option(help="The most points to try.", show_default="the whole grid, else 100")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 1,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Go over a field, such as backtest.commission=0.0005; repeat."),
    ] = None,
    report: Report = None,
    form: Result = Format.TABLE,
    priority: Annotated[Literal["low", "normal", "high"], typer.Option(help="Beside others in the queue.")] = "normal",
    name: Annotated[str | None, typer.Option(help="What to call it, instead of the strategy's name.")] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Try points, here or in the running daemon, and print what came of it. Ctrl-C cancels it, and keeps the points."""
    from daemon.app.config import load
    from daemon.research.optimization.request import OptimizationRequest

    settings = load(config)
    wanted = read_configuration(configuration, assignments or [])
    request = OptimizationRequest(
        config=with_strategy_file(wanted, configuration, settings, settings.data_dir(data_dir)),
        parameters=parameters or [],
        target=target,
        method=method,
        budget=budget,
        seed=seed,
        priority=priority,
        name=name,
    )
    _work(lambda writer: writer.optimization_start(request), report, form, data_dir, config)


@optimize.command("resume")
def resume(
    optimization_id: Id,
    report: Report = None,
    form: Result = Format.TABLE,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Go on with one that was cancelled or failed, behind the points that are stored."""
    _work(lambda writer: writer.optimization_resume(optimization_id).id, report, form, data_dir, config)


@optimize.command("show")
def show(optimization_id: Id, form: Result = Format.TABLE, data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Show a result, or how an optimisation is doing; `--format csv` lists the points that are stored so far."""
    from daemon.app import wiring
    from daemon.app.config import load

    settings = load(config)
    with wiring.reader(settings, settings.data_dir(data_dir)) as store:
        _emit(store, optimization_id, form)


@optimize.command("report")
def report_of(
    optimization_id: Id,
    output: Annotated[Path, typer.Option(help="The page to write, .html; it appears once it is complete.")],
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Write a result as an HTML page, one file that opens anywhere."""
    from daemon.app import wiring
    from daemon.app.config import load

    _check_report(output, "--output")
    settings = load(config)
    with wiring.reader(settings, settings.data_dir(data_dir)) as store:
        _write_report(store, optimization_id, output)
    typer.echo(f"report: {output}")


@optimize.command("cancel")
def cancel(optimization_id: Id, data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """End one that is queued or running; its points are kept."""
    from daemon.app import wiring
    from daemon.app.config import load

    settings = load(config)
    with wiring.writer(settings, settings.data_dir(data_dir), "optimize cancel") as writer:
        status = writer.optimization_cancel(optimization_id)
    typer.echo(f"optimisation {optimization_id} {status.status}")


@optimize.command("delete")
def delete(optimization_id: Id, data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Remove one that has ended, with its points; its tries stay in the ledger."""
    from daemon.app import wiring
    from daemon.app.config import load

    settings = load(config)
    with wiring.writer(settings, settings.data_dir(data_dir), "optimize delete") as writer:
        writer.optimization_delete(optimization_id)
    typer.echo(f"optimisation {optimization_id} deleted")


def optimizations(form: Listing = Format.TABLE, data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """List optimisations, the newest first."""
    from daemon.app import wiring
    from daemon.app.cli.optimize_summary import print_list
    from daemon.app.config import load
    from daemon.research.optimization.records import stored_states

    settings = load(config)
    with wiring.reader(settings, settings.data_dir(data_dir)) as store, store.env.read() as transaction:
        found = [state.status for state in stored_states(transaction)]
    print_list(found, form)


# Running.


def _work(
    start: Callable[[Writer], str], report: Path | None, form: Format, data_dir: Path | None, config: Path | None
) -> None:
    from daemon.app import wiring
    from daemon.app.config import load
    from daemon.core.errors import Code, JobFailed

    if report is not None:
        _check_report(report, "--report")
    settings = load(config)
    folder = settings.data_dir(data_dir)
    wiring.check_cache()
    if wiring.is_cache_cold("loop.step"):
        typer.echo("first run on this machine: compiling the kernels once, about a minute", err=True)
    with wiring.writer(settings, folder, "optimize", "threads", 1) as writer:
        status = _follow(writer, start(writer))
    if status.status != "completed":
        code = next((each for each in Code if each == status.error_code), Code.INTERNAL)
        why = "was cancelled" if code is Code.CANCELLED else f"failed: {status.error}"
        kept = f"; {status.points_done:,} points are kept: `atlasd optimize resume {status.id}` goes on from there"
        details = {"traceback": status.error_traceback} if status.error_traceback else None
        raise JobFailed(code, f"optimisation {status.id} {why}{kept if status.points_done else ''}", details)
    with wiring.reader(settings, folder) as store:
        if report is not None:
            _write_report(store, status.id, report)
        _emit(store, status.id, form)
    if report is not None:
        typer.echo(f"report: {report}", err=form is not Format.TABLE)


def _follow(writer: Writer, started: str) -> OptimizationStatus:
    """Watch an optimisation to its end; Ctrl-C cancels it."""
    from daemon.app.cli.watching import watch

    def said(status: OptimizationStatus) -> str:
        best = "" if status.best_score is None else f", best {status.target} {status.best_score:.3g}"
        return f"{status.points_done:,} of {status.points:,} points{best}"

    return watch(
        f"optimisation {started}",
        lambda: writer.optimization_status(started),
        lambda: writer.optimization_cancel(started),
        said,
    )


# Writing.


def _emit(store: Store, optimization_id: str, form: Format) -> None:
    from daemon.app.cli.optimize_summary import print_result, print_status
    from daemon.research.optimization import views
    from daemon.research.optimization.records import stored_result, stored_state

    if form is Format.CSV:
        for piece in views.points_csv(store.env, optimization_id):
            sys.stdout.write(piece.decode())
        return
    with store.env.read() as transaction:
        status = stored_state(transaction, optimization_id).status
        result = stored_result(transaction, optimization_id) if status.status == "completed" else None
    if result is None:
        print_status(status, form)
    elif form is Format.JSON:
        for piece in views.result_json(result):
            sys.stdout.write(piece.decode())
    else:
        print_result(result)


def _check_report(path: Path, option: str) -> None:
    if path.suffix.lower() not in (".html", ".htm"):
        raise typer.BadParameter(f"{path.name}: a report is a page (.html)", param_hint=option)
    if not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {path.absolute().parent}", param_hint=option)


def _write_report(store: Store, optimization_id: str, output: Path) -> None:
    from daemon.app.cli.output import write_whole
    from daemon.research.optimization.records import stored_result
    from daemon.research.optimization.views import optimization_html

    with store.env.read() as transaction:
        result = stored_result(transaction, optimization_id)
    write_whole(output, optimization_html(result))
