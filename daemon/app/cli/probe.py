"""`atlasd run`, `results`, `runs`, `strategies`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from daemon.app.cli.options import ConfigFile, DataDir, FileFormat, Format, Listing

if TYPE_CHECKING:
    from daemon.api.messages import RunStatus
    from daemon.app.writing import Writer
    from daemon.research.plans import ProbeRequest

runs = typer.Typer(rich_markup_mode=None, invoke_without_command=True)
strategies = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("run")(run)
    app.command("results")(results)
    app.add_typer(runs, name="runs", help="List runs, or delete one.")
    app.add_typer(strategies, name="strategies", help="Look at the strategies.")


def run(
    symbols: Annotated[str, typer.Option(help="Comma-separated symbols, such as SPY,AAPL or binance:BTCUSDT.")],
    timeframes: Annotated[str, typer.Option(help="Comma-separated: 1Sec,1Min,5Min,15Min,1Hour,1Day.")] = "1Hour,1Day",
    risk_profiles: Annotated[str | None, typer.Option(help="Comma-separated; all without it.")] = None,
    start: Annotated[str | None, typer.Option(help="First day, YYYY-MM-DD, from 00:00 UTC.")] = None,
    end: Annotated[str | None, typer.Option(help="Last day, YYYY-MM-DD, included.")] = None,
    strategy_ids: Annotated[
        str | None, typer.Option("--strategies", help="Comma-separated ids; all without it.")
    ] = None,
    run_id: Annotated[str | None, typer.Option(help="Name of the run; the same name again resumes it.")] = None,
    persist_trades: Annotated[bool, typer.Option("--persist-trades", help="Store every trade too.")] = False,  # noqa: FBT002
    executor: Annotated[
        Literal["threads", "processes"], typer.Option(help="Where jobs run (without a daemon).")
    ] = "threads",
    workers: Annotated[
        int, typer.Option(min=0, max=256, help="How many at once (without a daemon); 0: one a core.")
    ] = 0,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Probe strategies over stored bars and store the results."""
    from daemon.app import wiring
    from daemon.app.config import load
    from daemon.research.plans import ProbeRequest

    settings = load(config)
    request = ProbeRequest(
        symbols=_list(symbols),
        timeframes=_list(timeframes),
        risk_profiles=None if risk_profiles is None else _list(risk_profiles),
        strategy_ids=None if strategy_ids is None else [_number(text) for text in _list(strategy_ids)],
        start_date=start,
        end_date=end,
        persist_trades=persist_trades,
        run_id=run_id,
    )
    wiring.check_cache()
    if wiring.is_cache_cold():
        typer.echo("first run on this machine: compiling the kernels once, about ten seconds", err=True)
    with wiring.writer(settings, settings.data_dir(data_dir), "run", executor, workers) as writer:
        status = follow(writer, request)
    finish(status)


def follow(writer: Writer, request: ProbeRequest) -> RunStatus:
    """Start a run and watch it to its end, with a progress bar on a terminal; Ctrl-C cancels it."""
    import sys
    import time
    from contextlib import suppress

    from daemon.core.errors import Conflict

    started = writer.start(request)
    try:
        if not sys.stderr.isatty():
            while (status := writer.status(started)).status in ("queued", "running"):
                time.sleep(0.02)
            return status
        return _draw(writer, started)
    except KeyboardInterrupt:
        with suppress(Conflict):  # it ended by itself meanwhile
            writer.cancel(started)
        return writer.status(started)


def _draw(writer: Writer, run_id: str) -> RunStatus:
    import time

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"run {run_id}", left="")
        while (status := writer.status(run_id)).status in ("queued", "running"):
            seconds = status.progress.seconds_left
            left = "" if seconds is None else f"{seconds:.0f} s left"
            progress.update(task, completed=status.progress.completed, total=status.progress.total, left=left)
            time.sleep(0.05)
    return status


def finish(status: RunStatus) -> None:
    """Print how a run ended; exit 1 where it did not complete."""
    for note in status.notes:
        typer.echo(f"note: {note}", err=True)
    if status.summary is None:
        reason = status.error.message if status.error else status.status
        typer.echo(
            f"run {status.run_id} {status.status} after {status.progress.completed} of {status.progress.total} "
            f"combinations: {reason}",
            err=True,
        )
        raise typer.Exit(1)
    typer.echo(
        f"run {status.run_id} completed: {status.summary.total_combinations} combinations, "
        f"{status.summary.total_trades} trades, {status.summary.total_result_records} result records, "
        f"{status.summary.elapsed_seconds:.2f} s"
    )


def results(
    run_id: Annotated[str, typer.Argument(help="The run.")],
    trades: Annotated[bool, typer.Option("--trades", help="Trades instead of groups.")] = False,  # noqa: FBT002
    symbol: Annotated[str | None, typer.Option(help="Only this symbol.")] = None,
    timeframe: Annotated[str | None, typer.Option(help="Only this timeframe.")] = None,
    strategy: Annotated[int | None, typer.Option(help="Only this strategy id.")] = None,
    risk_profile: Annotated[str | None, typer.Option(help="Only this risk profile.")] = None,
    justify: Annotated[bool, typer.Option("--justify", help="Say why trades were entered and left.")] = False,  # noqa: FBT002
    form: Annotated[FileFormat, typer.Option("--format", help="How to write the rows.")] = FileFormat.TABLE,
    output: Annotated[Path | None, typer.Option(help="A file instead of the terminal.")] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Show a run's results: groups by hour of entry and side, or trades."""
    from daemon.app import wiring
    from daemon.app.cli.output import emit_blocks
    from daemon.app.config import load
    from daemon.research.records import stored_run
    from daemon.research.views import GROUP_NAMES, TRADE_NAMES, Filters, RunRows

    if justify and not trades:
        raise typer.BadParameter("--justify goes with --trades")
    settings = load(config)
    filters = Filters(symbol=symbol, timeframe=timeframe, strategy_id=strategy, risk_profile=risk_profile)
    with wiring.reader(settings, settings.data_dir(data_dir)) as store:
        with store.env.read() as transaction:
            stored = stored_run(transaction, run_id).run
        rows = RunRows(store.env, stored, wiring.rule_book(settings), filters)
        if trades and not stored.persist_trades:
            typer.echo(f"run {run_id} kept no trades: run it under a new id with --persist-trades", err=True)
        blocks = rows.trades(justify=justify) if trades else rows.groups()
        count = emit_blocks(blocks, TRADE_NAMES if trades else GROUP_NAMES, form, output)
    if output is not None:
        typer.echo(f"{count} rows written to {output}")


@runs.callback()
def list_runs(
    context: typer.Context, form: Listing = Format.TABLE, data_dir: DataDir = None, config: ConfigFile = None
) -> None:
    """List runs, the newest first."""
    if context.invoked_subcommand is not None:
        for name, option in (("form", "--format"), ("data_dir", "--data-dir"), ("config", "--config")):
            source = context.get_parameter_source(name)
            if source is not None and source.name == "COMMANDLINE":
                raise typer.BadParameter(f"{option} goes behind `runs {context.invoked_subcommand}`")
        return
    from daemon.api.messages import run_status
    from daemon.app import wiring
    from daemon.app.cli.output import emit
    from daemon.app.config import load
    from daemon.research.records import stored_runs

    settings = load(config)
    with wiring.reader(settings, settings.data_dir(data_dir)) as store, store.env.read() as transaction:
        found = stored_runs(transaction)
    listed = [(view.run, run_status(view)) for view in found]
    emit(
        {
            "run_id": [status.run_id for _, status in listed],
            "status": [status.status for _, status in listed],
            "created_at": [status.created_at for _, status in listed],
            "combinations": [status.progress.completed for _, status in listed],
            "of": [status.progress.total for _, status in listed],
            "trades": [run.total_trades for run, _ in listed],
            "records": [run.total_result_records for run, _ in listed],
            "seconds": [status.progress.elapsed_seconds for _, status in listed],
            "symbols": [",".join(status.symbols) for _, status in listed],
            "timeframes": [",".join(status.timeframes) for _, status in listed],
        },
        form,
    )


@runs.command("delete")
def delete(
    run_id: Annotated[str, typer.Argument(help="The run.")],
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Remove a run and its results."""
    from daemon.app import wiring
    from daemon.app.config import load

    settings = load(config)
    with wiring.writer(settings, settings.data_dir(data_dir), "runs delete") as writer:
        writer.delete(run_id)
    typer.echo(f"run {run_id} deleted")


@strategies.command("list")
def list_strategies(
    category: Annotated[str | None, typer.Option(help="Only this category.")] = None,
    form: Listing = Format.TABLE,
    config: ConfigFile = None,
    data_dir: DataDir = None,  # noqa: ARG001 - goes with every command
) -> None:
    """List the strategies."""
    from daemon.app import wiring
    from daemon.app.cli.output import emit
    from daemon.app.config import load

    found = wiring.rule_book(load(config)).of_category(category)
    emit(
        {
            "id": [each.id for each in found],
            "name": [each.name for each in found],
            "category": [each.category for each in found],
            "direction": [each.direction for each in found],
            "display_name": [each.display_name for each in found],
        },
        form,
    )


@strategies.command("show")
def show_strategy(
    strategy_id: Annotated[int, typer.Argument(help="The strategy's id.")],
    config: ConfigFile = None,
    data_dir: DataDir = None,  # noqa: ARG001 - goes with every command
) -> None:
    """Print one strategy: its rules as JSON, and in words."""
    import msgspec

    from daemon.app import wiring
    from daemon.app.config import load
    from daemon.core.strategy import LONG, SHORT
    from daemon.research.justify import entry_reason

    strategy = wiring.rule_book(load(config)).get(strategy_id)
    typer.echo(msgspec.json.format(msgspec.json.encode(strategy), indent=2).decode())
    for side, rules in ((LONG, strategy.entry_long), (SHORT, strategy.entry_short)):
        if rules:
            typer.echo(entry_reason(strategy, side), err=True)


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"strategy id `{text}` is not a number") from None
