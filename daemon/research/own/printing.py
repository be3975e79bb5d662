"""What a strategy prints: beside the results, never among them."""

from __future__ import annotations

import io
import os
import sys
from typing import Final

_OUT: Final = 1
_ERR: Final = 2


def print_aside() -> None:
    """Have this process print to standard error, a line at a time: results of its parent go to standard output.

    By the line, for a worker may be killed, or end without the interpreter's own end.
    """
    os.dup2(_ERR, _OUT)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
