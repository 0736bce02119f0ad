"""Decode and validate: stream entries to columns, split by id shard (design 2.1, 2.2)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from config.revision import History, Revision
from core.frames import POSITION, POSITION_SCHEMA, REJECT_SCHEMA
from operators.decode_assemble import ROW, Decoded, Part, Schema, assemble, joined, shard_order
from operators.decode_columns import TypeDecoder
from operators.decode_entries import lines_of
from operators.decode_fast import Envelopes, decode_envelopes
from operators.decode_lines import Lines
from operators.decode_plan import RevisionPlan
from operators.decode_scan import Compiled
from operators.decode_slow import Rejected, decode_event
from operators.items import RawBatch, ShardBatch

if TYPE_CHECKING:
    from operators.scan.scanner import Scanner

Path = Literal["auto", "scan", "fast", "slow"]

FAST_LINES_MIN = 32
"""Columns cost about 2 ms a batch, the reference 0.06 ms an event."""

FAST_BYTES_MIN = 1 << 16
"""From here on the reference is slower, however few the lines are."""


@dataclass
class _Prepared:
    """A revision with everything worked out that does not depend on the batch."""

    plan: RevisionPlan
    types: dict[str, TypeDecoder] = field(default_factory=dict)
    scanner: "Scanner | None" = None

    @classmethod
    def of(cls, revision: Revision) -> "_Prepared":
        plan = RevisionPlan(revision)
        return cls(plan, {name: TypeDecoder(meters) for name, meters in plan.meters_by_type.items()})


class Decoder:
    """Turns raw entries into decoded events and rejects, one batch per revision and id shard.

    Guarantee: pure. What becomes of an event depends on its bytes, its entry id and the revision known at its
    entry id, never on the batch it is in. Every event leaves once: in `events`, or in `rejects` with
    `counted=True`; exception rows (`counted=False`) come on top.
    Unit of parallelism: the batch; no state. If the process dies here, the entries are read and decoded again.

    Plain events of large batches are read by compiled code, once that is loaded (docs/adr/0033); other batches and
    events in columns; a few short lines one by one, which is quicker then. All three give the same columns.

    :param path: for tests: what to try first; the ways behind it take what it leaves.
    :param compiled: where compiled code is kept; None: do without.
    """

    def __init__(
        self,
        history: History,
        streams: Sequence[str],
        id_shards: int,
        *,
        path: Path = "auto",
        compiled: Compiled | None = None,
    ) -> None:
        self._history = history
        self._streams = tuple(streams)
        self._id_shards = id_shards
        self._path = path
        self._compiled = compiled
        self._prepared: dict[int, _Prepared] = {}

    def decode(self, batch: RawBatch) -> list[tuple[int, ShardBatch]]:
        """Return (id shard, batch) pairs, revisions in order; events and rejects in position order.

        Shards without events and rejects are left out. An event goes to `identity_lo % id_shards`, and so do its
        exception rows, since dedupe drops those of events that do not count; a reject to `stream % id_shards`.
        """
        out: list[tuple[int, ShardBatch]] = []
        for first, end, revision in self._spans(batch):
            prepared = self._prepared.get(id(revision))
            if prepared is None:
                prepared = self._prepared[id(revision)] = _Prepared.of(revision)
            rules = prepared.plan.rules
            lines = lines_of(batch, first, end, rules.entry_bytes_max, rules.events_per_entry_max)
            decoded = self._decode_lines(lines, prepared)
            out.extend(self._split(decoded, lines, prepared.plan.schema))
        return out

    def _takes_columns(self, lines: Lines) -> bool:
        if self._path != "auto":
            return self._path != "slow"
        return len(lines) >= FAST_LINES_MIN or len(lines.text) >= FAST_BYTES_MIN

    def _scanner(self, lines: Lines, prepared: _Prepared) -> "Scanner | None":
        """Return the compiled path if this batch is one for it."""
        if self._compiled is None or self._path not in ("auto", "scan"):
            return None
        if prepared.scanner is None:
            prepared.scanner = self._compiled.scanner(prepared.plan, len(lines), at_once=self._path == "scan")
        return prepared.scanner

    def _spans(self, batch: RawBatch) -> Iterator[tuple[int, int, Revision]]:
        """Yield the runs of entries that one revision decides: (first, end, revision)."""
        entries = len(batch.payloads)
        if not entries:
            return
        first = 0
        revision = self._history.at(int(batch.entry_ms[0]))
        if len(self._history.revisions) > 1:
            for entry in range(1, entries):
                other = self._history.at(int(batch.entry_ms[entry]))
                if other is not revision:
                    yield first, entry, revision
                    first, revision = entry, other
        yield first, entries, revision

    def _decode_lines(self, lines: Lines, prepared: _Prepared) -> Decoded:
        """Return the accepted events; rejects are added to the lines."""
        found: list[Decoded] = []
        rows = np.arange(len(lines))
        if len(lines) and self._takes_columns(lines):
            scanner = self._scanner(lines, prepared)
            if scanner is not None and (scanned := scanner.decode(lines)) is not None:
                found.append(scanned)
                rows = _without(rows, scanned)
            if len(rows) and (len(rows) >= FAST_LINES_MIN or scanner is None or self._path == "scan"):
                envelopes = decode_envelopes(lines, rows, prepared.plan)
                if len(envelopes.row):
                    found.append(_with_meters(envelopes, lines, prepared))
                    rows = _without(rows, found[-1])
        return joined(found, _slow(lines, rows, prepared.plan), prepared.plan.schema)

    def _split(self, decoded: Decoded, lines: Lines, schema: Schema) -> Iterator[tuple[int, ShardBatch]]:
        rejects = pl.DataFrame(lines.rejects, schema=REJECT_SCHEMA, orient="row")
        rejects = rejects.sort(POSITION, maintain_order=True)
        # The shards stand one behind the other, each in position order; slices share the memory.
        rows, ends = shard_order(decoded, len(lines), self._id_shards)
        events = assemble(decoded, lines, rows, schema)
        shard = np.repeat(np.arange(self._id_shards), np.diff(ends, prepend=0))
        rejects_shard = self._shard_of_rejects(rejects, events, shard)
        start = 0
        for number, end in enumerate(ends.tolist()):
            own_rejects = rejects.filter(rejects_shard == number) if len(rejects) else rejects
            if end > start or len(own_rejects):
                yield number, ShardBatch(events[start:end], own_rejects)
            start = end

    def _shard_of_rejects(self, rejects: pl.DataFrame, events: pl.DataFrame, shard: npt.NDArray[np.int64]) -> pl.Series:
        by_stream = rejects["stream"].cast(pl.Int64) % self._id_shards
        if rejects["counted"].all():
            return by_stream
        shards = events.select(POSITION).with_columns(pl.Series("shard", shard, dtype=pl.Int64))
        of_event = rejects.join(shards, on=POSITION, how="left", maintain_order="left")["shard"]
        return of_event.fill_null(by_stream)


def _without(rows: npt.NDArray[np.int64], decoded: Decoded) -> npt.NDArray[np.int64]:
    """Return the rows that were left out. Rows are in order, and a decoded one is one of them or behind them all."""
    left = np.ones(int(max(rows[-1], decoded.rows.max())) + 1, dtype=np.bool_)
    left[decoded.rows] = False
    return rows[left[rows]]


def _with_meters(envelopes: Envelopes, lines: Lines, prepared: _Prepared) -> Decoded:
    """Add the meters' columns and the constants; leave out what the slow path has to look at."""
    count = len(envelopes.row)
    kept = envelopes.good.copy()
    metered_by_type: list[tuple[pl.DataFrame, npt.NDArray[np.int64]]] = []
    for event_type, rows in _rows_by_type(envelopes.frame["type"]):
        decoder = prepared.types.get(event_type)
        if decoder is None:
            continue
        data = envelopes.data if len(rows) == count else [envelopes.data[index] for index in rows.tolist()]
        metered = decoder.decode(data, ~envelopes.good[rows])
        kept[rows[metered.doubtful]] = False
        metered_by_type.append((pl.DataFrame(metered.columns), rows))
        for meter, unread in metered.exceptions:
            for row in envelopes.row[rows[unread]].tolist():
                lines.reject(row, "invalid_quantity", meter.unreadable_detail, counted=False)
    base = envelopes.frame.with_columns(
        usage_time_us=pl.col("event_time_us"),
        void_content=pl.lit(0, dtype=pl.UInt64),
        sign=pl.lit(1, dtype=pl.Int8),
    )
    row = np.where(kept, envelopes.row, len(lines))
    return Decoded(base, row, [Part(frame, row[rows]) for frame, rows in metered_by_type])


def _rows_by_type(types: pl.Series) -> list[tuple[str, npt.NDArray[np.int64]]]:
    different = types.unique().sort().to_list()
    if len(different) == 1:
        return [(different[0], np.arange(len(types)))]
    groups = pl.DataFrame({"type": types}).with_row_index(ROW).group_by("type", maintain_order=True).agg(ROW)
    return [
        (str(name), rows.to_numpy().astype(np.int64))
        for name, rows in zip(groups["type"].to_list(), groups[ROW], strict=True)
    ]


def _slow(lines: Lines, rows: npt.NDArray[np.int64], plan: RevisionPlan) -> pl.DataFrame | None:
    """Decide those rows one by one; return the accepted ones, or None if there are none."""
    accepted: list[dict[str, Any]] = []
    for row in rows.tolist():
        verdict = decode_event(lines.line(row), int(lines.entry_ms[row]), plan)
        if isinstance(verdict, Rejected):
            lines.reject(row, verdict.reason, verdict.detail)
            continue
        accepted.append({ROW: row, **verdict.columns})
        for detail in verdict.exceptions:
            lines.reject(row, "invalid_quantity", detail, counted=False)
    if not accepted:
        return None
    schema = {name: kind for name, kind in plan.schema.items() if name not in POSITION_SCHEMA and name != "raw"}
    return pl.DataFrame(accepted, schema={ROW: pl.Int64, **schema})
