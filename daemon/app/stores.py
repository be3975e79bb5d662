"""An open store and its rooms, as commands and the daemon's parts get it."""

from __future__ import annotations

from typing import NamedTuple

from daemon.store.bars import BarStore
from daemon.store.env import Environment
from daemon.store.ticks import TickStore


class Store(NamedTuple):
    """An open store to read from."""

    env: Environment
    bars: BarStore
    ticks: TickStore


def open_store(env: Environment) -> Store:
    """Give an environment its rooms."""
    bars = BarStore(env)
    return Store(env, bars, bars.ticks)
