"""The data folder that a script opens: where it is, and its store, opened once a process however often it is asked for.

A notebook runs a cell again and again, and LMDB breaks where a process opens one file twice: so markets of one folder
share its environment, which is closed with the last of them.
"""

from __future__ import annotations

import importlib
import threading
import weakref
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from daemon.core.errors import Code, ConfigError
from daemon.store.env import FILE_NAME, Environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from daemon.core.strategy import RiskProfile
    from daemon.research.budgets import Budget
    from daemon.research.strategies import RuleBook
    from daemon.store.env import StoreConfig

# Who joins the sections of config.toml knows every room, and no room knows it: so a script's way to the settings of the
# command line is a name. Whoever hands in settings of their own needs none of it.
_FINDER: Final = "daemon.app.scripting"


class Settings(NamedTuple):
    """What this room needs of a configuration.

    folder: the data folder. config: the file that was given beside the user's own. profiles: risk profiles by name.
    budget: what a run of a strategy of the user's own may take. prepare: makes sure that kernels may be cached, and
    loads the strategies.
    """

    folder: Path
    config: Path | None
    store: StoreConfig
    profiles: Mapping[str, RiskProfile]
    budget: Budget
    prepare: Callable[[], RuleBook]


def find_settings(folder: Path | None, config: Path | None) -> Settings:
    """Find what the command line finds. folder, config: as `--data-dir` and `--config`; ConfigError CONFIG_INVALID."""
    return cast("Settings", importlib.import_module(_FINDER).settings(folder, config))


class _Shared:
    """An open environment, and how many use it."""

    def __init__(self, env: Environment) -> None:
        self.env = env
        self.users = 0


_open: dict[Path, _Shared] = {}
_guard = threading.RLock()  # what is collected while it is held may end a lease


class Lease:
    """A part in an open store, for as long as it lives or until `end`; the last one closes the store."""

    def __init__(self, folder: Path, shared: _Shared) -> None:
        self.env = shared.env
        self._folder = folder
        self._shared = shared
        shared.users += 1
        self._end = weakref.finalize(self, _leave, folder, shared)

    @property
    def is_open(self) -> bool:
        """Whether it was not ended."""
        return self._end.alive

    def another(self) -> Lease:
        """Take another part, for rows that are read later: they may outlive the market that they come from."""
        with _guard:
            return Lease(self._folder, self._shared)

    def end(self) -> None:
        """Give the part back; ending twice is no error."""
        self._end()


def lease(settings: Settings) -> Lease:
    """Open a folder's store to read, or join those that have; ConfigError STORE_UNUSABLE where there is none."""
    folder = settings.folder.expanduser().resolve()
    with _guard:
        if folder not in _open:
            if not (folder / FILE_NAME).is_file():
                raise ConfigError(
                    Code.STORE_UNUSABLE,
                    f"there is no store in {folder}: `atlasd import` makes one, or name the folder that has yours",
                )
            _open[folder] = _Shared(Environment(folder, settings.store, readonly=True))
        return Lease(folder, _open[folder])


def _leave(folder: Path, shared: _Shared) -> None:
    with _guard:
        shared.users -= 1
        if shared.users == 0:
            del _open[folder]
            shared.env.close()
