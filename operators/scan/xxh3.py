"""XXH3 of a part of a byte array, 64 and 128 bits, seed 0: the digests of `core.digests` without a Python call each.

Follows the specification of xxHash 0.8; tests compare every length with the library's.
"""

from typing import Any, Final

import numpy as np

from operators.scan.words import compiled, high, inlined, load, swapped

_U: Final = np.uint64

SECRET: Final = np.frombuffer(
    bytes.fromhex(
        "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
        "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
        "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
        "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
        "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
        "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
    ),
    dtype=np.uint8,
)

STRIPES: Final = 8
"""Length of the array of sums that the functions work in."""

_PRIME32_1: Final = _U(0x9E3779B1)
_PRIME32_2: Final = _U(0x85EBCA77)
_PRIME32_3: Final = _U(0xC2B2AE3D)
_PRIME_1: Final = _U(0x9E3779B185EBCA87)
_PRIME_2: Final = _U(0xC2B2AE3D27D4EB4F)
_PRIME_3: Final = _U(0x165667B19E3779F9)
_PRIME_4: Final = _U(0x85EBCA77C2B2AE63)
_PRIME_5: Final = _U(0x27D4EB2F165667C5)
_MIX_1: Final = _U(0x165667919E3779F9)
_MIX_2: Final = _U(0x9FB21C651E98DF25)
_START: Final = np.array(
    [_PRIME32_3, _PRIME_1, _PRIME_2, _PRIME_3, _PRIME_4, _PRIME32_2, _PRIME_5, _PRIME32_1], dtype=np.uint64
)
_LOW: Final = _U(0xFFFF_FFFF)


def _secret(begin: int, size: int = 8) -> int:
    return int.from_bytes(SECRET[begin : begin + size].tobytes(), "little")


_FLIP_0: Final = _U(_secret(56) ^ _secret(64))
_FLIP_1: Final = _U(_secret(0, 4) ^ _secret(4, 4))
_FLIP_4: Final = _U(_secret(8) ^ _secret(16))
_FLIP_9_LOW: Final = _U(_secret(24) ^ _secret(32))
_FLIP_9_HIGH: Final = _U(_secret(40) ^ _secret(48))
_WIDE_0_LOW: Final = _U(_secret(64) ^ _secret(72))
_WIDE_0_HIGH: Final = _U(_secret(80) ^ _secret(88))
_WIDE_1_HIGH: Final = _U(_secret(8, 4) ^ _secret(12, 4))
_WIDE_4: Final = _U(_secret(16) ^ _secret(24))
_WIDE_9_LOW: Final = _U(_secret(32) ^ _secret(40))
_WIDE_9_HIGH: Final = _U(_secret(48) ^ _secret(56))


@inlined
def _folded(left: Any, right: Any) -> Any:
    return (left * right) ^ high(left, right)


@inlined
def _avalanche(value: Any) -> Any:
    value ^= value >> _U(37)
    value *= _MIX_1
    return value ^ (value >> _U(32))


@inlined
def _avalanche_short(value: Any) -> Any:
    value ^= value >> _U(33)
    value *= _PRIME_2
    value ^= value >> _U(29)
    value *= _PRIME_3
    return value ^ (value >> _U(32))


@inlined
def _mix(text: Any, at: int, secret: Any, place: int) -> Any:
    return _folded(load(text, at) ^ load(secret, place), load(text, at + 8) ^ load(secret, place + 8))


@inlined
def _half(text: Any, at: int) -> Any:
    return _U(text[at]) | _U(text[at + 1]) << _U(8) | _U(text[at + 2]) << _U(16) | _U(text[at + 3]) << _U(24)


@inlined
def _tiny(text: Any, at: int, size: int) -> Any:
    return _U(text[at]) << _U(16) | _U(text[at + (size >> 1)]) << _U(24) | _U(text[at + size - 1]) | _U(size) << _U(8)


@inlined
def _accumulate(text: Any, at: int, secret: Any, place: int, sums: Any) -> None:
    for lane in range(8):
        value = load(text, at + 8 * lane)
        keyed = value ^ load(secret, place + 8 * lane)
        sums[lane ^ 1] += value
        sums[lane] += (keyed & _LOW) * (keyed >> _U(32))


@compiled
def _long(text: Any, at: int, size: int, secret: Any, sums: Any) -> None:
    for lane in range(8):
        sums[lane] = _START[lane]
    blocks = (size - 1) // 1024
    for block in range(blocks):
        for stripe in range(16):
            _accumulate(text, at + 1024 * block + 64 * stripe, secret, 8 * stripe, sums)
        for lane in range(8):
            value = sums[lane]
            value ^= value >> _U(47)
            sums[lane] = (value ^ load(secret, 128 + 8 * lane)) * _PRIME32_1
    for stripe in range((size - 1 - 1024 * blocks) // 64):
        _accumulate(text, at + 1024 * blocks + 64 * stripe, secret, 8 * stripe, sums)
    _accumulate(text, at + size - 64, secret, 121, sums)


@inlined
def _merged(sums: Any, secret: Any, place: int, start: Any) -> Any:
    for pair in range(4):
        start += _folded(
            sums[2 * pair] ^ load(secret, place + 16 * pair), sums[2 * pair + 1] ^ load(secret, place + 16 * pair + 8)
        )
    return _avalanche(start)


@compiled
def _short_64(text: Any, at: int, size: int) -> Any:
    length = _U(size)
    if size > 8:
        low = load(text, at) ^ _FLIP_9_LOW
        top = load(text, at + size - 8) ^ _FLIP_9_HIGH
        return _avalanche(length + swapped(low) + top + _folded(low, top))
    if size >= 4:
        value = (_half(text, at + size - 4) + (_half(text, at) << _U(32))) ^ _FLIP_4
        value ^= (value << _U(49) | value >> _U(15)) ^ (value << _U(24) | value >> _U(40))
        value *= _MIX_2
        value ^= (value >> _U(35)) + length
        value *= _MIX_2
        return value ^ (value >> _U(28))
    if size > 0:
        return _avalanche_short(_tiny(text, at, size) ^ _FLIP_1)
    return _avalanche_short(_FLIP_0)


@compiled
def digest_64(text: Any, at: int, size: int, secret: Any, sums: Any) -> Any:
    """Return the 64-bit digest of that part of the text. `secret` is SECRET, `sums` room for STRIPES words."""
    if size <= 16:
        return _short_64(text, at, size)
    total = _U(size) * _PRIME_1
    if size <= 128:
        for step in range((size - 1) // 32, -1, -1):
            total += _mix(text, at + 16 * step, secret, 32 * step)
            total += _mix(text, at + size - 16 * (step + 1), secret, 32 * step + 16)
        return _avalanche(total)
    if size <= 240:
        for step in range(8):
            total += _mix(text, at + 16 * step, secret, 16 * step)
        total = _avalanche(total)
        for step in range(8, size // 16):
            total += _mix(text, at + 16 * step, secret, 16 * (step - 8) + 3)
        return _avalanche(total + _mix(text, at + size - 16, secret, 119))
    _long(text, at, size, secret, sums)
    return _merged(sums, secret, 11, total)


@compiled
def _short_128(text: Any, at: int, size: int) -> tuple[Any, Any]:
    if size > 8:
        last = load(text, at + size - 8)
        value = load(text, at) ^ last ^ _WIDE_9_LOW
        low, top = value * _PRIME_1, high(value, _PRIME_1)
        low += _U(size - 1) << _U(54)
        last ^= _WIDE_9_HIGH
        top += last + (last & _LOW) * (_PRIME32_2 - _U(1))
        low ^= swapped(top)
        return _avalanche(high(low, _PRIME_2) + top * _PRIME_2), _avalanche(low * _PRIME_2)
    if size >= 4:
        value = (_half(text, at) + (_half(text, at + size - 4) << _U(32))) ^ _WIDE_4
        prime = _PRIME_1 + (_U(size) << _U(2))
        low, top = value * prime, high(value, prime)
        top += low << _U(1)
        low ^= top >> _U(3)
        low ^= low >> _U(35)
        low *= _MIX_2
        return _avalanche(top), low ^ (low >> _U(28))
    if size > 0:
        value = _tiny(text, at, size)
        other = swapped(value) >> _U(32)
        other = (other << _U(13) | other >> _U(19)) & _LOW
        return _avalanche_short(other ^ _WIDE_1_HIGH), _avalanche_short(value ^ _FLIP_1)
    return _avalanche_short(_WIDE_0_HIGH), _avalanche_short(_WIDE_0_LOW)


@inlined
def _mix_wide(low: Any, top: Any, text: Any, at: int, other: int, secret: Any, place: int) -> tuple[Any, Any]:
    low = (low + _mix(text, at, secret, place)) ^ (load(text, other) + load(text, other + 8))
    top = (top + _mix(text, other, secret, place + 16)) ^ (load(text, at) + load(text, at + 8))
    return low, top


@compiled
def digest_128(text: Any, at: int, size: int, secret: Any, sums: Any) -> tuple[Any, Any]:
    """Return the high and the low 64 bits of the 128-bit digest; parameters as for `digest_64`."""
    if size <= 16:
        return _short_128(text, at, size)
    low, top = _U(size) * _PRIME_1, _U(0)
    if size > 240:
        _long(text, at, size, secret, sums)
        return _merged(sums, secret, 117, ~(_U(size) * _PRIME_2)), _merged(sums, secret, 11, low)
    if size <= 128:
        for step in range((size - 1) // 32, -1, -1):
            low, top = _mix_wide(low, top, text, at + 16 * step, at + size - 16 * (step + 1), secret, 32 * step)
    else:
        for step in range(4):
            low, top = _mix_wide(low, top, text, at + 32 * step, at + 32 * step + 16, secret, 32 * step)
        low, top = _avalanche(low), _avalanche(top)
        for step in range(4, size // 32):
            low, top = _mix_wide(low, top, text, at + 32 * step, at + 32 * step + 16, secret, 32 * (step - 4) + 3)
        low, top = _mix_wide(low, top, text, at + size - 16, at + size - 32, secret, 103)
    total = low * _PRIME_1 + top * _PRIME_4 + _U(size) * _PRIME_2
    return _U(0) - _avalanche(total), _avalanche(low + top)
