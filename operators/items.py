"""What travels between the steps. Items may be pickled between processes; snapshots hold plain values only."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Stream entries in position order, as the reader hands them on.

    All lists and arrays have one element per entry. `kinds` is one of the constants below.
    """

    stream: npt.NDArray[np.uint16]
    entry_ms: npt.NDArray[np.int64]
    entry_seq: npt.NDArray[np.int64]
    kinds: npt.NDArray[np.uint8]
    payloads: list[bytes]
    details: dict[int, str]
    """Why an entry is MALFORMED, by its place in the batch; of a REFUSED one `<reason code> <detail>`."""
    entry_index: npt.NDArray[np.int32] | None = None
    """For events that come one by one from storage: their place in their entry. None: entries are whole."""


EVENT, EVENTS, MALFORMED, REFUSED = 0, 1, 2, 3
"""`event` field: one event. `events` field: newline-delimited events. Anything else: rejected as it is. REFUSED comes
from storage only: an event refused when it arrived, of which not all bytes were kept."""


@dataclass(frozen=True, slots=True)
class Marker:
    """A watermark on its way: every entry with ms < `watermark_ms` of this sender went before it."""

    sender: str
    watermark_ms: int


@dataclass(frozen=True, slots=True)
class ShardBatch:
    """Decoded events (EVENT_SCHEMA and meter columns) and rejects (REJECT_SCHEMA) for one id shard."""

    events: pl.DataFrame
    rejects: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Accepted:
    """Events that count (EVENT_SCHEMA and meter columns), on their way to the trace."""

    frame: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Rejects:
    """Rows for `usage_rejects` (REJECT_SCHEMA)."""

    frame: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Counts:
    """Absolute intake counts (COUNT_SCHEMA)."""

    frame: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Partials:
    """Partial sums (PARTIAL_SCHEMA) for one tenant shard, by its number."""

    tenant_shard: int
    frame: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts (FACT_SCHEMA), open or sealed."""

    frame: pl.DataFrame


@dataclass(frozen=True, slots=True)
class RatedRows:
    """Rated rows (RATED_SCHEMA). `watermark_ms` is the marker that sealed them; 0 while provisional."""

    frame: pl.DataFrame
    watermark_ms: int


@dataclass(frozen=True, slots=True)
class Exceptions:
    """Things a person should look at (EXCEPTION_SCHEMA); they follow from the events alone, like facts."""

    frame: pl.DataFrame
