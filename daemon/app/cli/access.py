"""`atlasd token`, `atlasd open`: ways in for the app, a script and a browser."""

from __future__ import annotations

from typing import Annotated

import typer

from daemon.app.cli.options import ConfigFile, DataDir


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("token")(token)
    app.command("open")(open_console)


def token(
    rotate: Annotated[bool, typer.Option("--rotate", help="Make a new one; what uses the old one is cut off.")] = False,  # noqa: FBT002
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Print the token that the daemon wants to be shown; make it where there is none yet."""
    from daemon.app.config import load
    from daemon.app.tokens import TokenFile

    folder = load(config).data_dir(data_dir)
    if rotate:
        from daemon.app import entry

        typer.echo(entry.rotate(folder))
    else:
        typer.echo(TokenFile(folder).ensure())


def open_console(
    print_path: Annotated[bool, typer.Option("--print", help="Only print the file that leads there.")] = False,  # noqa: FBT002
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Open the console of the running daemon in the browser."""
    import webbrowser

    from daemon.app.config import load
    from daemon.app.entry import console_file

    path = console_file(load(config).data_dir(data_dir))
    if print_path or not webbrowser.open(path.as_uri()):
        typer.echo(path)
