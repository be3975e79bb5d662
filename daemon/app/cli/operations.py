"""`atlasd status`, `doctor`, `logs`, `secret`: how the daemon is, why it is not, and what venues want to know."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from daemon.app.cli.options import ConfigFile, DataDir, Format, Listing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daemon.api.health import Health
    from daemon.api.messages import FeedStatus

secret = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

_MIB = 1 << 20


class Level(StrEnum):
    """Levels of the log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("status")(status)
    app.command("doctor")(doctor)
    app.command("logs")(logs)
    app.add_typer(secret, name="secret", help="Keys of venues, in the system's keychain.")


@secret.callback()
def _secret() -> None:
    """Keys of venues, in the system's keychain."""


def status(
    form: Annotated[Format, typer.Option("--format", help="How to print it.")] = Format.TABLE,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Tell how the running daemon is: its parts, memory, jobs, feeds. Exit code 1 where none runs, or it has failed."""
    import msgspec

    from daemon.app import client
    from daemon.app.cli.output import emit
    from daemon.app.config import load

    folder = load(config).data_dir(data_dir)
    ready = client.running(folder)
    health, feeds = client.health(ready, folder), client.feeds(ready, folder)
    if form is Format.JSON:
        told = msgspec.to_builtins(health) | {
            "url": ready.url,
            "pid": ready.pid,
            "data_dir": str(folder),
            "feeds": msgspec.to_builtins(feeds),
        }
        typer.echo(msgspec.json.format(msgspec.json.encode(told), indent=2).decode())
    else:
        rows = [
            (
                "daemon",
                health.status,
                f"release {health.version} at {ready.url}, process {ready.pid}, data in {folder}",
            ),
            *_rows(health, feeds),
        ]
        emit({"what": [r[0] for r in rows], "status": [r[1] for r in rows], "how": [r[2] for r in rows]}, form)
    if health.status == "failed":
        raise typer.Exit(1)


def _rows(health: Health, feeds: Iterable[FeedStatus]) -> list[tuple[str, str, str]]:
    rows = [
        ("uptime", "", _span(health.uptime_seconds)),
        ("memory", "", f"{health.memory_bytes // _MIB:,} MiB in all processes"),
    ]
    rows += [
        (f"{kind} jobs", "", f"{each.running} running, {each.queued} queued") for kind, each in health.jobs.items()
    ]
    for name, part in health.components.items():
        why = ": ".join(each for each in (part.why, part.remedy) if each)
        figures = ", ".join(_figure(*each) for each in part.figures.items())
        rows.append((name.replace("_", " "), part.status, why or figures))
    for feed in feeds:
        stored = ", ".join(f"{count:,} {stream}" for stream, count in feed.rows.items()) or "no rows yet"
        trouble = f", last error: {feed.last_error}" if feed.last_error else ""
        state = "connected" if feed.connected else "down"
        rows.append((f"feed {feed.name}", state, f"{stored}, {feed.reconnects} reconnects{trouble}"))
    return rows


def _figure(name: str, value: float) -> str:
    words, _, unit = name.rpartition("_")
    if unit == "bytes":
        return f"{words.replace('_', ' ')} {value / _MIB:,.1f} MiB"
    return f"{words.replace('_', ' ')} {value:,.1f} ms" if unit == "ms" else f"{name} {value:,.10g}"


def _span(seconds: int) -> str:
    days, rest = divmod(seconds, 86_400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days} d {clock}" if days else clock


def doctor(
    form: Annotated[Format, typer.Option("--format", help="How to print the findings.")] = Format.TABLE,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Look at everything that a daemon needs, and say what to do. Exit code 1 where something would not work."""
    from daemon.app import doctor as examination
    from daemon.app.cli.output import emit
    from daemon.app.config import load

    findings = examination.examine(data_dir, lambda: load(config))
    columns = {
        "check": [each.check for each in findings],
        "status": [str(each.status) for each in findings],
        "found": [each.found for each in findings],
        "remedy": [each.remedy for each in findings],
    }
    if form is Format.TABLE:
        for each in findings:
            typer.echo(f"{each.status:<5}{each.check:<14}{each.found}")
            if each.remedy and each.status != "ok":
                typer.echo(f"{'':<19}-> {each.remedy}")
    else:
        emit(columns, form)
    if any(each.status == "fail" for each in findings):
        raise typer.Exit(1)


def logs(
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what is written, until Ctrl-C.")] = False,  # noqa: FBT002
    level: Annotated[Level, typer.Option(help="This level and above.")] = Level.DEBUG,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, max=1_000_000, help="How many of the last.")] = 50,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Print the daemon's log in readable lines, rotated files included."""
    from daemon.app.config import load
    from daemon.app.log_lines import Log, readable
    from daemon.app.logs import FOLDER

    with Log(load(config).data_dir(data_dir) / FOLDER, level) as log:
        for line in log.last(lines):
            typer.echo(readable(line))
        if follow:
            try:
                for line in log.follow():
                    typer.echo(readable(line))
            except KeyboardInterrupt:
                return  # the way to end it


Name = Annotated[str, typer.Argument(help="As its key in config.toml: binance.api_key.")]


@secret.command("set")
def set_secret(name: Name) -> None:
    """Put a secret into the system's keychain: asked for, or read from stdin, since others can see arguments."""
    import sys

    from daemon.app import keychain
    from daemon.app.config import Config

    if sys.stdin.isatty():
        value = typer.prompt(f"{name}", hide_input=True)
    else:
        value = sys.stdin.read(_MIB).removesuffix("\n").removesuffix("\r")
    keychain.store(name, value, keychain.names(Config))
    typer.echo(f"{name} is in the keychain; a running daemon takes it at its next start")


@secret.command("list")
def list_secrets(form: Listing = Format.TABLE, config: ConfigFile = None) -> None:
    """List the secrets there may be, and whether the environment or the keychain has them; never what they are."""
    from daemon.app import keychain
    from daemon.app.cli.output import emit
    from daemon.app.config import load

    held = keychain.held(load(config))
    emit(
        {
            "secret": [each.name for each in held],
            "source": [each.source or "not set" for each in held],
            "variable": [each.variable for each in held],
        },
        form,
    )


@secret.command("delete")
def delete_secret(name: Name) -> None:
    """Take a secret out of the system's keychain."""
    from daemon.app import keychain
    from daemon.app.config import Config

    keychain.delete(name, keychain.names(Config))
    typer.echo(f"{name} is no longer in the keychain")
