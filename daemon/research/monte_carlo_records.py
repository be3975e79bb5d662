"""Monte Carlo simulations as they are asked for, handed to workers and stored; `monte_carlos` has them drawn."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from daemon.core.errors import Code, InvalidRequest
from daemon.research.validation_result import MonteCarloResult

MOST_RUNS: Final = 1_000_000


class MonteCarloRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename="camel"):
    """What to simulate. block: mean length of the bootstrap's blocks, None for the one that the trades ask for."""

    backtest_id: str
    runs: Annotated[int, Meta(ge=1, le=MOST_RUNS)] = 1_000
    seed: Annotated[int, Meta(ge=0, lt=1 << 53)] = 1
    block: Annotated[float, Meta(ge=1, le=1e9)] | None = None
    confidence_level: Annotated[float, Meta(gt=0, lt=1)] = 0.95


class MonteCarloJob(msgspec.Struct, frozen=True):
    """A simulation as a worker gets it. initial: capital of the backtest."""

    request: MonteCarloRequest
    initial: float

    @property
    def backtest_id(self) -> str:
        """Whose trades are drawn."""
        return self.request.backtest_id


class Simulation(MonteCarloResult, frozen=True, kw_only=True):
    """A simulation by itself. id: of the backtest. note: why it says little, None where there are trades enough."""

    id: str
    note: str | None = None


class StoredSimulation(msgspec.Struct, frozen=True):
    """The simulation that was asked for last, and what was asked."""

    request: MonteCarloRequest
    result: Simulation


def request_of(fields: Any) -> MonteCarloRequest:
    """Read a request; numbers may be written as texts. InvalidRequest INVALID_REQUEST names the field."""
    try:
        return msgspec.convert(fields, MonteCarloRequest, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest(Code.INVALID_REQUEST, str(error)) from None
