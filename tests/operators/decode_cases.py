"""What the decode tests share: meters of every kind, batches, and a comparison of both paths."""

import tempfile
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import orjson
import polars as pl

from config.meters import Meter
from config.revision import Configuration, History, Revision, Rules
from operators.decode import Decoder, Path
from operators.decode_plan import RevisionPlan
from operators.decode_quick import QuickLook
from operators.decode_scan import Compiled
from operators.items import EVENT, RawBatch

STREAMS = ("usage:0", "usage:1", "usage:2", "usage:3")
NOW_MS = 1_793_440_800_000
NOW = "2026-10-31T10:00:00Z"

METERS = (
    Meter(id="total", event_type="call", aggregation="sum", value="$.n", group_by={"model": "$.model"}),
    Meter(
        id="signed",
        event_type="call",
        aggregation="sum",
        value="$.deep.n",
        group_by={"zone": "$.deep.zone", "model": "$.model"},
        allow_negative=True,
    ),
    Meter(
        id="eu",
        event_type="call",
        aggregation="count",
        filter={"region": ("eu", "", "1", "true")},
        group_by={"region": "$.region"},
    ),
    Meter(id="users", event_type="call", aggregation="unique_count", value="$.user"),
    Meter(id="peak", event_type="load", aggregation="max", value="$.n"),
    Meter(id="level", event_type="load", aggregation="latest", value="$.m", group_by={"n": "$.n"}),
)


def history(meters: tuple[Meter, ...] = METERS, **rules: Any) -> History:
    return History([Revision(Configuration(meters=meters, rules=Rules(**rules)))])


def event(**changes: Any) -> dict[str, Any]:
    """Return a good event; a change to `...` removes the attribute."""
    whole: dict[str, Any] = {
        "specversion": "1.0",
        "id": "e-1",
        "source": "/api",
        "type": "call",
        "subject": "acme",
        "time": NOW,
        "data": {"n": 5, "model": "m", "region": "eu", "user": "u", "deep": {"n": "1.5", "zone": "z"}},
    }
    whole.update(changes)
    return {name: value for name, value in whole.items() if value is not ...}


def text(**changes: Any) -> bytes:
    return orjson.dumps(event(**changes))


def batch_of(payloads: list[bytes], kinds: list[int] | None = None, entry_ms: list[int] | None = None) -> RawBatch:
    count = len(payloads)
    return RawBatch(
        stream=(np.arange(count) * len(STREAMS) // max(1, count)).astype(np.uint16),
        entry_ms=np.array(entry_ms if entry_ms is not None else [NOW_MS] * count, dtype=np.int64),
        entry_seq=np.arange(count, dtype=np.int64),
        kinds=np.array(kinds if kinds is not None else [EVENT] * count, dtype=np.uint8),
        payloads=payloads,
        details={},
    )


def path_of(only_slow: bool) -> Path:
    return "slow" if only_slow else "fast"


COMPILED = Compiled(FilePath(tempfile.gettempdir()) / "meterbridge-tests" / "compiled")
"""Kept from run to run; where numba is absent, the ways that ask for it are the others."""


def decode_one_shard(
    batch: RawBatch, used: History | None = None, *, only_slow: bool = False, path: Path | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return events and rejects of a batch with one revision, in position order."""
    path = path or path_of(only_slow)
    decoded = Decoder(used or history(), STREAMS, 1, path=path, compiled=COMPILED).decode(batch)
    assert [shard for shard, _ in decoded] == [0]
    return decoded[0][1].events, decoded[0][1].rejects


def verdict(line: bytes, used: History | None = None, *, only_slow: bool = False) -> tuple[str, str]:
    """Return ("accepted", "") or (reason, detail) of one event."""
    events, rejects = decode_one_shard(batch_of([line]), used, only_slow=only_slow)
    counted = rejects.filter("counted")
    assert len(events) + len(counted) == 1
    return ("accepted", "") if len(events) else (counted["reason"][0], counted["detail"][0])


_COLUMN_PATHS: tuple[Path, ...] = ("fast", "scan")


def assert_paths_agree(lines: list[bytes], used: History | None = None) -> pl.DataFrame:
    """Decode with all paths and compare every column of every row; return the events.

    A quick look must not accept what they refuse, nor see another subject.
    """
    batch = batch_of(lines)
    slow_events, slow_rejects = decode_one_shard(batch, used, path="slow")
    tenants = dict(slow_events.select("entry_seq", "tenant").iter_rows())
    look = QuickLook(RevisionPlan((used or history()).at(NOW_MS)))
    for place, subject in enumerate(look.subjects(lines, NOW_MS)):
        assert subject in (None, tenants.get(place))
    for path in _COLUMN_PATHS:
        events, rejects = decode_one_shard(batch, used, path=path)
        assert events.schema == slow_events.schema
        assert events.rows() == slow_events.rows()
        assert rejects.rows() == slow_rejects.rows()
    return slow_events
