"""What numba has no function for: unaligned 64-bit words of a byte array, 128-bit products, bit counts.

Everything compiled is made by `compiled`, so that the rest of the package is ordinary typed code.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., Any])

PADDING_BYTES: Final = 16
"""Every byte array that is read or written by words has so many bytes behind its end."""

_U64: Final = ir.IntType(64)
_U128: Final = ir.IntType(128)


def compiled(function: F) -> F:
    """Compile on first use, for the types it is called with; kept on disk."""
    made: F = njit(cache=True, nogil=True, boundscheck=False, forceinline=True, _nrt=False)(function)
    return made


def inlined(function: F) -> F:
    """Compile into every caller."""
    made: F = njit(cache=True, nogil=True, boundscheck=False, forceinline=True, _nrt=False)(function)
    return made


def word(text: bytes) -> np.uint64:
    """Return up to eight bytes as `load` reads them, zeros behind."""
    return np.uint64(int.from_bytes(text[:8], "little"))


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = cgutils.create_struct_proxy(array_type)(context, builder, value=array).data
    return builder.bitcast(builder.gep(data, [index]), _U64.as_pointer())


def _load(_typing: Any, array: Any, index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_address(context, builder, signature.args[0], *arguments), align=1)

    return types.uint64(array, types.int64), generate


def _store(_typing: Any, array: Any, index: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _address(context, builder, signature.args[0], *arguments[:2]), align=1)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.uint64), generate


def _high(_typing: Any, left: Any, right: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        wide = [builder.zext(argument, _U128) for argument in arguments]
        return builder.trunc(builder.lshr(builder.mul(*wide), ir.Constant(_U128, 64)), _U64)

    return types.uint64(types.uint64, types.uint64), generate


def _trailing_zeros(_typing: Any, value: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


def _swapped(_typing: Any, value: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bswap(arguments[0])

    return types.uint64(types.uint64), generate


load: Any = intrinsic(_load)
"""`load(bytes, index)`: the eight bytes from there as a little-endian integer."""

store: Any = intrinsic(_store)
"""`store(bytes, index, word)`: write eight bytes there."""

high: Any = intrinsic(_high)
"""`high(a, b)`: the upper half of the 128-bit product."""

trailing_zeros: Any = intrinsic(_trailing_zeros)
"""`trailing_zeros(word)`: how many low bits are zero; 64 of zero."""

swapped: Any = intrinsic(_swapped)
"""`swapped(word)`: the bytes in the other order."""


@inlined
def copy(source: Any, start: int, length: int, target: Any, at: int) -> int:
    """Copy bytes by words and return where the next ones go; up to seven bytes behind are overwritten."""
    for index in range(0, length, 8):
        store(target, at + index, load(source, start + index))
    return at + length
