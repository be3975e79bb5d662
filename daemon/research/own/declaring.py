"""What a strategy's file declares, read from its text without running it.

The daemon must know parameters, columns and handlers before a job runs: to check a configuration, for every point of an
optimisation, for lists. It never runs a trader's code itself, and a worker's answer to each such question would cost a
process's round trip; so declarations are literals, which `ast` reads. `loading` runs the file, in a worker, and refuses
one that turns out to be something else than its text says.
"""

from __future__ import annotations

import ast
import difflib
import functools
import math
import re
from typing import Final, NamedTuple, TypeAlias

from daemon.core.errors import Code, InvalidRequest
from daemon.engine.columns import NAMES, canonical

HANDLERS: Final[dict[str, tuple[str, ...]]] = {
    "on_bar": ("self", "context", "bar"),
    "on_trade": ("self", "context", "trade"),
    "on_book": ("self", "context"),
    "on_fill": ("self", "context", "fill"),
    "on_timer": ("self", "context"),
}
"""Handlers and what they are called with, in the order of `engine.own.Handler`."""

EVERY_MS: Final = "every_ms"
INSIDES: Final = (
    "account", "symbols", "orders", "books", "sizes", "requests", "event", "values", "columns",
)  # fmt: skip
"""What a context is made of: arrays of the whole run, bars to come among them, which are no strategy's to read."""

MOST_STEPS: Final = 1_000_000

_MODULES: Final = ("daemon.research", "daemon.engine.context")
_WORDS: Final = ("Strategy", "Parameter", "Column")
_FOLDED: Final = {name.replace("_", "") for name in HANDLERS}
_EVENT: Final = re.compile(r"[oO]n(_|[A-Z]).*")
_PARAMETER_FORM: Final = "Parameter(2.0, low=1.0, high=8.0, step=0.5)"

_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


class DeclaredParameter(NamedTuple):
    """A number that a run may set: between low and high, in steps where an optimisation varies it."""

    default: float
    low: float
    high: float
    step: float


class Declared(NamedTuple):
    """What a file says of its strategy. columns: the engine's names, by attribute. lines: of class attributes."""

    name: str
    summary: str
    line: int
    parameters: dict[str, DeclaredParameter]
    columns: dict[str, str]
    handlers: tuple[str, ...]
    lines: dict[str, int]


@functools.lru_cache(maxsize=64)
def declared(source: bytes, file: str) -> Declared:
    """Read a file's declarations. file: its name, for messages. What is returned is shared: it is not changed.

    InvalidRequest STRATEGY_INVALID with file and line for what does not parse, has no strategy or two, and for
    parameters, columns and handlers that are none.
    """
    try:
        tree = ast.parse(source, file)
    except SyntaxError as error:
        raise invalid(file, error.lineno, f"does not parse: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise invalid(file, None, f"does not parse: {error or type(error).__name__}") from None
    names = _Names(tree)
    return _Reader(file, names).read(_the_class(tree, names, file))


def invalid(file: str, line: int | None, why: str) -> InvalidRequest:
    """Refuse a file. line: None where no line is to blame."""
    where = f"{file}, line {line}" if line else file
    return InvalidRequest(Code.STRATEGY_INVALID, f"{where}: {why}", {"file": file, "line": line})


class _Names:
    """What the words of a strategy are called in a file: it may import them under other names."""

    def __init__(self, tree: ast.Module) -> None:
        self._words: dict[str, str] = {}
        self._modules: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in _MODULES:
                for each in node.names:
                    taken = _WORDS if each.name == "*" else [each.name] if each.name in _WORDS else []
                    self._words |= {(each.asname or word) if each.name != "*" else word: word for word in taken}
            elif isinstance(node, ast.ImportFrom) and node.module in ("daemon", "daemon.engine"):
                for each in node.names:
                    if f"{node.module}.{each.name}" in _MODULES:
                        self._modules[each.asname or each.name] = each.name
            elif isinstance(node, ast.Import):
                for each in node.names:
                    if each.name in _MODULES:
                        self._modules[each.asname or each.name] = each.name

    def meaning(self, node: ast.expr) -> str | None:
        """Return which word an expression stands for, None for another."""
        if isinstance(node, ast.Name):
            return self._words.get(node.id)
        if isinstance(node, ast.Attribute) and node.attr in _WORDS and ast.unparse(node.value) in self._modules:
            return node.attr
        return None

    def is_call(self, node: ast.AST | None, *words: str) -> bool:
        """Tell whether an expression makes one of some words."""
        return isinstance(node, ast.Call) and self.meaning(node.func) in words


def _the_class(tree: ast.Module, names: _Names, file: str) -> ast.ClassDef:
    """Find the one class that derives from Strategy."""
    found: dict[str, ast.ClassDef] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any(
            names.meaning(base) == "Strategy" or (isinstance(base, ast.Name) and base.id in found)
            for base in node.bases
        ):
            found[node.name] = node
    if len(found) > 1:
        first, second = list(found.values())[:2]
        why = f"a second strategy, {second.name}, after {first.name}: a file has one class that derives from Strategy"
        raise invalid(file, second.lineno, why)
    if found:
        return next(iter(found.values()))
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    hidden = next((node for node in classes if any(names.meaning(base) == "Strategy" for base in node.bases)), None)
    if hidden is not None:
        raise invalid(file, hidden.lineno, f"{hidden.name} stands inside of something else: put it at the file's top")
    meant = next((node for node in classes if any(ast.unparse(base) == "Strategy" for base in node.bases)), None)
    if meant is not None:
        why = f"{meant.name} derives from a Strategy that is not imported: write `from daemon.research import Strategy`"
        raise invalid(file, meant.lineno, why)
    raise invalid(
        file, None, "has no class that derives from Strategy: write `from daemon.research import Strategy` and "
        "`class MyStrategy(Strategy):` with a handler such as `def on_bar(self, context, bar):`"
    )  # fmt: skip


class _Reader:
    """Reads the body of the class."""

    def __init__(self, file: str, names: _Names) -> None:
        self._file = file
        self._names = names
        self._parameters: dict[str, DeclaredParameter] = {}
        self._columns: dict[str, str] = {}
        self._handlers: list[str] = []
        self._lines: dict[str, int] = {}

    def read(self, made: ast.ClassDef) -> Declared:
        read = set()
        for statement in made.body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                self._function(statement)
            elif isinstance(statement, ast.Assign | ast.AnnAssign) and (name := _target(statement)) is not None:
                read.add(statement.value)
                self._attribute(name, statement)
        for node in ast.walk(made):
            if self._names.is_call(node, "Parameter", "Column") and node not in read:
                raise self._invalid(node, f"is not plainly declared: write `NAME = {ast.unparse(node)}` in the class")
        self._check_insides(made)
        if not self._handlers:
            why = f"{made.name} is never called: give it at least one of {', '.join(HANDLERS)}"
            raise self._invalid(made, why)
        return Declared(
            name=made.name,
            summary=(ast.get_docstring(made) or "").partition("\n")[0],
            line=made.lineno,
            parameters=self._parameters,
            columns=self._columns,
            handlers=tuple(name for name in HANDLERS if name in self._handlers),
            lines=self._lines,
        )

    # Attributes.

    def _attribute(self, name: str, statement: ast.Assign | ast.AnnAssign) -> None:
        value = statement.value
        if value is None:
            raise self._invalid(statement, f"{name} has no value: state begins with one, such as `{name} = 0.0`")
        declares = self._names.is_call(value, "Parameter", "Column")
        if declares and (name in (*HANDLERS, EVERY_MS) or name.startswith("_")):
            raise self._invalid(statement, f"{name} cannot be a parameter or column: choose another name")
        if name in self._lines and (declares or name in self._parameters or name in self._columns):
            raise self._invalid(statement, f"{name} is declared a second time, first on line {self._lines[name]}")
        self._lines[name] = statement.lineno
        if isinstance(value, ast.Call) and declares:
            if self._names.is_call(value, "Parameter"):
                self._parameters[name] = self._parameter(name, value)
            else:
                self._columns[name] = self._column(name, value)

    def _parameter(self, name: str, call: ast.Call) -> DeclaredParameter:
        fields = DeclaredParameter._fields
        given: dict[str, ast.expr] = {str(each.arg): each.value for each in call.keywords}
        if call.args:
            given.setdefault("default", call.args[0])
        missing = [field for field in fields if field not in given]
        if len(call.args) > 1 or missing or set(given) - set(fields):
            raise self._invalid(call, f"parameter {name} is not written as `{name} = {_PARAMETER_FORM}`")
        numbers = {field: _number(given[field]) for field in fields}
        unread = next((field for field in fields if numbers[field] is None), None)
        if unread is not None:
            raise self._invalid(
                call,
                f"{unread} of parameter {name} is `{ast.unparse(given[unread])}`: write the number itself, it is read "
                "without running the file",
            )
        made = DeclaredParameter(*(number for number in numbers.values() if number is not None))
        if not all(map(math.isfinite, made)):
            raise self._invalid(call, f"parameter {name} has a number that is not finite")
        if not (made.low <= made.default <= made.high and made.step > 0):
            raise self._invalid(
                call,
                f"parameter {name} is {made.default:g} from {made.low:g} to {made.high:g} in steps of {made.step:g}: "
                "low <= default <= high, and a step above 0",
            )
        if (made.high - made.low) / made.step > MOST_STEPS:
            raise self._invalid(call, f"parameter {name} has more than {MOST_STEPS:,} steps: take a larger one")
        return made

    def _column(self, name: str, call: ast.Call) -> str:
        given = [*call.args, *(each.value for each in call.keywords)]
        written = given[0].value if len(given) == 1 and isinstance(given[0], ast.Constant) else None
        if not isinstance(written, str):
            raise self._invalid(call, f'column {name} is not written as `{name} = Column("rsi_14")`')
        known = canonical(written)
        if known is None:
            raise self._invalid(call, f"there is no column `{written[:60]}`{_near(written, sorted(NAMES))}")
        return known

    # Handlers.

    def _function(self, function: _Function) -> None:
        name = function.name
        if name == "__init__":
            why = "a strategy has no __init__: its state is class attributes, such as `inventory = 0.0`"
            raise self._invalid(function, why)
        if name not in HANDLERS:
            if _EVENT.fullmatch(name) or name.lower().replace("_", "") in _FOLDED:
                raise self._invalid(function, f"{name} is no handler{_near(name, list(HANDLERS))}")
            return
        if name in self._handlers:
            raise self._invalid(function, f"{name} is written twice")
        wanted, given = HANDLERS[name], function.args
        form = f"def {name}({', '.join(wanted)}):"
        if isinstance(function, ast.AsyncFunctionDef) or _yields(function):
            raise self._invalid(function, f"{name} must be a plain function that returns at once: `{form}`")
        if function.decorator_list:
            raise self._invalid(function, f"{name} has a decorator: handlers are called as they stand, `{form}`")
        count = len(given.posonlyargs) + len(given.args)
        if count != len(wanted) or given.vararg or given.kwarg or given.kwonlyargs or given.defaults:
            raise self._invalid(
                function, f"{name}({ast.unparse(given)}) is called with {len(wanted)} arguments: write `{form}`"
            )
        self._handlers.append(name)

    def _check_insides(self, made: ast.ClassDef) -> None:
        """Refuse to look into a context: it is told by its name, of a handler's argument or of an annotation."""
        for function in ast.walk(made):
            if not isinstance(function, _FUNCTIONS):
                continue
            given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            names = {each.arg for each in given if _is_context(each.annotation)} | {"context"}
            names |= {each.arg for each in given[1:2] if function.name in HANDLERS}
            for node in ast.walk(function):
                if isinstance(node, ast.Attribute) and node.attr in INSIDES and ast.unparse(node.value) in names:
                    why = (
                        f"{ast.unparse(node)} is the engine's own, bars to come and all: ask its methods, such as "
                        "context.close(back), context.value(column, back) or context.position(symbol)"
                    )
                    raise self._invalid(node, why)

    def _invalid(self, node: ast.AST, why: str) -> InvalidRequest:
        return invalid(self._file, getattr(node, "lineno", None), why)


def _target(statement: ast.Assign | ast.AnnAssign) -> str | None:
    """Return the name that a statement sets, None where it sets several or something else."""
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return targets[0].id if len(targets) == 1 and isinstance(targets[0], ast.Name) else None


def _number(node: ast.expr) -> float | None:
    """Return a number that is written out, with its sign; None for anything else."""
    sign = 1.0
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        sign = -1.0 if isinstance(node.op, ast.USub) else 1.0
        node = node.operand
    if not isinstance(node, ast.Constant) or isinstance(node.value, bool) or not isinstance(node.value, int | float):
        return None
    try:
        return sign * float(node.value)
    except OverflowError:
        return math.inf


def _is_context(annotation: ast.expr | None) -> bool:
    return annotation is not None and ast.unparse(annotation).strip("'\"").rpartition(".")[2] == "Context"


def _yields(function: _Function) -> bool:
    return any(isinstance(node, ast.Yield | ast.YieldFrom) for node in ast.walk(function))


def _near(given: str, known: list[str]) -> str:
    folded = {each.lower().replace("_", ""): each for each in known}
    near = difflib.get_close_matches(given.lower().replace("_", ""), folded, n=3, cutoff=0.6)
    if near:
        return f": did you mean {' or '.join(folded[each] for each in near)}?"
    return f": there are {', '.join(known)}" if len(known) <= len(HANDLERS) else ": docs/backtest-config.md lists them"
