"""Files that ship with the program: inside the installed package first, beside it in a checkout second."""

from __future__ import annotations

from pathlib import Path

import daemon
from daemon.core.errors import Code, ConfigError


def resource(name: str) -> Path:
    """Return the path of a shipped file; ConfigError where the installation lacks it."""
    package = Path(daemon.__file__).parent
    for candidate in (package / name, package.parent / name):
        if candidate.is_file():
            return candidate
    raise ConfigError(Code.CONFIG_INVALID, f"{name} is missing from the installation: install atlas-daemon again")
