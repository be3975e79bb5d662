"""Atlas daemon: strategy probe, market memory and backtests beside a trading app.

Kernels compile once into a per-user directory. Numba reads `NUMBA_CACHE_DIR` when it is first imported, so it is
set here, before any room can import it: a cache beside installed sources may be read-only, and a frozen app has
no sources at all.
"""

import os
from pathlib import Path

import platformdirs

__version__ = "0.1.0"

KERNEL_CACHE = Path(
    os.environ.setdefault(
        "NUMBA_CACHE_DIR",
        str(Path(platformdirs.user_cache_dir("atlasd", appauthor=False)) / "kernels" / __version__),
    )
)
