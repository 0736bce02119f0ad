"""A naive batch oracle for the whole of intake and booking, written from the design, one event at a time.

Knows nothing of batches, shards, epochs or state: it sorts everything by position and walks through it once.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any
from zlib import crc32

import orjson

from config.meters import Meter
from config.revision import Configuration
from tests.flows.level_oracle import LevelChange, level_facts

DAY_MS = 86_400_000
PLACES = Decimal(1).scaleb(-12)


@dataclass
class Entry:
    """One stream entry as it is stored."""

    stream: int
    ms: int
    seq: int
    fields: dict[bytes, bytes]


@dataclass
class Result:
    """What must be in the stores. Facts are keyed (tenant, meter, dimensions, usage minute, booked minute)."""

    outcomes: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    facts: dict[tuple[str, str, str, int, int], tuple[Decimal, int, int]] = field(default_factory=dict)


def stream_of(subject: str, streams: int) -> int:
    """Return the stream a producer sends that subject to."""
    return crc32(subject.encode()) % streams


class Oracle:
    """Walks entries in position order."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._rules = configuration.rules
        self._seen: dict[tuple[str, str], tuple[int, Any, dict[str, Any]]] = {}
        self._voided: dict[tuple[str, str], Any] = {}
        self._result = Result()
        self._contributions: dict[tuple[str, str, str, int, int], list[tuple[Any, ...]]] = defaultdict(list)
        self._levels: dict[tuple[str, str, str], list[LevelChange]] = defaultdict(list)

    def run(self, entries: list[Entry]) -> Result:
        """Return outcomes and facts of all entries."""
        for entry in sorted(entries, key=lambda entry: (entry.ms, entry.stream, entry.seq)):
            names = set(entry.fields)
            if names == {b"event"}:
                self._event(entry, 0, entry.fields[b"event"])
            elif names == {b"events"}:
                lines = entry.fields[b"events"].split(b"\n")
                for index, line in enumerate(lines):
                    if line.strip():
                        self._event(entry, index, line)
            else:
                self._count("rejected", "malformed_entry")
        self._merge()
        return self._result

    def _count(self, outcome: str, reason: str = "") -> None:
        self._result.outcomes[outcome, reason] += 1

    def _event(self, entry: Entry, index: int, line: bytes) -> None:
        try:
            event = orjson.loads(line)
        except orjson.JSONDecodeError:
            return self._count("rejected", "malformed_json")
        if not isinstance(event, dict):
            return self._count("rejected", "malformed_json")
        reason = self._problem(event, entry.ms)
        if reason:
            return self._count("rejected", reason)
        if event["type"] == "meterbridge.void":
            return self._void(entry, index, event)
        values = self._values(event)
        if values is None:
            return self._count("rejected", "invalid_quantity")
        identity = (event["source"], event["id"])
        content = (event["subject"], event["type"], event.get("time"), event["data"])
        before = self._seen.get(identity)
        horizon_day = entry.ms // DAY_MS - self._rules.dedupe_horizon_days
        if before is not None and before[0] // DAY_MS >= horizon_day:
            same = before[1] == content
            return self._count(
                "duplicate" if same else "conflicting_duplicate", "" if same else "conflicting_duplicate"
            )
        self._seen[identity] = (entry.ms, content, values)
        self._count("accepted", self._unmetered(event))
        self._book(entry, index, event, values, 1, self._usage_us(event, entry.ms))
        return None

    def _void(self, entry: Entry, index: int, void: dict[str, Any]) -> None:
        event = void["data"]
        identity = (event["source"], event["id"])
        content = (event["subject"], event["type"], event.get("time"), event["data"])
        own = (void["source"], void["id"], event)
        before = self._seen.get(identity)
        if identity in self._voided:
            same = self._voided[identity] == own
            return self._count("duplicate" if same else "rejected", "" if same else "already_voided")
        if before is None or before[1] != content:
            return self._count("rejected", "unmatched_void")
        self._voided[identity] = own
        # Of the original's type: what was accepted and no meter used, events and voids alike, is told apart.
        self._count("accepted", self._unmetered(event))
        usage_us = self._usage_us(event, before[0]) if event.get("time") else before[0] // 60000 * 60_000_000
        self._book(entry, index, event, before[2], -1, usage_us)
        return None

    def _unmetered(self, event: dict[str, Any]) -> str:
        """Return the reason of an accepted event: `unmetered` if no meter uses its type."""
        return "" if any(meter.event_type == event["type"] for meter in self._configuration.meters) else "unmetered"

    def _problem(self, event: dict[str, Any], arrival_ms: int) -> str | None:
        for name in ("specversion", "id", "source", "type", "subject", "data"):
            if name not in event:
                return "missing_field"
        for name in ("id", "source", "type", "subject"):
            if not isinstance(event[name], str) or not event[name]:
                return "invalid_field"
        if event["specversion"] != "1.0" or not isinstance(event["data"], dict):
            return "invalid_field"
        if "time" in event:
            try:
                usage_ms = self._usage_us(event, arrival_ms) / 1000
            except (ValueError, TypeError, AttributeError):
                return "invalid_field"
            if usage_ms > arrival_ms + self._rules.future_s * 1000:
                return "future_time"
            if usage_ms < arrival_ms - self._rules.too_old_days * DAY_MS:
                return "too_old"
        return None

    @staticmethod
    def _usage_us(event: dict[str, Any], arrival_ms: int) -> int:
        if event.get("time") is None:
            return arrival_ms * 1000
        moment = datetime.fromisoformat(event["time"].replace("Z", "+00:00"))
        if moment.tzinfo is None:
            raise ValueError(event["time"])
        return int(moment.timestamp()) * 1_000_000 + moment.microsecond

    @staticmethod
    def _property(data: dict[str, Any], path: str) -> Any:
        current: Any = data
        for part in path.removeprefix("$.").split("."):
            current = current.get(part) if isinstance(current, dict) else None
        return current

    def _values(self, event: dict[str, Any]) -> dict[str, Any] | None:
        """Return the value per meter that applies; None if none of those that want to can read it."""
        values: dict[str, Any] = {}
        wanting = 0
        for meter in self._configuration.meters:
            if meter.event_type != event["type"]:
                continue
            if any(
                self._property(event["data"], meter.filter_path(dimension)) not in allowed
                for dimension, allowed in meter.filter.items()
            ):
                continue
            wanting += 1
            value = self._value(meter, event["data"])
            if value is not None:
                values[meter.id] = value
        return None if wanting and not values else values

    def _value(self, meter: Meter, data: dict[str, Any]) -> Any:
        if meter.aggregation == "count":
            return Decimal(1)
        raw = self._property(data, meter.value or "")
        if meter.aggregation == "unique_count":
            return None if raw is None or isinstance(raw, dict | list) else str(raw)
        if isinstance(raw, bool) or not isinstance(raw, str | int | float):
            return None
        try:
            value = Decimal(raw if isinstance(raw, str) else repr(raw))
        except InvalidOperation:
            return None
        if not value.is_finite() or abs(value) >= Decimal(10) ** 18 or (value < 0 and not meter.allow_negative):
            return None
        value = value.quantize(PLACES, ROUND_HALF_EVEN)
        if meter.per_event is not None:
            terms = meter.per_event
            value = value * terms.rate_percent / 100 + terms.fixed_amount
            value = min(value, value if terms.maximum is None else terms.maximum)
            value = max(value, value if terms.minimum is None else terms.minimum)
        return value.quantize(PLACES, ROUND_HALF_EVEN)

    def _book(
        self, entry: Entry, index: int, event: dict[str, Any], values: dict[str, Any], sign: int, usage_us: int
    ) -> None:
        usage_minute = usage_us // 60_000_000
        in_time = entry.ms < (usage_minute + 1) * 60_000 + self._rules.grace_s * 1000
        booked_minute = usage_minute if in_time else entry.ms // 60_000
        meters = {meter.id: meter for meter in self._configuration.meters}
        for name, value in values.items():
            meter = meters[name]
            if sign < 0 and meter.aggregation not in ("count", "sum", "weighted_sum"):
                continue
            dimensions = {key: self._text(self._property(event["data"], path)) for key, path in meter.group_by.items()}
            key = (
                event["subject"],
                name,
                orjson.dumps(dimensions, option=orjson.OPT_SORT_KEYS).decode(),
                usage_minute,
                booked_minute,
            )
            position = (entry.ms, entry.stream, entry.seq, index)
            if meter.aggregation == "weighted_sum":
                identity = (event["source"], event["id"])
                change = LevelChange(booked_minute, usage_us, position, identity, value, sign)
                self._levels[key[:3]].append(change)
                continue
            self._contributions[key].append((sign, value, usage_us, position))

    @staticmethod
    def _text(value: Any) -> str:
        if value is None:
            return ""
        return value if isinstance(value, str) else orjson.dumps(value).decode()

    def _merge(self) -> None:
        meters = {meter.id: meter for meter in self._configuration.meters}
        seen_values: set[tuple[str, str, str, str, Any]] = set()
        for key in sorted(self._contributions, key=lambda key: (key[4], key[3], key)):
            tenant, name, dimensions, usage_minute, _ = key
            rows = self._contributions[key]
            aggregation = meters[name].aggregation
            if aggregation in ("count", "sum"):
                value = sum((sign * value for sign, value, _, _ in rows), Decimal(0))
            elif aggregation == "max":
                value = max(row[1] for row in rows)
            elif aggregation == "min":
                value = min(row[1] for row in rows)
            elif aggregation == "latest":
                value = max(rows, key=lambda row: (row[2], row[3]))[1]
            else:
                month = f"{datetime.fromtimestamp(usage_minute * 60, UTC):%Y-%m}"
                fresh = {(tenant, name, dimensions, month, row[1]) for row in rows} - seen_values
                seen_values |= fresh
                value = Decimal(len(fresh))
            self._result.facts[key] = (Decimal(value), sum(row[0] for row in rows), len(rows))
        for series, changes in self._levels.items():
            expiry = meters[series[1]].level_expiry
            assert expiry is not None, "without it levels are booked up to the clock, which this oracle does not know"
            expiry_us = expiry // timedelta(microseconds=1)
            until_hour = (max(change.time_us for change in changes) + expiry_us) // 3_600_000_000 + 1
            for minutes, fact in level_facts(changes, expiry_us, until_hour).items():
                self._result.facts[*series, *minutes] = fact
