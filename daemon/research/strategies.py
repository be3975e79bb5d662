"""The rule book: strategies from files, validated before anything runs.

Neither numba nor TA-Lib is needed here, so a daemon that validates at start is ready at once.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta

from daemon.core import strategy as rules
from daemon.core.backtest import BacktestSpec, Own
from daemon.core.errors import Code, ConfigError, InvalidRequest, NotFound
from daemon.core.strategy import Strategy
from daemon.engine.columns import canonical
from daemon.engine.expressions import ExpressionError, parse
from daemon.research.budgets import Budget
from daemon.research.own.folder import StrategyFolder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from daemon.core.strategy import Condition

FILE_VERSION: Final = 1
STRATEGY_FOLDER: Final = "strategies"
_MAX_DEPTH: Final = 50
_RULE_LISTS: Final = ("entry_long", "entry_short", "exit_long", "exit_short")
_WORDS: Final = ("display_name", "philosophy", "tags")
_OPERANDS: Final = (
    "col", "ref", "col_a", "col_b", "value", "level_col", "ref_col", "indicator_col", "pattern_col", "width_col",
)  # fmt: skip


class StrategiesConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `[strategies]` of config.toml.

    user_file: a file of the user's own rules; empty for none. folder: of strategies written in Python; empty for
    `strategies` in the data folder. seconds, memory_mb: what one run of such a strategy may take, MiB.
    """

    user_file: str = ""
    folder: str = ""
    seconds: Annotated[float, Meta(gt=0, le=2_592_000)] = 600.0
    memory_mb: Annotated[int, Meta(ge=1, le=16_777_216)] = 2_048

    @property
    def budget(self) -> Budget:
        """What one run may take."""
        return Budget(self.seconds, self.memory_mb << 20)

    def folder_in(self, data_dir: Path) -> Path:
        """Return where strategies written in Python lie."""
        return Path(self.folder).expanduser() if self.folder else data_dir / STRATEGY_FOLDER


class _File(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    strategies: list[msgspec.Raw]


class RuleBook:
    """The strategies by id, in order of id. own: the folder of those that are written in Python, None for none."""

    def __init__(self, strategies: Iterable[Strategy], own: StrategyFolder | None = None) -> None:
        self.own = own
        self._by_id = {strategy.id: strategy for strategy in sorted(strategies, key=lambda each: each.id)}

    def __iter__(self) -> Iterator[Strategy]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def ids(self) -> list[int]:
        """All ids, ascending."""
        return list(self._by_id)

    def get(self, strategy_id: int) -> Strategy:
        """Return a strategy; NotFound INVALID_STRATEGY for an unknown id."""
        if strategy_id not in self._by_id:
            raise NotFound(
                Code.INVALID_STRATEGY,
                f"Strategy {strategy_id} not found: `atlasd strategies list` shows the {len(self)} there are",
                {"strategy_id": strategy_id},
            )
        return self._by_id[strategy_id]

    def pin(self, spec: BacktestSpec) -> None:
        """Keep the source of a specification's own strategy, if it has one; errors as of `StrategyFolder.pin`."""
        if isinstance(spec.program, Own) and self.own is not None:
            self.own.pin(spec.program)

    def of_category(self, category: str | None) -> list[Strategy]:
        """Return strategies of a category, all where it is None; InvalidRequest for an unknown one."""
        categories = sorted({strategy.category for strategy in self})
        if category is not None and category not in categories:
            raise InvalidRequest(
                Code.INVALID_REQUEST,
                f"category `{category}` is not one of {', '.join(categories)}",
                {"field": "category"},
            )
        return [strategy for strategy in self if category in (None, strategy.category)]


def load(paths: Sequence[Path], own: StrategyFolder | None = None) -> RuleBook:
    """Read and validate rule files; ids and names are unique over all of them. own: as of `RuleBook`.

    ConfigError STRATEGIES_INVALID names the file, the strategy and the field.
    """
    loaded: dict[int, tuple[Strategy, Path]] = {}
    names: dict[str, int] = {}
    for path in paths:
        for strategy in _read(path):
            if strategy.id in loaded:
                other = loaded[strategy.id][1]
                raise _invalid(path, f"strategy {strategy.id}", "id", f"is used twice (also in {other.name})")
            if strategy.name in names:
                raise _invalid(
                    path,
                    f"strategy {strategy.id}",
                    "name",
                    f"`{strategy.name}` is strategy {names[strategy.name]}'s",
                )
            loaded[strategy.id] = (strategy, path)
            names[strategy.name] = strategy.id
    return RuleBook((strategy for strategy, _ in loaded.values()), own)


def digest(strategy: Strategy) -> str:
    """Fingerprint of what a strategy computes; its words do not count."""
    fields = msgspec.to_builtins(strategy)
    for words in _WORDS:
        del fields[words]
    return hashlib.blake2b(msgspec.json.encode(fields, order="sorted"), digest_size=16).hexdigest()


def _read(path: Path) -> Iterator[Strategy]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            Code.STRATEGIES_INVALID, f"{path}: cannot be read ({error.strerror}); see strategies.user_file"
        ) from error
    try:
        file = msgspec.json.decode(content, type=_File)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ConfigError(Code.STRATEGIES_INVALID, f"{path}: {error}", {"file": str(path)}) from error
    if file.version != FILE_VERSION:
        raise _invalid(path, "the file", "version", f"is {file.version}, this release reads {FILE_VERSION}")
    for place, raw in enumerate(file.strategies):
        yield _decode(path, place, raw)


def _decode(path: Path, place: int, raw: msgspec.Raw) -> Strategy:
    try:
        strategy = msgspec.json.decode(raw, type=Strategy)
    except msgspec.MsgspecError as error:
        reason, _, where = str(error).partition(" - at `$")
        raise _invalid(path, _name(place, raw), where.rstrip("`").lstrip(".") or "", reason) from error
    who = f"strategy {strategy.id} ({strategy.name})"
    for name in strategy.required_indicators:
        if canonical(name) is None:
            raise _invalid(path, who, "required_indicators", f"unknown column `{name}`")
    for rule_list in _RULE_LISTS:
        for row, condition in enumerate(getattr(strategy, rule_list)):
            _check_operands(path, who, f"{rule_list}[{row}]", condition)
    return strategy


def _name(place: int, raw: msgspec.Raw) -> str:
    """Name a strategy that does not decode as well as it lets itself be named."""
    try:
        fields: Any = msgspec.json.decode(raw)
    except msgspec.MsgspecError:
        fields = None
    identity = fields.get("id", fields.get("name")) if isinstance(fields, dict) else None
    return f"strategy {identity}" if identity is not None else f"strategy number {place + 1}"


def _check_operands(path: Path, who: str, where: str, condition: Condition, depth: int = 0) -> None:
    if depth > _MAX_DEPTH:
        raise _invalid(path, who, where.partition(".")[0], f"nests deeper than {_MAX_DEPTH}")
    if isinstance(condition, rules.AtLeast) and condition.k > len(condition.conditions):
        raise _invalid(path, who, f"{where}.k", f"is {condition.k}, of {len(condition.conditions)} conditions")
    for name in _OPERANDS:
        operand = getattr(condition, name, None)
        if operand is None:
            continue
        try:
            parse(operand)
        except ExpressionError as error:
            raise _invalid(path, who, f"{where}.{name}", f"`{operand}`: {error}") from error
    nested = getattr(condition, "conditions", None) or [getattr(condition, "condition", None)]
    for row, inner in enumerate(nested):
        if inner is not None:
            suffix = f".conditions[{row}]" if hasattr(condition, "conditions") else ".condition"
            _check_operands(path, who, where + suffix, inner, depth + 1)


def _invalid(path: Path, who: str, field: str, reason: str) -> ConfigError:
    where = f", {field}" if field else ""
    return ConfigError(
        Code.STRATEGIES_INVALID,
        f"{path}: {who}{where}: {reason}",
        {"file": str(path), "strategy": who, "field": field},
    )
