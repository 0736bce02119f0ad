"""Which facts go to which customer shard."""

import polars as pl

from config.revision import Revision
from operators.rate_resolve import SLICE_SCHEMA, resolve
from operators.rate_terms import index_of


def customer_shards(facts: pl.DataFrame, revision: Revision, shards: int) -> list[tuple[int, pl.DataFrame]]:
    """Split facts (FACT_SCHEMA) by the shard of their customer, under the revision known at their booked hour.

    Sealed usage without customer, contract or price goes to every shard: each keeps it until a revision prices
    it, and the shard of the subject speaks for it. Open facts without a price and meters that no plan prices go
    nowhere. Shards are `crc32(customer id) % shards`.
    """
    if facts.is_empty():
        return []
    numbered = facts.with_row_index("row").with_columns(pl.lit(0, pl.UInt8).alias("kind"))
    resolved = resolve(numbered.select(*SLICE_SCHEMA, "row", "sealed"), index_of(revision), shards)
    owners = resolved.priced.select("row", "owner").unique()
    everywhere = resolved.unpriced.filter(pl.col("sealed") == 1).select("row")
    result = []
    for shard in range(shards):
        rows = pl.concat([owners.filter(pl.col("owner") == shard).select("row"), everywhere])
        if len(rows):
            result.append((shard, facts[rows.get_column("row").sort()]))
    return result
