"""What commands put together and print on a terminal.

Loaded when a command runs, so it may import what it needs.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

BULLET: Final = "\N{MIDDLE DOT}"
_WIDTH: Final = 110


def print_parts(parts: Iterable[Any]) -> None:
    """Print parts as wide as the terminal, or as a page where there is none, without blanks at the ends of lines.

    Plain strings are not wrapped: a command in them is to be copied whole.
    """
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, emoji=False, width=_WIDTH)
    with console.capture() as captured:
        for part in parts:
            console.print(part, soft_wrap=isinstance(part, str))
    for line in captured.get().splitlines():
        typer.echo(line.rstrip())


@contextmanager
def progress_bar(name: str) -> Iterator[Callable[[float, str], None]]:
    """Draw a bar on stderr while something is watched; what it yields takes how far that is, 0 to 100, and words."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[said]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=100.0, said="")
        yield lambda done, said: progress.update(task, completed=done, said=said)


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


def rows_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right_from: int) -> Table:
    """List rows under headings; columns from `right_from` on are figures, the one before them may be long."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for place, heading in enumerate(headings):
        is_long = place == right_from - 1
        table.add_column(heading.lower(), justify="right" if place >= right_from else "left", no_wrap=not is_long)
    for row in rows:
        table.add_row(*(plain_text(cell) for cell in row))
    return table


def plain_text(text: str) -> Text:
    """Write minus signs as the rest of a summary does."""
    return Text(clean(text).replace("\N{MINUS SIGN}", "-"))


def facts_table() -> Table:
    """Make a table for names beside what there is to say of them."""
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    return table
