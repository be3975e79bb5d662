"""Atlas daemon: strategy probe, market memory and backtests beside a trading app.

Kernels compile once into a per-user directory. Numba reads `NUMBA_CACHE_DIR` when it is first imported, so it is
set here, before any room can import it: a cache beside installed sources may be read-only, and a frozen app has
no sources at all. A kernel holds the code of those it calls, and Numba looks at its own file alone: so the directory
is one of the version and of all sources that hold kernels.
"""

import os
import zlib
from pathlib import Path

import platformdirs

__version__ = "0.1.0"


def _kernel_sources() -> str:
    """Return a checksum of every file that may hold kernels; of none in a frozen app, which never changes."""
    checksum = 0
    for room in ("engine", "store"):
        for source in sorted((Path(__file__).parent / room).glob("*.py")):
            checksum = zlib.crc32(source.read_bytes(), checksum)
    return f"{checksum:08x}"


KERNEL_CACHE = Path(
    os.environ.setdefault(
        "NUMBA_CACHE_DIR",
        str(
            Path(platformdirs.user_cache_dir("atlasd", appauthor=False))
            / "kernels"
            / f"{__version__}-{_kernel_sources()}"
        ),
    )
)
