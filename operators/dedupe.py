"""Dedupe: every event counts once, whatever the number of times and the order in which it was sent."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, Final

import numpy as np
import polars as pl

from config.revision import History, Revision
from core.digests import tenant_shards as shards_of
from core.errors import InvariantViolation, StateMismatch
from core.frames import POSITION
from core.metrics import DEDUPE_BYTES, DEDUPE_IDS
from core.reasons import RAW_BYTES_MAX, VOID_TYPE
from operators.book_time import with_minutes
from operators.dedupe_counts import IntakeCounts
from operators.dedupe_decide import (
    ACCEPTED,
    ALREADY_VOIDED,
    CONFLICT,
    Decisions,
    Events,
    append_accepted,
    decide,
)
from operators.dedupe_horizon import MS_PER_MINUTE, Horizon
from operators.dedupe_log import IdLog
from operators.items import Accepted, Counts, Marker, Partials, Rejects, ShardBatch
from operators.void_decode import original_type

VERSION: Final = 1
US_PER_MINUTE: Final = 60_000_000

Item = ShardBatch | Marker
Output = Accepted | Rejects | Counts | Partials | Marker
Sums = Callable[[pl.DataFrame, Revision], pl.DataFrame]


class DedupeLogic:
    """The step of one id shard: decides each event, counts it, and makes the partial sums of those that count.

    Guarantee: of all events with one identity within the horizon, exactly the one with the lowest position is
    accepted, and each event is counted under one outcome. If the process dies here, the log is cut to the last
    snapshot and the epoch is replayed with the same decisions.
    Unit of parallelism: one id shard.

    :param senders: who sends markers; fixed for the life of the state.
    :param sums: makes partial sums (PARTIAL_SCHEMA) of accepted events of one revision.
    :param state: what `snapshot` returned; `log` was opened with its `log` value.
    :raises StateMismatch: the state is another version's, or of other senders.
    """

    def __init__(
        self,
        shard_key: str,
        log: IdLog,
        history: History,
        tenant_shards: int,
        sums: Sums,
        state: dict[str, Any] | None,
        *,
        senders: Sequence[str],
    ) -> None:
        self._shard_key = shard_key
        self._log = log
        self._history = history
        self._horizon = Horizon(history)
        self._tenant_shards = tenant_shards
        self._sums = sums
        self._watermarks_ms = dict.fromkeys(senders, 0)
        if state is not None:
            _check_state(shard_key, state, senders)
            self._watermarks_ms = dict(state["watermarks_ms"])
        self._counts = IntakeCounts(shard_key, state and state["counts"])
        self._ids = DEDUPE_IDS.labels(shard_key)
        self._bytes = DEDUPE_BYTES.labels(shard_key)

    def process(self, items: list[Item]) -> list[Output]:
        """Decide all batches of the list, then pass the watermark on if a marker came.

        :raises InvariantViolation: a marker of an unknown sender, or an event below the watermark.
        """
        self._log.committed()  # does nothing but for the first call after a snapshot
        batches = [item for item in items if isinstance(item, ShardBatch)]
        markers = [item for item in items if isinstance(item, Marker)]
        accepted: list[tuple[pl.DataFrame, Revision]] = []
        rejects: list[pl.DataFrame] = []
        for revision, group in self._by_revision(batches):
            frame, rejected = self._decide(revision, group)
            if len(rejected):
                rejects.append(rejected)
            if len(frame):
                accepted.append((with_minutes(frame, revision.rules.grace_s), revision))

        out: list[Output] = [Accepted(frame) for frame, _ in accepted]
        out.extend(Rejects(frame) for frame in rejects)
        partials = [item for frame, revision in accepted for item in self._partials(frame, revision)]
        if markers:
            watermark_ms = self._advance(markers)
            counts = self._counts.emit(watermark_ms)
            if len(counts):
                out.append(Counts(counts))
            out.extend(partials)
            out.append(Marker(self._shard_key, watermark_ms))
        else:
            out.extend(partials)
        return out

    def snapshot(self) -> dict[str, Any]:
        """Sync the log and return the state as plain values."""
        watermark_ms = min(self._watermarks_ms.values())
        self._log.expire(max(0, self._horizon.from_minute(watermark_ms)))
        log = self._log.snapshot()
        self._ids.set(self._log.ids)
        self._bytes.set(self._log.disk_bytes)
        return {
            "version": VERSION,
            "log": log,
            "watermarks_ms": dict(self._watermarks_ms),
            "counts": self._counts.snapshot(),
        }

    # --- inside ------------------------------------------------------------------------------------------

    def _advance(self, markers: list[Marker]) -> int:
        for marker in markers:
            if marker.sender not in self._watermarks_ms:
                message = f"shard {self._shard_key}: marker of unknown sender {marker.sender}"
                raise InvariantViolation(message)
            known_ms = self._watermarks_ms[marker.sender]
            self._watermarks_ms[marker.sender] = max(known_ms, marker.watermark_ms)
        return min(self._watermarks_ms.values())

    def _by_revision(self, batches: list[ShardBatch]) -> list[tuple[Revision, list[ShardBatch]]]:
        """Group batches by the revision of their events; decode splits batches where one begins."""
        if len(self._history.revisions) == 1:
            return [(self._history.latest, batches)] if batches else []
        known = [(self._history.at(_entry_ms(batch)), batch) for batch in batches]
        known.sort(key=lambda pair: pair[0].known_from_ms)
        return [
            (pairs[0][0], [batch for _, batch in pairs])
            for _, group in groupby(known, key=lambda pair: pair[0].known_from_ms)
            for pairs in (list(group),)
        ]

    def _decide(self, revision: Revision, batches: list[ShardBatch]) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the accepted events and the rows for `usage_rejects`."""
        frame = pl.concat([batch.events for batch in batches], rechunk=True)
        if len(self._watermarks_ms) > 1:  # one sender sends in position order
            frame = frame.sort(POSITION)
        from_decode = pl.concat([batch.rejects for batch in batches])
        self._counts.add_rejects(from_decode.filter(pl.col("counted")))
        if frame.is_empty():
            return frame, from_decode
        entry_ms = frame.get_column("entry_ms").to_numpy()
        events = Events(
            hi=frame.get_column("identity_hi").to_numpy(),
            lo=frame.get_column("identity_lo").to_numpy(),
            content=frame.get_column("content").to_numpy(),
            void_content=frame.get_column("void_content").to_numpy(),
            is_void=frame.get_column("sign").to_numpy() < 0,
            minute=entry_ms // MS_PER_MINUTE,
            horizon_from=self._horizon.from_minutes(entry_ms),
        )
        decisions = decide(events, self._log)
        outcome = decisions.outcome
        unmetered = _unmetered(frame, revision)
        self._counts.add_decided(frame.get_column("stream").to_numpy(), entry_ms, outcome, unmetered)
        places = np.flatnonzero(outcome == ACCEPTED)
        if len(places):
            append_accepted(events, places, self._log)
        if len(places) == len(events):
            return _with_original_time(frame, decisions), from_decode
        kept = _with_original_time(frame, decisions).filter(pl.Series(outcome == ACCEPTED))
        return kept, _rejects(frame, events, decisions, from_decode)

    def _partials(self, frame: pl.DataFrame, revision: Revision) -> list[Partials]:
        sums = self._sums(frame, revision)
        if sums.is_empty():
            return []
        shard = shards_of(sums.get_column("tenant"), self._tenant_shards)
        return [Partials(number, sums.filter(shard == number)) for number in sorted(shard.unique().to_list())]


def _check_state(shard_key: str, state: dict[str, Any], senders: Sequence[str]) -> None:
    if state["version"] != VERSION:
        message = f"shard {shard_key}: state version {state['version']} is not {VERSION}: run the release that wrote it"
        raise StateMismatch(message)
    if set(state["watermarks_ms"]) != set(senders):
        message = (
            f"shard {shard_key}: the state knows the readers {sorted(state['watermarks_ms'])}, now they are "
            f"{sorted(senders)}: METERBRIDGE_FLOW__READERS is fixed at `migrate`, put it back"
        )
        raise StateMismatch(message)


def _entry_ms(batch: ShardBatch) -> int:
    frame = batch.events if len(batch.events) else batch.rejects
    return int(frame.item(0, "entry_ms")) if len(frame) else 0


def _unmetered(frame: pl.DataFrame, revision: Revision) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Return for each event whether no meter uses its type; for a void, the original's type."""
    used = {meter.event_type for meter in revision.meters.values()}
    types = frame.get_column("type")
    if used.issuperset(types.unique().to_list()):
        return np.zeros(len(frame), dtype=np.bool_)
    unmetered: np.ndarray[Any, np.dtype[np.bool_]] = (~types.is_in(sorted(used))).to_numpy().copy()
    for row in np.flatnonzero((types == VOID_TYPE).to_numpy()).tolist():
        unmetered[row] = original_type(frame.item(row, "raw")) not in used
    return unmetered


def _with_original_time(frame: pl.DataFrame, decisions: Decisions) -> pl.DataFrame:
    """Give voids of originals without a time the original's arrival minute as usage time."""
    if not frame.get_column("usage_time_us").null_count():
        return frame
    arrival = pl.Series(decisions.original_minute * US_PER_MINUTE)
    return frame.with_columns(pl.col("usage_time_us").fill_null(arrival))


def _rejects(frame: pl.DataFrame, events: Events, decisions: Decisions, from_decode: pl.DataFrame) -> pl.DataFrame:
    """Return decode's rows and those of conflicts and refused voids, in position order.

    Exception rows speak of accepted events, so those of events that do not count are left out.
    """
    outcome = decisions.outcome
    exceptions = ~pl.col("counted")
    if len(from_decode) and from_decode.select(exceptions.any()).item():
        dropped = frame.select(POSITION).filter(pl.Series(outcome != ACCEPTED))
        spoken = from_decode.filter(exceptions).join(dropped, on=POSITION, how="anti")
        from_decode = pl.concat([from_decode.filter("counted"), spoken])
    places = np.flatnonzero(outcome >= CONFLICT)
    if not len(places):
        return from_decode
    texts = [_explain(events, decisions, row) for row in places.tolist()]
    raw = frame.get_column("raw").gather(places).cast(pl.Binary).to_list()
    own = frame.select(POSITION)[places].with_columns(
        pl.Series("reason", [reason for reason, _ in texts], dtype=pl.String),
        pl.Series(
            "detail",
            [
                detail if len(text) <= RAW_BYTES_MAX else f"{detail}; raw cut at {RAW_BYTES_MAX} of {len(text)} bytes"
                for (_, detail), text in zip(texts, raw, strict=True)
            ],
            dtype=pl.String,
        ),
        pl.Series("raw", [text[:RAW_BYTES_MAX] for text in raw], dtype=pl.Binary),
        pl.Series("counted", np.ones(len(places), dtype=np.bool_)),
    )
    return pl.concat([from_decode, own]).sort(POSITION, maintain_order=True)


def _explain(events: Events, decisions: Decisions, row: int) -> tuple[str, str]:
    outcome, known = int(decisions.outcome[row]), int(decisions.known[row])
    content, void_content = int(events.content[row]), int(events.void_content[row])
    if outcome == CONFLICT:
        return "conflicting_duplicate", f"content digest {content:016x}, the accepted event has {known:016x}"
    if outcome == ALREADY_VOIDED:
        return "already_voided", f"void digest {void_content:016x}, the accepted void has {known:016x}"
    if known == 0:
        return "unmatched_void", f"no event with content digest {content:016x} was seen within the horizon"
    return "unmatched_void", f"the original's content digest is {known:016x}, the void says {content:016x}"
