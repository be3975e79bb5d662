"""Entry point of `atlasd` and `python -m daemon`."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from daemon.app.cli.main import run

    run()


if __name__ == "__main__":
    main()
