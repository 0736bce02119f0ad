"""The layout of a sealed segment file, format 2: where each byte of an id is, and the footer.

Records are sorted by digest, so the upper bits of neighbours are alike. They are kept once: a *bucket* is all records
with the same upper `bucket_bits` (16, or 0 in small segments), and only where each bucket begins is written. In order:

- blocks of up to 1,024 records, each holding its part of the columns lo, content, rest, minute (the last block is
  padded with zeros). `rest` is what is below the prefix of the digest's high half, the minute counts from the footer's
  base;
- the prefix of each record: the 32 bits below the bucket's;
- where each bucket begins, and the end;
- a checksum per block;
- the footer, which carries the checksum of the three sections before it and its own; the manifest has the footer's.

That is 24 bytes an id: 14 for the digest, 8 for its payload and 2 for its arrival. Prefixes and buckets are checked
when the file is opened, a block when it is first read, so damage is never believed.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

FORMAT: Final = 2
BLOCK_RECORDS_MAX: Final = 1024
WIDE_BUCKET_BITS: Final = 16
BUCKETS_FROM_RECORDS: Final = 1 << 19
"""From so many records on buckets pay: 2 bytes less an id for 256 KB."""
SHORT_MINUTES: Final = 1 << 16
"""Arrivals less than this apart (45 days) take two bytes."""

_MAGIC: Final = b"MBIDSEGM"
_FOOTER: Final = struct.Struct("<8sII16sQQQHHIIIQ")
FOOTER_BYTES: Final = _FOOTER.size + 8
_CHECKSUM: Final = struct.Struct("<Q")
_FORMAT_AT: Final = struct.Struct("<8sI")


def format_of(footer: bytes) -> int:
    """Return the format that a segment's last `FOOTER_BYTES` claim, 0 if none; a footer of format 1 is as long."""
    magic, number = _FORMAT_AT.unpack_from(footer)
    return int(number) if magic == _MAGIC else 0


@cache
def block_type(records: int, bucket_bits: int, minute_bytes: int) -> np.dtype[Any]:
    """Return the layout of a block of that many records."""
    wide = (records,)
    rest = f"<u{(32 - bucket_bits) // 8}"
    return np.dtype(
        [("lo", "<u8", wide), ("content", "<u8", wide), ("rest", rest, wide), ("minute", f"<u{minute_bytes}", wide)]
    )


def bucket_bits(count_max: int) -> int:
    """Return the upper bits by which a segment of up to that many records is divided."""
    return WIDE_BUCKET_BITS if count_max >= BUCKETS_FROM_RECORDS else 0


@dataclass(frozen=True, slots=True)
class Footer:
    """What a segment file says about itself."""

    block_records: int
    first: int
    end: int
    count: int
    bucket_bits: int
    minute_bytes: int
    minute_base: int
    minute_min: int
    minute_max: int
    index_checksum: int

    def pack(self, log_id: bytes) -> bytes:
        """Return the footer's bytes."""
        fields = _FOOTER.pack(
            _MAGIC, FORMAT, self.block_records, log_id, self.first, self.end, self.count, self.bucket_bits,
            self.minute_bytes, self.minute_base, self.minute_min, self.minute_max, self.index_checksum,
        )  # fmt: skip
        return fields + _CHECKSUM.pack(xxh3_64_intdigest(fields))

    @staticmethod
    def unpack(stored: bytes) -> "Footer":
        """Return what the bytes say; whoever packs it again sees whether they are a footer."""
        _, _, block_records, _, *numbers = _FOOTER.unpack_from(stored)
        return Footer(block_records, *numbers)

    @property
    def block_type(self) -> np.dtype[Any]:
        """Return the layout of a block."""
        return block_type(self.block_records, self.bucket_bits, self.minute_bytes)

    @property
    def blocks(self) -> int:
        """Return the number of blocks."""
        return -(-self.count // self.block_records)

    @property
    def buckets(self) -> int:
        """Return the number of buckets."""
        return 1 << self.bucket_bits

    @property
    def prefixes_at(self) -> int:
        """Return where the prefixes begin."""
        return self.blocks * self.block_type.itemsize

    @property
    def offsets_at(self) -> int:
        """Return where the beginnings of the buckets begin."""
        return self.prefixes_at + 4 * self.count

    @property
    def sums_at(self) -> int:
        """Return where the checksums of the blocks begin."""
        return self.offsets_at + 4 * (self.buckets + 1)

    @property
    def file_bytes(self) -> int:
        """Return the length of the file."""
        return self.sums_at + 8 * self.blocks + FOOTER_BYTES


def index_checksum(sections: Iterable[npt.NDArray[Any]]) -> int:
    """Return the checksum over prefixes, beginnings of buckets and block checksums."""
    checksum = 0
    for section in sections:
        checksum = xxh3_64_intdigest(np.ascontiguousarray(section).data, checksum)
    return checksum
