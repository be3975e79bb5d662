"""The one decorator of every kernel, so that none lacks a flag.

`nogil` lets threads scale, `cache` makes compilation happen once per machine. Signatures are left to the first call:
arguments are always C-contiguous, writable arrays and plain scalars, so each kernel has exactly one specialisation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

F = TypeVar("F", bound="Callable[..., object]")

KERNELS: list[numba.core.dispatcher.Dispatcher] = []


def kernel(function: F) -> F:
    """Compile on first call, without the GIL, into the per-user cache."""
    compiled = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    KERNELS.append(compiled)
    return cast("F", compiled)


def constants(numbers: Iterable[int]) -> Any:
    """Return numbers as kernels hand them to kernels: of a plain int the callee is compiled anew for each value."""
    return tuple(np.int64(number) for number in numbers)


def typed_entry(compiled: Any) -> Callable[..., Any]:
    """Return the machine code of a kernel that has been called: the same call, whose argument types nobody looks at.

    Finding out the types of fifty arrays of records takes longer than most calls of a strategy.
    """
    overload, *others = compiled.overloads.values()
    if others:
        raise AssertionError(f"{compiled.py_func.__name__} was called with arguments of several types")
    return cast("Callable[..., Any]", overload.entry_point)
