"""`atlasd backtest`, `backtests`.

`atlasd backtest CONFIG.json` is short for `atlasd backtest run CONFIG.json`: whatever is no command of the group is a
configuration. A file that has a command's name is given as `./show`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from daemon.app.cli.options import ConfigFile, DataDir, Format, Listing, RunOrCommand

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daemon.app.config import Config
    from daemon.app.stores import Store
    from daemon.app.writing import Writer
    from daemon.research.backtest_result import BacktestStatus, Priority
    from daemon.research.backtest_views import View

_PAGES: Final = (".html", ".htm")
_DOCUMENT: Final = ".pdf"

Id = Annotated[str, typer.Argument(metavar="ID", help="The backtest.")]


backtest = typer.Typer(cls=RunOrCommand, rich_markup_mode=None, no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.add_typer(
        backtest,
        name="backtest",
        short_help="Trade a configuration over stored data, and look at what came of it.",
        help="""
        Trade a configuration over stored data, and look at what came of it.

        `atlasd backtest CONFIG.json` runs a configuration (`-` reads it from stdin) and prints the result;
        docs/backtest-config.md says what it may hold. The commands below look at backtests that are stored. A
        configuration that is named as one of them is given with its folder: ./show
        """,
    )
    app.command("backtests")(backtests)


@backtest.command("run")
def run(
    configuration: Annotated[str, typer.Argument(metavar="CONFIG.json", help="The configuration; - for stdin.")],
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Go over a field, such as backtest.commission=0.0005; repeat."),
    ] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="NAME=VALUE", help="Set a parameter, such as take_profit=0.02; repeat."),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write a report to this file as well: .html or .pdf.")] = None,
    sensitivity: Annotated[bool, typer.Option("--sensitivity", help="Other costs, later orders and starts.")] = False,  # noqa: FBT002
    form: Annotated[
        Format, typer.Option("--format", help="A summary, the whole result as JSON, or the trades as CSV.")
    ] = Format.TABLE,
    priority: Annotated[Literal["low", "normal", "high"], typer.Option(help="Beside others in the queue.")] = "normal",
    name: Annotated[str | None, typer.Option(help="What to call it, instead of the strategy's name.")] = None,
    executor: Annotated[
        Literal["threads", "processes"],
        typer.Option(help="Where it runs (without a daemon); a strategy of your own never on a thread."),
    ] = "threads",
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Run a configuration, here or in the running daemon, and print the result. Ctrl-C cancels it."""
    from daemon.app import wiring
    from daemon.app.cli.backtest_summary import print_summary
    from daemon.app.config import load

    if report is not None:
        _check_suffix(report, "--report")
        if not report.absolute().parent.is_dir():
            raise typer.BadParameter(f"there is no folder {report.absolute().parent}", param_hint="--report")
    asked = ["validation.sensitivity=true"] if sensitivity else []
    wanted = read_configuration(configuration, [*(assignments or []), *asked])
    if parameters:
        wanted["point"] = wanted.get("point", {}) | point_of(parameters)
    settings = load(config)
    folder = settings.data_dir(data_dir)
    wanted = with_strategy_file(wanted, configuration, settings, folder)
    wiring.check_cache()
    if wiring.is_cache_cold("loop.step"):
        typer.echo("first backtest on this machine: compiling the kernels once, about a minute", err=True)
    with wiring.writer(settings, folder, "backtest", executor, 1) as writer:
        status = follow(writer, wanted, priority, name)
    check_completed(status)
    with wiring.reader(settings, folder) as store:
        if report is not None:
            _write_report(store, status.id, report)
        if form is not Format.TABLE:
            _emit(store, status.id, form)
        else:
            print_summary(store.env, status.id)
    if report is not None:
        typer.echo(f"report: {report}", err=form is not Format.TABLE)


@backtest.command("show")
def show(
    backtest_id: Id,
    trades: Annotated[bool, typer.Option("--trades", help="Every trade.")] = False,  # noqa: FBT002
    receipts: Annotated[bool, typer.Option("--receipts", help="Every fill, and why it has its price.")] = False,  # noqa: FBT002
    trade: Annotated[int | None, typer.Option(min=0, help="Receipts of this trade alone.")] = None,
    equity: Annotated[bool, typer.Option("--equity", help="The account at every bar's close.")] = False,  # noqa: FBT002
    form: Annotated[
        Format, typer.Option("--format", help="Without rows: a summary, the whole result, or the trades as CSV.")
    ] = Format.TABLE,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Show a result, or its trades, receipts or equity."""
    from daemon.app import wiring
    from daemon.app.cli.backtest_summary import print_rows, print_status, print_summary
    from daemon.app.config import load
    from daemon.research.backtest_records import stored_state

    flags: dict[View, bool] = {"trades": trades, "receipts": receipts, "equity": equity}
    views = [view for view, is_wanted in flags.items() if is_wanted]
    if len(views) > 1:
        raise typer.BadParameter("give one of --trades, --receipts and --equity")
    if trade is not None and not receipts:
        raise typer.BadParameter("--trade goes with --receipts")
    settings = load(config)
    with wiring.reader(settings, settings.data_dir(data_dir)) as store:
        with store.env.read() as transaction:
            status = stored_state(transaction, backtest_id).status
        if views and form is Format.TABLE:
            print_rows(store.env, backtest_id, views[0], trade)
        elif views or form is Format.CSV:
            _emit(store, backtest_id, form, views[0] if views else "trades", trade)
        elif status.status != "completed":
            print_status(status, form)
        elif form is Format.JSON:
            _emit(store, backtest_id, form)
        else:
            print_summary(store.env, backtest_id)


@backtest.command("diff")
def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="A backtest.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    form: Listing = Format.TABLE,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Compare two backtests: configuration, data, engine, figures, and the first trade that differs."""
    from daemon.app import wiring
    from daemon.app.cli.backtest_summary import print_comparison
    from daemon.app.config import load
    from daemon.research.backtest_diff import compare

    settings = load(config)
    with wiring.reader(settings, settings.data_dir(data_dir)) as store:
        comparison = compare(store.env, first, second)
    print_comparison(comparison, (first, second), form)


@backtest.command("cancel")
def cancel(backtest_id: Id, data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """End a backtest that is queued or running."""
    from daemon.app import wiring
    from daemon.app.config import load

    settings = load(config)
    with wiring.writer(settings, settings.data_dir(data_dir), "backtest cancel") as writer:
        status = writer.backtest_cancel(backtest_id)
    typer.echo(f"backtest {backtest_id} {status.status}")


@backtest.command("delete")
def delete(backtest_id: Id, data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Remove a backtest that has ended, and its results."""
    from daemon.app import wiring
    from daemon.app.config import load

    settings = load(config)
    with wiring.writer(settings, settings.data_dir(data_dir), "backtest delete") as writer:
        writer.backtest_delete(backtest_id)
    typer.echo(f"backtest {backtest_id} deleted")


@backtest.command("report")
def report_of(
    backtest_id: Id,
    output: Annotated[Path, typer.Option(help="The file to write, .html or .pdf; it appears once it is complete.")],
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Write a result as an HTML page or a PDF, each one file that opens anywhere: its suffix says which."""
    from daemon.app import wiring
    from daemon.app.config import load

    _check_suffix(output, "--output")
    settings = load(config)
    with wiring.reader(settings, settings.data_dir(data_dir)) as store:
        _write_report(store, backtest_id, output)
    typer.echo(f"report: {output}")


def backtests(
    status: Annotated[
        Literal["queued", "running", "completed", "failed", "cancelled"] | None, typer.Option(help="Only these.")
    ] = None,
    form: Listing = Format.TABLE,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """List backtests, the newest first."""
    from daemon.app import wiring
    from daemon.app.cli.backtest_summary import print_list
    from daemon.app.config import load
    from daemon.research.backtest_records import stored_statuses

    settings = load(config)
    with wiring.reader(settings, settings.data_dir(data_dir)) as store, store.env.read() as transaction:
        found = stored_statuses(transaction)
    print_list([each for each in found if status in (None, each.status)], form)


# Running.


def follow(writer: Writer, wanted: dict[str, Any], priority: Priority, name: str | None = None) -> BacktestStatus:
    """Start a backtest and watch it to its end; Ctrl-C cancels it."""
    from daemon.app.cli.watching import watch

    started = writer.backtest_start(wanted, priority, name)
    return watch(
        f"backtest {started}",
        lambda: writer.backtest_status(started),
        lambda: writer.backtest_cancel(started),
        lambda status: f"{status.events_processed:,} events" if status.events_processed else "",
    )


def check_completed(status: BacktestStatus) -> None:
    """Raise what ended a backtest that did not complete."""
    from daemon.core.errors import Code, JobFailed

    if status.status != "completed":
        code = next((each for each in Code if each == status.error_code), Code.INTERNAL)
        why = "was cancelled" if code is Code.CANCELLED else f"failed: {status.error}"
        details = {"traceback": status.error_traceback} if status.error_traceback else None
        raise JobFailed(code, f"backtest {status.id} {why}", details)


def read_configuration(source: str, assignments: Iterable[str]) -> dict[str, Any]:
    """Read a configuration and go over its fields.

    NotFound SOURCE_NOT_FOUND, SourceDataInvalid SOURCE_UNREADABLE, InvalidRequest INVALID_JSON or as `resolve_set`.
    """
    from daemon.core.errors import Code, InvalidRequest, NotFound, SourceDataInvalid
    from daemon.research.backtest_config.files import decode_config
    from daemon.research.backtest_config.read import resolve_set

    where = "stdin" if source == "-" else source
    try:
        content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except FileNotFoundError:
        commands = ", ".join(each.name for each in backtest.registered_commands if each.name)
        why = f"there is no file {source}, and `atlasd backtest` has no such command (it has {commands})"
        raise NotFound(Code.SOURCE_NOT_FOUND, why) from None
    except OSError as error:
        raise SourceDataInvalid(Code.SOURCE_UNREADABLE, f"{where} cannot be read: {error.strerror}") from None
    if where.endswith(".py"):
        why = f'{where} is a strategy: name it in a configuration, {{"strategy": {{"file": "{Path(where).name}"}}, …}}'
        raise InvalidRequest(Code.INVALID_REQUEST, why)
    wanted = decode_config(content, where)
    for each in assignments:
        wanted = resolve_set(wanted, each)
    return wanted


def with_strategy_file(wanted: dict[str, Any], source: str, settings: Config, folder: Path) -> dict[str, Any]:
    """Put the file that `strategy.file` names into the strategy folder. source: of the configuration."""
    from daemon.app import wiring
    from daemon.research.backtest_config.given import with_given

    beside = Path() if source == "-" else Path(source).parent
    return with_given(wanted, beside, wiring.strategy_folder(settings, folder))


def point_of(assignments: Iterable[str]) -> dict[str, str]:
    """Read `name=value`; what a value may be, whoever reads the configuration says."""
    split = [each.partition("=") for each in assignments]
    for name, equals, _ in split:
        if not equals or not name.strip():
            raise typer.BadParameter(f"{name} is not NAME=VALUE, such as take_profit=0.02", param_hint="--param")
    return {name.strip(): value for name, _, value in split}


# Writing.


def _emit(store: Store, backtest_id: str, form: Format, view: View | None = None, trade: int | None = None) -> None:
    """Write rows, or the whole result without a view, to stdout piece by piece; csv without one is the trades."""
    from daemon.research.backtest_formats import csv_pieces, json_array, result_pieces
    from daemon.research.backtest_views import BacktestRows

    if view is None and form is Format.JSON:
        pieces = result_pieces(store.env, backtest_id)
    else:
        rows = BacktestRows(store.env, backtest_id, view or "trades", trade=trade)
        pieces = json_array(rows) if form is Format.JSON else csv_pieces(rows)
    for piece in pieces:
        sys.stdout.write(piece.decode())


def _check_suffix(path: Path, option: str) -> None:
    if path.suffix.lower() not in (*_PAGES, _DOCUMENT):
        raise typer.BadParameter(f"{path.name}: a report is a page (.html) or a PDF (.pdf)", param_hint=option)


def _write_report(store: Store, backtest_id: str, output: Path) -> None:
    from daemon.app.cli.output import write_whole
    from daemon.research.backtest_pages import report_document, report_page

    is_document = output.suffix.lower() == _DOCUMENT
    write_whole(output, (report_document if is_document else report_page)(store.bars, backtest_id))
