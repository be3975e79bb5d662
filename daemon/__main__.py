"""Entry point of `atlasd` and `python -m daemon`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    from daemon.app.cli.main import run

    sys.exit(run())


if __name__ == "__main__":
    main()
