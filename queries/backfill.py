"""What would become of history that is sent now: decided for each event before anything is sent.

The flow's own decoder and rules read the events as they would on arrival. An id that was accepted before is found in
ClickHouse however long ago that was, since the flow itself forgets ids behind its horizon: sent again, they would
count twice. Memory holds one batch of lines and sums by charge, whatever the size of the file.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal

import numpy as np
import orjson
import polars as pl

from config.period_closes import PeriodCloses
from config.revision import History
from operators.decode import Decoder
from operators.decode_plan import RevisionPlan
from operators.decode_slow import Accepted, decode_event
from operators.items import EVENT, RawBatch
from operators.rate_terms import Terms, index_of
from operators.rating.charges import amount
from operators.sums import ADDITIVE
from queries.pricing_of import charges_of
from queries.stores import EPOCH, Row, Stores, minute_of
from sinks.ledger import closes, retention
from sinks.ledger.database import read

Book = Literal["now", "open-periods"]
SEND, REJECTED, KNOWN, CONFLICT, UNTIMED, CLOSED = "send", "rejected", "known", "conflict", "untimed", "closed"
EXPIRED: Final = "expired"
HELD: Final = (REJECTED, CONFLICT, UNTIMED, CLOSED, EXPIRED)
"""Verdicts about which somebody has to do something; events that are known need nothing."""

TENANTS_MAX: Final = 100_000
CHARGES_MAX: Final = 50_000
"""More are counted, and not estimated."""
_US: Final = timedelta(microseconds=1)
_US_PER_MINUTE: Final = 60_000_000
_IDS_PER_QUERY: Final = 1_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one line: a code, and why."""

    code: str
    detail: str = ""


@dataclass
class Preview:
    """What a file holds, added up."""

    lines: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    """Of what is rejected, by reason code."""
    tenants: set[str] = field(default_factory=set)
    meters: dict[str, list[Any]] = field(default_factory=dict)
    """Per meter events and the sum of values (Decimal), voids taken off."""
    first: datetime | None = None
    last: datetime | None = None
    periods: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Events to be sent by entity, accounting period of the usage, and open or closed."""
    estimates: dict[str, Decimal] = field(default_factory=dict)
    """Per currency, of additive meters: what they would add to the charges of their billing periods."""
    not_estimated: int = 0
    """Values of meters that do not add up, or without a price."""


def _known_from_us(stores: Stores, future_s: int) -> int:
    """Return from which event time on every accepted event is still stored; it arrived at most `future_s` before."""
    expired = retention.expired_before(stores.engine).get(retention.EVENTS)
    return 0 if expired is None else (expired - EPOCH + timedelta(seconds=future_s)) // _US


_ChargeKey = tuple[str, str, str, int, str, str, datetime]


class Examiner:
    """Decides about lines, batch by batch, and adds them up. Not for two threads."""

    def __init__(self, stores: Stores, book: Book, now: datetime) -> None:
        self._stores, self._book, self._now = stores, book, now
        self._now_ms = (now - EPOCH) // timedelta(milliseconds=1)
        self._revision = stores.history.at(self._now_ms)
        self._history = History([self._revision])
        self._plan = RevisionPlan(self._revision)
        self._decoder = Decoder(self._history, stores.settings.redis.streams, 1)
        with read(stores.engine) as connection:
            self._closes: PeriodCloses = closes.load(connection)
        self._known_from_us = _known_from_us(stores, self._revision.rules.future_s)
        self._added: dict[_ChargeKey, tuple[Terms, Any, Decimal, int]] = {}
        self.preview = Preview()

    def examine(self, texts: list[bytes]) -> list[Verdict]:
        """Return a verdict per line."""
        count = len(texts)
        verdicts = [Verdict(REJECTED, "malformed_json")] * count
        batch = RawBatch(
            stream=np.zeros(count, np.uint16),
            entry_ms=np.full(count, self._now_ms, np.int64),
            entry_seq=np.arange(count, dtype=np.int64),
            kinds=np.full(count, EVENT, np.uint8),
            payloads=texts,
            details={},
        )
        for _, shard in self._decoder.decode(batch):
            for place, reason, detail in shard.rejects.filter("counted").select("entry_seq", "reason", "detail").rows():
                verdicts[place] = Verdict(REJECTED, f"{reason}: {detail}")
                self.preview.reasons[reason] += 1
            for place, verdict in self._accepted(shard.events).items():
                verdicts[place] = verdict
            sent = [place for place, verdict in enumerate(verdicts) if verdict.code == SEND]
            self._add(shard.events.filter(pl.col("entry_seq").is_in(sent)))
        self.preview.lines += count
        self.preview.verdicts.update(verdict.code for verdict in verdicts)
        return verdicts

    def _accepted(self, events: pl.DataFrame) -> dict[int, Verdict]:
        known = self._known(events)
        found: dict[int, Verdict] = {}
        columns = ("entry_seq", "source", "id", "tenant", "event_time_us", "usage_time_us", "content", "sign")
        for place, source, event_id, tenant, event_us, usage_us, content, sign in events.select(columns).rows():
            before = known.get((source, event_id))
            if before is not None and (sign < 0 or before == content):
                found[place] = Verdict(KNOWN)
            elif before is not None:
                found[place] = Verdict(CONFLICT, "an event with this source and id and other content was accepted")
            elif event_us < self._known_from_us:
                found[place] = Verdict(EXPIRED, "raw events of its time expired: whether it was counted cannot be told")
            elif event_us == self._now_ms * 1000:
                found[place] = Verdict(UNTIMED, "history needs a `time`; without one it would be usage of today")
            else:
                found[place] = self._in_period(tenant, usage_us or event_us)
        return found

    def _in_period(self, tenant: str, usage_us: int) -> Verdict:
        for terms in self._terms(tenant, usage_us // _US_PER_MINUTE):
            is_closed = self._closes.is_closed(terms.entity, terms.fiscal, self._now)
            if is_closed and self._book == "open-periods":
                return Verdict(CLOSED, f"{terms.fiscal.name} of {terms.entity.id} is closed")
        return Verdict(SEND)

    def _terms(self, tenant: str, minute: int) -> tuple[Terms, ...]:
        segments = index_of(self._revision).segments(tenant, minute // 60)
        return next((one.terms for one in segments if one.begins <= minute < one.ends), ())

    def _known(self, events: pl.DataFrame) -> dict[tuple[str, str], int | None]:
        """Return the content digests of those ids that were accepted before; the same event has the same time."""
        found: dict[tuple[str, str], int | None] = {}
        for part in events.sort("event_time_us").iter_slices(_IDS_PER_QUERY):
            rows = self._stores.rows(
                "SELECT source, id, data, toUnixTimestamp64Milli(ingest_time) AS arrived FROM @usage_events"
                " WHERE event_time >= {first:DateTime64(6)} AND event_time <= {last:DateTime64(6)}"
                " AND id IN {ids:Array(String)}",
                {
                    "first": EPOCH + int(part["event_time_us"][0]) * _US,
                    "last": EPOCH + int(part["event_time_us"][-1]) * _US,
                    "ids": part["id"].unique().to_list(),
                },
            )
            found |= {(row["source"], row["id"]): self._content(row) for row in rows}
        return found

    def _content(self, row: Row) -> int | None:
        raw = row["data"].encode() if isinstance(row["data"], str) else row["data"]
        decoded = decode_event(raw, int(row["arrived"]), self._plan)
        return int(decoded.columns["content"]) if isinstance(decoded, Accepted) else None

    # --- sums --------------------------------------------------------------------------------------------

    def _add(self, events: pl.DataFrame) -> None:
        if events.is_empty():
            return
        preview = self.preview
        preview.tenants.update(events["tenant"].unique().to_list()[: TENANTS_MAX - len(preview.tenants)])
        ordered = events["event_time_us"].sort()
        times = [EPOCH + int(ordered[place]) * _US for place in (0, -1)]
        preview.first = min(preview.first or times[0], times[0])
        preview.last = max(preview.last or times[1], times[1])
        usage = events.with_columns(pl.coalesce("usage_time_us", "event_time_us").alias("usage_us"))
        usage = usage.with_columns((pl.col("usage_us") // (60 * _US_PER_MINUTE)).alias("usage_hour"))
        for tenant, hour, count in usage.group_by("tenant", "usage_hour").len().rows():
            for terms in self._terms(tenant, hour * 60)[:1]:
                state = "closed" if self._closes.is_closed(terms.entity, terms.fiscal, self._now) else "open"
                preview.periods[terms.entity.id, terms.fiscal.name, state] += count
        for meter in self._revision.configuration.meters:
            column = f"u:{meter.id}" if meter.aggregation == "unique_count" else f"v:{meter.id}"
            own = usage.filter(pl.col(column).is_not_null())
            if own.is_empty():
                continue
            entry = preview.meters.setdefault(meter.id, [0, Decimal(0)])
            entry[0] += int(own["sign"].cast(pl.Int64).sum())
            if meter.aggregation not in ADDITIVE:
                preview.not_estimated += len(own)
                continue
            groups = own.group_by("tenant", f"d:{meter.id}", "usage_hour", "sign").agg(pl.col(column), pl.len())
            for tenant, dimensions, hour, sign, values, count in groups.rows():
                total = sum((meter.brings(value) for value in values), Decimal(0)) * sign
                entry[1] += total
                self._price(tenant, meter.id, dimensions, hour, (total, count * sign))

    def _price(self, tenant: str, meter: str, dimensions: str, hour: int, more: tuple[Decimal, int]) -> None:
        priced = charges_of(self._history, tenant, meter, orjson.loads(dimensions), hour * 60, minute_of(self._now))
        if not priced:
            self.preview.not_estimated += abs(more[1])
        for one in priced:
            terms = one.terms
            key = (
                *(terms.customer, terms.contract.id, terms.plan, terms.plan_version),
                *(one.charge.id, one.price_row, terms.period_start),
            )
            before = self._added.get(key)
            if before is None and len(self._added) >= CHARGES_MAX:
                self.preview.not_estimated += abs(more[1])
                continue
            quantity, events = (before[2], before[3]) if before else (Decimal(0), 0)
            self._added[key] = (terms, one.charge, quantity + more[0], events + more[1])

    def finish(self) -> Preview:
        """Estimate what the events add to their charges, from the quantities rated so far, and return the sums."""
        booked = self._booked()
        for key, (terms, charge, quantity, events) in self._added.items():
            rated, rated_events = booked.get(key, (Decimal(0), 0))
            if rated + quantity < 0 or rated_events + events < 0:
                self.preview.not_estimated += abs(events)
                continue
            after = amount(charge, rated + quantity, rated_events + events, final=False)
            added = after - amount(charge, rated, rated_events, final=False)
            self.preview.estimates[terms.currency] = self.preview.estimates.get(terms.currency, Decimal(0)) + added
        return self.preview

    def _booked(self) -> dict[_ChargeKey, tuple[Decimal, int]]:
        if not self._added:
            return {}
        blocks = self._stores.client.blocks(
            self._stores.resolved(
                "SELECT customer, contract, plan, plan_version, charge, price_row, period_start, sum(r.quantity),"
                " sum(r.events) FROM @rated_usage_current AS r WHERE status = 'sealed' AND customer IN"
                " {customers:Array(String)} AND period_start >= {first:DateTime64(6)} GROUP BY ALL"
            ),
            {
                "customers": sorted({key[0] for key in self._added}),
                "first": min(key[6] for key in self._added).astimezone(UTC),
            },
        )
        return {tuple(row[:7]): (row[7], int(row[8])) for block in blocks for row in block}
