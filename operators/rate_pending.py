"""Usage without a price: it stays in the books as unrated, and is kept for a revision that prices it."""

from io import BytesIO
from typing import Final

import polars as pl

from core.frames import Schema
from operators.rate_resolve import SLICE_SCHEMA, resolve
from operators.rate_store import frame_bytes
from operators.rate_terms import TermsIndex

PENDING_SCHEMA: Final[Schema] = SLICE_SCHEMA | {"customer": pl.String}
PENDING_ROWS_MAX: Final = 1_000_000
"""Usage beyond this, per shard, stays in the books as unrated but is not kept for a later price."""


class PendingUsage:
    """The slices of one shard that no revision has priced yet (PENDING_SCHEMA)."""

    def __init__(self, shards: int, state: bytes | None) -> None:
        self._shards = shards
        self._frame = no_pending() if state is None else pl.read_ipc(BytesIO(state))
        self._bytes = state

    def __len__(self) -> int:
        """Return the number of slices."""
        return len(self._frame)

    def snapshot(self) -> bytes:
        """Return the state as bytes, the same ones while nothing changes."""
        if self._bytes is None:
            self._bytes = frame_bytes(self._frame)
        return self._bytes

    def take_priced(self, index: TermsIndex) -> pl.DataFrame:
        """Remove and return the usage that the revision prices, for whichever shard."""
        rows = self._frame.with_row_index("row")
        resolved = resolve(rows.rename({"customer": "was"}), index, self._shards)
        matched = resolved.priced.get_column("row").unique().sort()
        if not len(matched):
            return no_pending()
        found = self._frame[matched]
        self._set(rows.join(matched.to_frame(), on="row", how="anti").drop("row"))
        return found

    def keep(self, unpriced: pl.DataFrame) -> pl.DataFrame:
        """Keep usage for a later price, as far as there is room, and return what there is no room for."""
        if unpriced.is_empty():
            return no_pending()
        room = max(0, PENDING_ROWS_MAX - len(self._frame))
        ordered = unpriced.select(list(PENDING_SCHEMA)).sort(list(SLICE_SCHEMA))
        self._set(pl.concat([self._frame, ordered.head(room)]))
        return ordered.slice(room)

    def drop_before(self, minute: int) -> None:
        """Forget usage of earlier minutes."""
        old = pl.col("usage_minute") < minute
        if len(self._frame.filter(old)):
            self._set(self._frame.filter(~old))

    def _set(self, frame: pl.DataFrame) -> None:
        self._frame = frame
        self._bytes = None


def no_pending() -> pl.DataFrame:
    """Return an empty frame of pending usage."""
    return pl.DataFrame(schema=PENDING_SCHEMA)
