"""The compiled digests against the library's, for every way that the length decides."""

import random

import numpy as np
import pytest
from xxhash import xxh3_64_intdigest, xxh3_128_intdigest

pytest.importorskip("numba")

from operators.scan.words import PADDING_BYTES
from operators.scan.xxh3 import SECRET, STRIPES, digest_64, digest_128

LENGTHS = [*range(300), 511, 512, 513, 1023, 1024, 1025, 1087, 1088, 2048, 2049, 5000]


@pytest.mark.parametrize("before", [0, 3])
def test_every_length(before: int) -> None:
    chance = random.Random(before)
    sums = np.empty(STRIPES, np.uint64)
    for length in LENGTHS:
        data = chance.randbytes(length)
        text = np.frombuffer(chance.randbytes(before) + data + bytes(PADDING_BYTES), dtype=np.uint8)
        assert int(digest_64(text, before, length, SECRET, sums)) == xxh3_64_intdigest(data), length
        high, low = digest_128(text, before, length, SECRET, sums)
        assert int(high) << 64 | int(low) == xxh3_128_intdigest(data), length
