"""What commands put together and print on a terminal.

Loaded when a command runs, so it may import what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable

BULLET: Final = "\N{MIDDLE DOT}"
_WIDTH: Final = 110


def print_parts(parts: Iterable[Any]) -> None:
    """Print parts as wide as the terminal, or as a page where there is none, without blanks at the ends of lines."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, emoji=False, width=_WIDTH)
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    for line in captured.get().splitlines():
        typer.echo(line.rstrip())


def inset(part: Any) -> Padding:
    """Move a part to the right."""
    return Padding(part, (0, 0, 0, 2))


def bullets(sentences: Iterable[str]) -> Table:
    """List sentences."""
    table = Table.grid(padding=(0, 1, 0, 0))
    for each in sentences:
        table.add_row(BULLET, Text(clean(each)))
    return table


def clean(text: str) -> str:
    """Leave out what could steer a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
