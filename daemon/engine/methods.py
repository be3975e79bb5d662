"""A strategy's methods as functions that numba compiles to what they do as Python.

Records, which hold a strategy's fields when it is compiled, have no methods; a number with a fraction that they keep as
a whole one loses it, and numbers in texts become `<object type:float64>`. So sources are rewritten, on their own lines.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numba as untyped_numba
from numba.core import errors

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from daemon.engine.context import Strategy

numba: Any = untyped_numba

_APART: Final = "_apart_"
_TEXT: Final = "_text_"
_GIVEN: Final = "_given_"
_TEXTS: Final = ("str", "repr", "format")
NO_TEXT: Final = "texts with numbers in them (f-strings, str, format) are not compiled"
_KINDS: Final = {"i": "int", "b": "bool"}


def whole_fields(fields: np.dtype[np.void]) -> dict[str, str]:
    """Return the names of a record's fields that hold no fractions, and the type that each holds: int or bool."""
    kinds = {name: fields[name] for name in fields.names or ()}
    return {name: _KINDS[kind.kind] for name, kind in kinds.items() if not kind.shape and kind.kind in _KINDS}


def fraction_lost(name: str, kind: str) -> str:
    """Say why a number cannot be kept in a field of that name."""
    begins = "0.0" if kind == "int" else "0, or 0.0"
    return (
        f"{name} is kept as {kind}, for that is what it begins as, and would lose this number: "
        f"write {name} = {begins} in the class"
    )


def compiler(function: Callable[..., Any]) -> Any:
    """Compile a trader's function as it would run as Python: an index out of bounds and a division by 0 raise."""
    return numba.njit(boundscheck=True, error_model="python")(function)


def functions_of(made: type[Strategy], whole: dict[str, str]) -> dict[str, Callable[..., Any]]:
    """Return a class's methods as functions that call one another as such, on the same lines of the same file.

    whole: fields that hold no fractions: what would lose one raises ValueError.
    """
    methods: dict[str, Callable[..., Any]] = {
        name: each for name, each in inspect.getmembers(made, inspect.isfunction) if not name.startswith("__")
    }
    namespace: dict[str, Any] = {}
    trees = {name: ast.parse(textwrap.dedent(inspect.getsource(method))) for name, method in methods.items()}
    for name, tree in trees.items():
        if changed := _changed_above(tree, methods[name]):
            # Compiled code has what stands above the class as it was at first: another handler would see no change.
            raise errors.TypingError(f"{changed}, which stands above the class, is changed by {name}")
    for name, method in methods.items():
        own = next(iter(inspect.signature(method).parameters))
        tree = trees[name]
        for rewriter in (_Calls(set(methods), own), _Whole(whole, own), _Texts()):
            tree = rewriter.visit(tree)
        ast.increment_lineno(tree, method.__code__.co_firstlineno - 1)
        namespace |= {key: value for key, value in method.__globals__.items() if key not in methods}
        namespace[_TEXT] = _text
        exec(compile(ast.fix_missing_locations(tree), method.__code__.co_filename, "exec"), namespace)  # noqa: S102
        namespace[_APART + name] = compiler(namespace[name])
    return {name: namespace[name] for name in methods}


def _changed_above(tree: ast.AST, method: Callable[..., Any]) -> str | None:
    """Return the name of something above the class that a method sets, whole or in part; None where it sets nothing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            return node.names[0]
        if not isinstance(node, ast.Subscript | ast.Attribute) or not isinstance(node.ctx, ast.Store):
            continue
        part: ast.expr = node
        while isinstance(part, ast.Subscript | ast.Attribute):
            part = part.value
        if isinstance(part, ast.Name) and part.id not in method.__code__.co_varnames:
            return part.id
    return None


class _Calls(ast.NodeTransformer):
    """Turns calls of methods into calls of functions."""

    def __init__(self, methods: set[str], own: str) -> None:
        self._methods = methods
        self._own = own

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Leave annotations away: what they name need not be there at run time."""
        node.returns = None
        for argument in node.args.args + node.args.kwonlyargs:
            argument.annotation = None
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Turn `self.name(...)` into `name(self, ...)`."""
        self.generic_visit(node)
        called = node.func
        if not isinstance(called, ast.Attribute) or called.attr not in self._methods:
            return node
        if isinstance(called.value, ast.Name) and called.value.id == self._own:
            node.args = [called.value, *node.args]
            node.func = ast.copy_location(ast.Name(_APART + called.attr, ast.Load()), called)
        return node


class _Whole(ast.NodeTransformer):
    """Has what is set into an int or a bool looked at first: `self.n = x` raises where n would not be x."""

    def __init__(self, whole: dict[str, str], own: str) -> None:
        self._whole = whole
        self._own = own
        self._count = 0

    def visit_Assign(self, node: ast.Assign) -> Any:
        """Guard `self.n = x`, also among the names of a tuple."""
        taken = _Taken(self)
        node.targets = [taken.visit(target) for target in node.targets]
        return [node, *self._kept(taken, node)]

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        """Guard `self.n: int = x`."""
        if node.value is None or not self.is_whole(node.target):
            return node
        return self.visit_Assign(ast.copy_location(ast.Assign([node.target], node.value), node))

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        """Guard `self.n += x`."""
        if not self.is_whole(node.target) or not isinstance(node.target, ast.Attribute):
            return node
        field = ast.Attribute(node.target.value, node.target.attr, ast.Load())
        made = ast.Assign([node.target], ast.copy_location(ast.BinOp(field, node.op, node.value), node))
        return self.visit_Assign(ast.copy_location(made, node))

    def is_whole(self, node: ast.AST) -> bool:
        """Tell whether an expression is one of the fields."""
        is_field = isinstance(node, ast.Attribute) and node.attr in self._whole
        return is_field and isinstance(node.value, ast.Name) and node.value.id == self._own  # type: ignore[attr-defined]

    def new_name(self) -> str:
        """Return a name for what is about to be set, used once: numba wants one type of each."""
        self._count += 1
        return f"{_GIVEN}{self._count}"

    def _kept(self, taken: _Taken, at: ast.AST) -> list[ast.stmt]:
        made: list[ast.stmt] = []
        for given, name in taken.names:
            kind = self._whole[name]
            text = (
                f"if {given} != {kind}({given}):\n    raise ValueError({fraction_lost(name, kind)!r})\n"
                f"{self._own}.{name} = {kind}({given})"
            )
            made += ast.parse(text).body
        for statement in made:
            for each in ast.walk(statement):
                ast.copy_location(each, at)
        return made


class _Taken(ast.NodeTransformer):
    """Takes the guarded fields out of a target, a name of its own in the place of each."""

    def __init__(self, guard: _Whole) -> None:
        self._guard = guard
        self.names: list[tuple[str, str]] = []

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """Put a name in the place of a field."""
        if not self._guard.is_whole(node):
            return node
        self.names.append((self._guard.new_name(), node.attr))
        return ast.copy_location(ast.Name(self.names[-1][0], ast.Store()), node)


class _Texts(ast.NodeTransformer):
    """Has methods that write numbers into texts refused by the compiler: they run as Python."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        """Refuse an f-string."""
        return self._refused(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Refuse `str(x)`."""
        if isinstance(node.func, ast.Name) and node.func.id in _TEXTS:
            return self._refused(node)
        return self.generic_visit(node)

    def _refused(self, node: ast.expr) -> ast.AST:
        return ast.copy_location(ast.Call(ast.copy_location(ast.Name(_TEXT, ast.Load()), node), [], []), node)


def _text() -> NoReturn:
    """Stand for a text with numbers in it."""
    raise AssertionError("nothing that was compiled calls this")


@numba.extending.overload(_text)  # type: ignore[untyped-decorator]
def _no_text() -> NoReturn:
    raise errors.TypingError(NO_TEXT)
