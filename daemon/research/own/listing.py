"""What lies in the strategy folder, for lists: ids and what their files declare, without running any of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from daemon.core.errors import AtlasError
from daemon.research.own.declaring import declared

if TYPE_CHECKING:
    from daemon.research.own.folder import StrategyFolder


class OwnParameter(msgspec.Struct, frozen=True):
    """A number that a run may set between low and high; an optimisation varies it in steps."""

    name: str
    default: float
    low: float
    high: float
    step: float


class OwnHead(msgspec.Struct, frozen=True):
    """A strategy of the folder. summary: its class's first sentence. error: why it cannot be run, null where it can."""

    id: str
    name: str | None
    summary: str
    parameters: list[OwnParameter]
    columns: list[str]
    handlers: list[str]
    error: str | None


def listed(folder: StrategyFolder, *, given: bool = False) -> list[OwnHead]:
    """List the user's own files. given: what is kept in `given/` instead. Errors as of `StrategyFolder`."""
    return [head_of(each, folder) for each in (folder.given() if given else folder.ids())]


def head_of(strategy_id: str, folder: StrategyFolder) -> OwnHead:
    """Say what a file declares."""
    try:
        said = declared(folder.read(strategy_id), f"{strategy_id}.py")
    except AtlasError as error:
        return OwnHead(strategy_id, None, "", [], [], [], error.message)
    return OwnHead(
        id=strategy_id,
        name=said.name,
        summary=said.summary,
        parameters=[OwnParameter(name, *each) for name, each in said.parameters.items()],
        columns=sorted(set(said.columns.values())),
        handlers=list(said.handlers),
        error=None,
    )
