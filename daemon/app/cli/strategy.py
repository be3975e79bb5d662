"""`atlasd strategy`: a trader's own strategies, written in Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from daemon.app.cli import strategy_bench
from daemon.app.cli.backtest import read_configuration
from daemon.app.cli.options import ConfigFile, DataDir, Format, Listing

if TYPE_CHECKING:
    from daemon.app.config import Config
    from daemon.research.own.folder import StrategyFolder
    from daemon.research.strategy_check import Checked, Rehearsal

strategy = typer.Typer(rich_markup_mode=None, no_args_is_help=True)

_SUFFIX: Final = ".py"


def register(app: typer.Typer) -> None:
    """Add this module's commands, and those that have a module of their own."""
    strategy_bench.register(strategy)
    app.add_typer(strategy, name="strategy", help="Write, list, check and measure strategies of your own, in Python.")


@strategy.command("new")
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the strategy: a file's name without .py.")],
    folder: Annotated[
        Path | None,
        typer.Option(help="Where to write it instead of the strategy folder.", show_default=False),
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Write a commented strategy that runs as it stands; a file that is there is left alone."""
    from daemon.app import wiring
    from daemon.app.config import load
    from daemon.research.own.folder import written
    from daemon.research.own.template import template

    name = name.removesuffix(_SUFFIX)
    if folder is not None:
        path = written(folder, name, template(name))
        how = f'{{"strategy": {{"file": "{path.name}"}}, …}} in a configuration beside it'
    else:
        settings = load(config)
        path = wiring.strategy_folder(settings, settings.data_dir(data_dir)).add(name, template(name))
        how = f'{{"strategy": {{"own": "{name}"}}, …}}'
    typer.echo(path)
    typer.echo(f"check it with `atlasd strategy check {name if folder is None else path}`, run it by {how}", err=True)


@strategy.command("list")
def list_strategies(
    given: Annotated[bool, typer.Option("--given", help="Copies of files that runs were given, instead.")] = False,  # noqa: FBT002
    form: Listing = Format.TABLE,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """List the strategies of the strategy folder, with their parameters; none of them is run."""
    import msgspec

    from daemon.app import wiring
    from daemon.app.cli.output import emit
    from daemon.app.config import load
    from daemon.research.own.listing import listed

    settings = load(config)
    folder = wiring.strategy_folder(settings, settings.data_dir(data_dir))
    found = listed(folder, given=given)
    if form is Format.JSON:
        typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return
    emit(
        {
            "id": [each.id for each in found],
            "class": [each.name or "" for each in found],
            "parameters": [" ".join(_parameter(one) for one in each.parameters) for each in found],
            "handlers": [" ".join(each.handlers) for each in found],
            "what": [each.error or each.summary for each in found],
        },
        form,
    )
    if not found:
        typer.echo(f"{folder.path} is empty: `atlasd strategy new NAME` writes one", err=True)


@strategy.command("check")
def check(
    wanted: Annotated[str, typer.Argument(metavar="FILE|ID", help="A Python file, or one of the folder by its id.")],
    configuration: Annotated[
        Path | None,
        typer.Option("--backtest", help="A configuration, CONFIG.json: what it trades must not look ahead."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long it may take, in all.")] = 60.0,
    form: Listing = Format.TABLE,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Load a strategy in a process of its own, and say what it declares, what runs compiled, and what does not."""
    from daemon.app import wiring
    from daemon.app.config import load
    from daemon.research.own.folder import bounded_source
    from daemon.research.strategy_check import check as checked

    settings = load(config)
    data = settings.data_dir(data_dir)
    folder = wiring.strategy_folder(settings, data)
    path = Path(wanted)
    if path.suffix == _SUFFIX:
        strategy_id, source, file = None, bounded_source(path), path.name
    else:
        strategy_id, source, file = wanted, folder.read(wanted), f"{wanted}{_SUFFIX}"
    rehearsal = None
    if configuration is not None:
        strategy_id = strategy_id or folder.keep(path)
        rehearsal = _rehearsal(_Where(settings, data, folder), configuration, strategy_id)
    _show(checked(source, file, rehearsal, seconds=seconds), file, form)


class _Where(NamedTuple):
    """Where a check finds things."""

    settings: Config
    data: Path
    folder: StrategyFolder


def _rehearsal(where: _Where, configuration: Path, strategy_id: str) -> Rehearsal:
    """Read a configuration with this strategy in the place of its own."""
    from daemon.app import wiring
    from daemon.research.parameters import read_specification
    from daemon.research.strategy_check import Rehearsal

    config: dict[str, Any] = read_configuration(str(configuration), [])
    given = config.get("strategy")
    parameters = given.get("parameters") if isinstance(given, dict) else None
    config["strategy"] = {"own": strategy_id} | ({} if parameters is None else {"parameters": parameters})
    settings, data, folder = where
    with wiring.reader(settings, data) as store:
        book = wiring.rule_book(settings, data)
        spec = read_specification(config, store.bars, book, settings.probe.risk_profiles)
    return Rehearsal(spec, data, settings.store, folder.path)


def _show(found: Checked, file: str, form: Format) -> None:
    import msgspec

    if form is Format.JSON:
        typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return
    typer.echo(f"{file}: {found.name}, SHA-256 {found.digest[:12]}…")
    rows = [
        *(("parameter", _parameter(each)) for each in found.parameters),
        *(("column", each) for each in found.columns),
        *(("state", each) for each in found.state),
        *(("handler", _handler(found, each)) for each in found.handlers),
    ]
    if found.look_ahead is not None:
        rows.append(("look-ahead", found.look_ahead.words))
    for what, said in rows:
        typer.echo(f"  {what:<11}{said}")


def _handler(found: Checked, name: str) -> str:
    said = f"{name} every {found.every_ms:g} ms" if name == "on_timer" else name
    how = next((each for each in found.compiled if each.handler == name), None)
    if how is None:
        return said
    return f"{said}: compiled" if how.is_compiled else f"{said}: as Python, {how.why or 'it cannot be compiled'}"


def _parameter(one: Any) -> str:
    return f"{one.name}={one.default:g} ({one.low:g}:{one.high:g}:{one.step:g})"
