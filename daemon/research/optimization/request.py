"""What to optimise: read, checked and bounded before anything is queued."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import msgspec

from daemon.core.backtest import BacktestSpec, OrderList, Target
from daemon.core.errors import Code, InvalidRequest
from daemon.research.optimization.result import Method
from daemon.research.parameters import EXITS, Space, defaults, grid_size, read_specification
from daemon.research.ranges import Range, read_assignment, read_range

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daemon.core.strategy import RiskProfile
    from daemon.research.strategies import RuleBook
    from daemon.store.bars import BarStore

MOST_POINTS: Final = 100_000
"""Points of one optimisation. Whoever tries more finds something in any noise; none could be told from luck."""

MOST_LEARNED: Final = 2_000
"""Points of optuna: each takes longer to propose the more there are before it."""

USUAL_BUDGET: Final = 100
"""Points of a method that samples, where nobody says."""

_MOST_SEED: Final = 1 << 32


class OptimizationRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a user asks for.

    config: as of a backtest. parameters: by name a range as `read_range` reads it, or texts `name=range`; without any
    those that are usual for the configuration. budget: the most points to try, None for the whole grid or
    USUAL_BUDGET. seed: of what is drawn.
    """

    config: dict[str, Any]
    parameters: dict[str, Any] | list[str] = {}
    target: str = "sharpe"
    method: str = "grid"
    budget: int | None = None
    seed: int = 1
    priority: Literal["low", "normal", "high"] = "normal"
    name: str | None = None
    id: str | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it was understood. points: to be tried at the most."""

    config: dict[str, Any]
    spec: BacktestSpec
    ranges: tuple[Range, ...]
    target: Target
    method: Method
    points: int
    seed: int


def planned(request: OptimizationRequest, bars: BarStore, book: RuleBook, profiles: Mapping[str, RiskProfile]) -> Plan:
    """Check a request.

    InvalidRequest INVALID_PARAMETER for a range, a target, a method or a budget that is none; otherwise as
    `read_specification` says.
    """
    spec = read_specification(request.config, bars, book, profiles)
    if request.name is not None:
        spec = msgspec.structs.replace(spec, name=request.name)
    if request.target not in get_args(Target):
        raise _invalid("target", f"`{request.target[:40]}` is not one of {', '.join(get_args(Target))}")
    if request.method not in get_args(Method):
        raise _invalid("method", f"`{request.method[:40]}` is not one of {', '.join(get_args(Method))}")
    if not 0 <= request.seed < _MOST_SEED:
        raise _invalid("seed", f"{request.seed} is not between 0 and {_MOST_SEED - 1:,}")
    if isinstance(spec.program, OrderList):
        raise _invalid("config", "a list of orders has nothing to choose: give a strategy with rules")
    ranges = _ranges(request.parameters) or defaults(spec, book.own)
    if not ranges:
        raise _invalid("parameters", "this configuration has no usual ones: give at least one, such as timeout=5,10,20")
    Space(request.config, spec, bars, book, profiles).check(ranges)
    return Plan(
        config=request.config,
        spec=spec,
        # Exits change fastest, last: what varies neither rules nor lengths shares their indicators.
        ranges=tuple(sorted(ranges, key=lambda each: each.name in EXITS)),
        target=msgspec.convert(request.target, Target),
        method=msgspec.convert(request.method, Method),
        points=_points(request, ranges),
        seed=request.seed,
    )


def _ranges(given: dict[str, Any] | list[str]) -> list[Range]:
    if isinstance(given, list):
        return [read_assignment(each) for each in given]
    return [read_range(name, written) for name, written in given.items()]


def _points(request: OptimizationRequest, ranges: Sequence[Range]) -> int:
    budget = request.budget
    if budget is not None and not 1 <= budget <= MOST_POINTS:
        why = "at least 1" if budget < 1 else f"at most {MOST_POINTS:,}: more tries find something in any noise"
        raise _invalid("budget", f"{budget:,} points: take {why}")
    is_listed = not any(each.is_continuous for each in ranges)
    if request.method == "optuna" and budget is not None and budget > MOST_LEARNED:
        raise _invalid("budget", f"{budget:,} points: optuna proposes at most {MOST_LEARNED:,}; take random or a grid")
    if request.method != "grid":
        wanted = USUAL_BUDGET if budget is None else budget
        return min(wanted, grid_size(ranges)) if is_listed else wanted
    without_step = next((each.name for each in ranges if each.is_continuous), None)
    if without_step is not None:
        raise _invalid(without_step, "has no step, and a grid needs one: LOW:HIGH:STEP, or another method")
    size, most = grid_size(ranges), MOST_POINTS if budget is None else budget
    if size > most:
        allowed = f"the budget of {most:,}" if budget is not None else f"the {most:,} of an optimisation"
        raise _invalid("budget", f"the grid has {size:,} points, more than {allowed}: take fewer values, or sample it "
                       "with method random or optuna")  # fmt: skip
    return size


def _invalid(field: str, why: str) -> InvalidRequest:
    return InvalidRequest(Code.INVALID_PARAMETER, f"{field}: {why}", {"field": field})
