"""Digests that are stored: identity, content, voids, counted values; and the tenant's shard.

All encodings are unambiguous: every part but the last is written as `<characters>:<text>`. These functions may
never change, because the dedupe log and the facts' state keep what they return; tests pin vectors of each.
"""

import zlib
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
from xxhash import xxh3_64_intdigest, xxh3_128_digest

Digest128 = tuple[int, int]
"""The high and the low 64 bits."""

VOID_XOR: Final[Digest128] = (0x9E4D_1C7A_53B0_F268, 0x61F3_A805_D97E_2CB4)
"""XOR-ed onto an original's identity, this names the void of it in the dedupe log."""


def _split(digest: bytes) -> Digest128:
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")


def identity(source: str, event_id: str) -> Digest128:
    """Return the digest of an event's identity, which is its source and id."""
    return _split(xxh3_128_digest(f"{len(source)}:{source}{event_id}".encode()))


def void_identity(original: Digest128) -> Digest128:
    """Return the identity under which the void of that original is recorded."""
    return original[0] ^ VOID_XOR[0], original[1] ^ VOID_XOR[1]


def content(subject: str, event_type: str, time: str | None, data: str) -> int:
    """Return the digest of what an event says; `data` is its JSON text without insignificant whitespace.

    `time` is the text as it came: another spelling of the same time is other content. Key order counts too.
    """
    when = "-" if time is None else f"{len(time)}:{time}"
    return xxh3_64_intdigest(f"{len(subject)}:{subject}{len(event_type)}:{event_type}{when}{data}".encode())


def void_content(source: str, event_id: str, void: int) -> int:
    """Return the digest of a void event: its own source, id and content digest. Never 0, which means no void."""
    return xxh3_64_intdigest(f"{len(source)}:{source}{len(event_id)}:{event_id}{void:016x}".encode()) or 1


def unique_value(text: str) -> Digest128:
    """Return the digest of a value that a `unique_count` meter counts."""
    return _split(xxh3_128_digest(text.encode()))


# --- whole columns -----------------------------------------------------------------------------------------


def _columns(digests: list[bytes]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    words = np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64).reshape(-1, 2)
    return words[:, 0].copy(), words[:, 1].copy()


def _measured(name: str) -> list[pl.Expr]:
    return [pl.col(name).str.len_chars().cast(pl.String), pl.lit(":"), pl.col(name)]


def identities(frame: pl.DataFrame) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Return `identity` of every row (columns `source` and `id`), as columns of high and low bits."""
    texts = frame.select(pl.concat_str(*_measured("source"), "id").cast(pl.Binary)).to_series()
    return _columns([xxh3_128_digest(text) for text in texts.to_list()])


def contents(frame: pl.DataFrame) -> npt.NDArray[np.uint64]:
    """Return `content` of every row; columns `subject`, `type`, `time` (null if absent) and `data`, all String."""
    when = pl.concat_str(_measured("time")).fill_null("-")
    text = pl.concat_str(*_measured("subject"), *_measured("type"), when, "data")
    texts = frame.select(text.cast(pl.Binary)).to_series()
    return np.array([xxh3_64_intdigest(text) for text in texts.to_list()], dtype=np.uint64)


def unique_values(texts: pl.Series) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Return `unique_value` of every text of a String series without nulls, as columns of high and low bits."""
    return _columns([xxh3_128_digest(text) for text in texts.cast(pl.Binary).to_list()])


# --- tenant shards -----------------------------------------------------------------------------------------


_LOOKED_UP_MIN: Final = 1000
"""From so many rows on a join is faster than a look at each."""


@lru_cache(maxsize=1 << 16)
def tenant_shard(tenant: str, shards: int) -> int:
    """Return the shard of a tenant: crc32 of its UTF-8 text, modulo the number of shards."""
    return zlib.crc32(tenant.encode()) % shards


def tenant_shards(series: pl.Series, shards: int) -> pl.Series:
    """Return the shard of every tenant of a String series, UInt8; of many rows each different tenant is mapped once."""
    if len(series) < _LOOKED_UP_MIN:
        return pl.Series("tenant_shard", [tenant_shard(tenant, shards) for tenant in series.to_list()], dtype=pl.UInt8)
    tenants = series.rename("tenant")
    distinct = tenants.unique()
    numbers = [tenant_shard(tenant, shards) for tenant in distinct.to_list()]
    table = pl.DataFrame({"tenant": distinct, "tenant_shard": pl.Series(numbers, dtype=pl.UInt8)})
    return tenants.to_frame().join(table, on="tenant", maintain_order="left").get_column("tenant_shard")
