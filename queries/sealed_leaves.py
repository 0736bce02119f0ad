"""The leaves of a sealed period as ClickHouse keeps them, to say where something changed."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

import polars as pl

from queries.leaves import Leaf
from queries.stores import Stores

_ROWS_PER_INSERT: Final = 50_000
_SCHEMA: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "hour": pl.Int64,
    "owner": pl.String,
    "item": pl.String,
    "rows": pl.Int64,
    "events": pl.Int64,
    "total": pl.String,
    "digest": pl.String,
}


def keep(stores: Stores, seal: str, part: str, leaves: Iterable[Leaf]) -> None:
    """Write leaves under the seal's name; they are of use once the ledger has the seal."""
    left = iter(leaves)
    while block := list(islice(left, _ROWS_PER_INSERT)):
        frame = pl.DataFrame(block, schema=_SCHEMA, orient="row")
        frame = frame.select(pl.lit(seal).alias("seal"), pl.lit(part).alias("part"), pl.all())
        stores.client.insert_arrow("sealed_leaves", frame.to_arrow(), {"async_insert": 0})


def kept(stores: Stores, seal: str, part: str) -> Iterator[Leaf]:
    """Yield the leaves that were written under that name, in order."""
    text = (
        "SELECT hour, owner, item, rows, events, total, digest FROM @sealed_leaves FINAL"
        " WHERE seal = {seal:String} AND part = {part:String} ORDER BY hour, owner, item"
    )
    for block in stores.client.blocks(stores.resolved(text), {"seal": seal, "part": part}):
        for row in block:
            yield Leaf(*row)
