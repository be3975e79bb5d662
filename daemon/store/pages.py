"""Ask for mapped pages, and let go of them: LMDB reads through a map of its file.

A scan asks for what comes next while it decodes what is there; otherwise it waits for the disk a few pages at a time.
What was once read counts as memory of the process until it is given back.

The system would take such pages back when it needs them. But a scan of a hundred gigabytes would look like a hundred
gigabytes of memory until it does, to the user and to whatever limits the process. Giving them back costs a millisecond
for each 64 MiB; the next reader finds them in the system's cache.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

_WILLNEED: Final = 3
_AHEAD_BYTES: Final = 4 << 20
_DONTNEED: Final = 4  # MADV_DONTNEED of Linux; on a shared map of a file it drops the mapping, never content


class MappedPages:
    """The pages of one file that this process has mapped and touched; counted by who reads."""

    def __init__(self, path: Path, limit_bytes: int = 64 << 20) -> None:
        self._path = str(path.resolve())
        self._limit = limit_bytes
        self._touched = 0
        self._asked = range(0)
        self._libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    def touched(self, size: int) -> None:
        """Count bytes that were read; gives all pages back once there are enough of them."""
        self._touched += size
        if self._touched >= self._limit and self._libc is not None:
            self._touched = 0
            for start, length in self._maps():
                self._libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _DONTNEED)

    def prefetch(self, view: memoryview) -> None:
        """Ask for a value's pages and those behind it, unless that was just done."""
        if self._libc is None:
            return
        start = np.frombuffer(view, dtype=np.uint8).ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
        if start in self._asked and start + len(view) in self._asked:
            return
        self._asked = range(start, start + max(_AHEAD_BYTES, len(view) + mmap.PAGESIZE))
        self._libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(len(self._asked)), _WILLNEED)

    def _maps(self) -> list[tuple[int, int]]:
        found = []
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:  # noqa: PTH123 - no file
            for line in maps:
                if line.rstrip("\n").endswith(self._path):
                    start, _, stop = line.split(" ", 1)[0].partition("-")
                    found.append((int(start, 16), int(stop, 16) - int(start, 16)))
        return found
