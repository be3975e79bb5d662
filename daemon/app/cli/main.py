"""The command tree, and the one place where failures become exit codes.

0 success, 1 failure, 2 wrong use; messages on stderr. A reader that closes the pipe (`| head`) ends a command quietly.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from daemon.app.cli import (
    access,
    backtest,
    calibrate,
    data,
    export,
    live,
    montecarlo,
    operations,
    optimize,
    probe,
    service,
    strategy,
    trials,
    watch,
)

if TYPE_CHECKING:
    from daemon.core.errors import AtlasError


class _Root(TyperGroup):
    """The whole tree; wrong use is typer's to report (exit code 2), everything else is reported here."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # Python flushes stdout once more at exit; give it somewhere to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(1) from None
        except Exception as error:
            from daemon.core.errors import AtlasError, Code, InvalidRequest

            if isinstance(error, AtlasError):
                message, code = error.message, error.code
                _print_traceback(error)
            elif isinstance(error, OSError):
                # The store, the server and output files translate theirs; left are stdout and the data folder.
                message = f"{error.filename or 'the output'}: {error.strerror}"
                code = Code.STORE_UNUSABLE if error.filename else Code.OUTPUT_UNWRITABLE
            else:
                raise
            typer.echo(f"error: {message} [{code}]", err=True)
            raise typer.Exit(2 if isinstance(error, InvalidRequest) else 1) from None
        return result


def _print_traceback(error: AtlasError) -> None:
    """Print the lines of a strategy's own file that led to its exception."""
    lines = (error.details or {}).get("traceback")
    if isinstance(lines, list):
        from daemon.app.cli.printing import clean

        for line in lines:
            typer.echo(f"  {clean(line)}", err=True)


app = typer.Typer(
    name="atlasd",
    cls=_Root,
    help="Local trading research: probe strategies over exact market data.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(data.importing, name="import", help="Bring files into the store.")
app.add_typer(data.stored, name="data", help="Look at what is stored.")
live.register(app)
probe.register(app)
backtest.register(app)
watch.register(app)
calibrate.register(app)
montecarlo.register(app)
optimize.register(app)
trials.register(app)
strategy.register(app)
export.register(app)
service.register(app)
access.register(app)
operations.register(app)


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


def run() -> None:
    """Run the command line; ends the process with its exit code."""
    app()
