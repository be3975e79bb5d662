"""What kernels need and numba has no name for: places of bits, arrays at an address, calls of compiled strategies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic as untyped_intrinsic

if TYPE_CHECKING:
    from collections.abc import Callable

intrinsic: Any = untyped_intrinsic
HANDLER_SIGNATURE = types.int64(types.int64, types.int64)
"""Of a compiled strategy: address of its table, which of its handlers; returns 0."""


@intrinsic  # type: ignore[untyped-decorator]
def lowest_bit(typing_context: Any, word: Any) -> tuple[Any, Callable[..., Any]]:  # noqa: ARG001
    """Place of the lowest bit of a uint64 that is not 0."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator]
def highest_bit(typing_context: Any, word: Any) -> tuple[Any, Callable[..., Any]]:  # noqa: ARG001
    """Place of the highest bit of a uint64 that is not 0."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        zeros = builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 1))
        return builder.sub(ir.Constant(ir.IntType(64), 63), zeros)

    return types.int64(types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator]
def pointer(typing_context: Any, address: Any) -> tuple[Any, Callable[..., Any]]:  # noqa: ARG001
    """Make an address what `numba.carray` takes; the array of it is not counted, and whoever owns it must live."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def uncounted(typing_context: Any, value: Any) -> tuple[Any, Callable[..., Any]]:  # noqa: ARG001
    """Return an array, or a tuple of such, that is not counted: whoever called us owns it, and outlives its use.

    Of counted arrays every call of a kernel counts each one up and down, by atomic operations.
    """

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _stripped(context, builder, value, arguments[0])

    return value(value), generate


def _stripped(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, value)
        array.meminfo = ir.Constant(array.meminfo.type, None)
        array.parent = ir.Constant(array.parent.type, None)
        return array._getvalue()  # noqa: SLF001 - numba's own name
    if isinstance(kind, types.BaseTuple):
        kinds: Any = kind
        parts = [
            _stripped(context, builder, each, builder.extract_value(value, place)) for place, each in enumerate(kinds)
        ]
        return context.make_tuple(builder, kind, parts)
    return value


@intrinsic  # type: ignore[untyped-decorator]
def call_at(typing_context: Any, address: Any, table: Any, handler: Any) -> tuple[Any, Callable[..., Any]]:  # noqa: ARG001
    """Call a function of HANDLER_SIGNATURE at an address; what it raises is raised here, with its own line."""
    own = (types.int64, types.int64)

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        convention = context.call_conv
        function_type = convention.get_function_type(types.int64, own)
        function = builder.inttoptr(arguments[0], function_type.as_pointer())
        status, result = convention.call_function(builder, function, types.int64, own, arguments[1:])
        with cgutils.if_unlikely(builder, status.is_error):  # type: ignore[no-untyped-call]
            convention.return_status_propagate(builder, status)
        return result

    return types.int64(types.int64, *own), generate


def address_of(compiled: Any) -> int:
    """Return where a compiled function lies, for `call_at`; `compiled` must live as long as it is called."""
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))
