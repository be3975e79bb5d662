"""The command tree, and the one place where failures become exit codes.

0 success, 1 failure, 2 wrong use; messages on stderr. A reader that closes the pipe (`| head`) ends a command quietly.
"""

from __future__ import annotations

import os
import sys

import click
import typer

from daemon.app.cli import data, probe, service

app = typer.Typer(
    name="atlasd",
    help="Local trading research: probe strategies over exact market data.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(data.importing, name="import", help="Bring files into the store.")
app.add_typer(data.stored, name="data", help="Look at what is stored.")
probe.register(app)
service.register(app)


def _version(show: bool) -> None:  # noqa: FBT001 - typer's callback protocol
    if show:
        import daemon

        typer.echo(f"atlasd {daemon.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),  # noqa: FBT001, FBT003
) -> None:
    """Local trading research: probe strategies over exact market data."""


def run() -> int:
    """Run the command line and return its exit code."""
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout once more at exit; give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (click.exceptions.Abort, KeyboardInterrupt):
        typer.echo("interrupted", err=True)
        return 1
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except Exception as error:
        from daemon.core.errors import AtlasError, InvalidRequest

        if not isinstance(error, AtlasError):
            raise
        typer.echo(f"error: {error.message} [{error.code}]", err=True)
        return 2 if isinstance(error, InvalidRequest) else 1
    return code if isinstance(code, int) else 0
