"""What book has to give, computed the slow way from the design: plain tuples, dicts and Decimals."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

from config.revision import Configuration, History, Revision
from core.frames import EVENT_SCHEMA, QUANTITY
from operators.items import Exceptions, Facts

BORDER_MINUTE = 29_498_400
"""2026-02-01T00:00Z: a month and, for customer `weekly`, a week begins."""
CHANGE_MS = BORDER_MINUTE * 60_000
"""From here on the second revision counts."""
ADDITIVE = ("count", "sum")
METERS: Final[list[dict[str, Any]]] = [
    {"id": "calls", "event_type": "call", "aggregation": "count"},
    {"id": "tokens", "event_type": "call", "aggregation": "sum", "value": "$.n", "group_by": {"model": "$.model"}},
    {"id": "peak", "event_type": "call", "aggregation": "max", "value": "$.n"},
    {"id": "floor", "event_type": "call", "aggregation": "min", "value": "$.n", "group_by": {"model": "$.model"}},
    {"id": "level", "event_type": "call", "aggregation": "latest", "value": "$.n"},
    {
        "id": "users",
        "event_type": "call",
        "aggregation": "unique_count",
        "value": "$.user",
        "group_by": {"model": "$.model"},
    },
]
CONTRACT = {"plan": "p", "entity": "E", "from": "2020-01-01T00:00:00Z"}
CUSTOMERS = [
    {
        "id": "weekly",
        "subjects": ["weekly"],
        "contracts": [
            {**CONTRACT, "id": "w", "billing_period": {"unit": "week", "anchor": "2026-01-25", "timezone": "UTC"}}
        ],
    },
    {
        "id": "yearly",
        "subjects": ["yearly"],
        "contracts": [{**CONTRACT, "id": "y", "billing_period": {"unit": "year", "timezone": "America/New_York"}}],
    },
]
TENANTS = ("weekly", "yearly", "nobody")


def history(graces_s: tuple[int, int] = (60, 60), series_max: tuple[int, int] = (1000, 1000)) -> History:
    revisions = []
    for number, known_from_ms in enumerate((0, CHANGE_MS)):
        rules = {"grace_s": graces_s[number], "series_per_tenant_minute_max": series_max[number]}
        plain = {"meters": METERS, "customers": CUSTOMERS, "rules": rules}
        revisions.append(Revision(Configuration.model_validate(plain), known_from_ms))
    return History(revisions)


@dataclass(frozen=True)
class Event:
    """One accepted event, as a naive reader of the design sees it."""

    position: tuple[int, int, int, int]
    tenant: str
    time_us: int
    value: Decimal
    model: str
    user: str
    sign: int = 1
    excluded: tuple[str, ...] = ()
    """Meters whose filter excludes the event, or whose property it lacks."""

    def dimensions(self, meter: dict[str, Any]) -> str:
        return orjson.dumps({"model": self.model}).decode() if "group_by" in meter else "{}"


def exact(unscaled: int) -> Decimal:
    """Return that many times 10^-12; arithmetic would round it to the context's 28 digits."""
    return Decimal((int(unscaled < 0), tuple(map(int, str(abs(unscaled)))), -12))


def unscale(value: Decimal) -> int:
    sign, digits, exponent = value.as_tuple()
    assert exponent == -12 or not any(digits)
    return int("".join(map(str, digits))) * (-1 if sign else 1)


def to_frame(events: list[Event]) -> pl.DataFrame:
    """Return the events as decode and dedupe would hand them on."""
    rows: list[dict[str, Any]] = []
    for event in events:
        row: dict[str, Any] = dict(zip(("entry_ms", "stream", "entry_seq", "entry_index"), event.position, strict=True))
        row |= {"source": "s", "id": str(event.position), "type": "call", "tenant": event.tenant, "raw": "{}"}
        row |= {"event_time_us": event.time_us, "usage_time_us": event.time_us, "sign": event.sign}
        row |= {"identity_hi": 0, "identity_lo": 0, "content": 0, "void_content": 0}
        for meter in METERS:
            name = meter["id"]
            applies = name not in event.excluded
            unique = meter["aggregation"] == "unique_count"
            value = Decimal(1) if meter["aggregation"] == "count" else event.value
            row[f"v:{name}"] = value if applies and not unique else None
            row[f"u:{name}"] = event.user if applies and unique else None
            row[f"d:{name}"] = event.dimensions(meter) if applies else None
        rows.append(row)
    schema: dict[str, Any] = dict(EVENT_SCHEMA)
    for meter in METERS:
        schema |= {f"v:{meter['id']}": QUANTITY, f"u:{meter['id']}": pl.String, f"d:{meter['id']}": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


Key = tuple[str, str, str, int, int]
Fact = tuple[Decimal, int, int, int]
"""value, value_time_us, events, version"""


def minutes_of(event: Event, revisions: History) -> tuple[int, int]:
    usage_minute = event.time_us // 60_000_000
    grace_s = revisions.at(event.position[0]).rules.grace_s
    in_time = event.position[0] < (usage_minute + 1) * 60_000 + grace_s * 1000
    return usage_minute, usage_minute if in_time else event.position[0] // 60_000


def sealed(events: Iterable[Event], revisions: History) -> tuple[dict[Key, Fact], dict[tuple[str, str, int], int]]:
    """Return all sealed facts, and the events in overflow series by (tenant, meter, booked minute)."""
    groups: dict[Key, list[Event]] = {}
    for event in events:
        usage_minute, booked_minute = minutes_of(event, revisions)
        for meter in METERS:
            if meter["id"] in event.excluded or (event.sign < 0 and meter["aggregation"] not in ADDITIVE):
                continue
            key = (meter["id"], event.tenant, event.dimensions(meter), usage_minute, booked_minute)
            groups.setdefault(key, []).append(event)
    groups, folded = _limited(groups, revisions)
    facts = {}
    seen: set[tuple[str, str, str, str, str]] = set()
    for key in sorted(groups, key=lambda key: (key[4], key[3])):
        facts[key] = _fact(key, groups[key], seen)
    return facts, folded


def _limited(
    groups: dict[Key, list[Event]], revisions: History
) -> tuple[dict[Key, list[Event]], dict[tuple[str, str, int], int]]:
    firsts: dict[tuple[str, str, int], dict[str, tuple[int, ...]]] = {}
    for (meter, tenant, dimensions, _, booked), events in groups.items():
        series = firsts.setdefault((meter, tenant, booked), {})
        first = min(event.position for event in events)
        series[dimensions] = min(first, series.get(dimensions, first))
    out: dict[Key, list[Event]] = {}
    folded: dict[tuple[str, str, int], int] = {}
    for (meter, tenant, dimensions, usage, booked), events in groups.items():
        allowed = revisions.at(booked * 60_000).rules.series_per_tenant_minute_max
        series = firsts[meter, tenant, booked]
        name = dimensions
        if dimensions not in sorted(series, key=lambda name: series[name])[:allowed]:
            name = '{"__overflow__":"true"}'
            count = folded.get((tenant, meter, booked), 0)
            folded[tenant, meter, booked] = count + sum(event.sign for event in events)
        out.setdefault((meter, tenant, name, usage, booked), []).extend(events)
    return out, folded


def _period(tenant: str, usage_minute: int) -> str:
    return "year" if tenant == "yearly" else "after" if usage_minute >= BORDER_MINUTE else "before"


def _fact(key: Key, events: list[Event], seen: set[tuple[str, str, str, str, str]]) -> Fact:
    aggregation = next(meter["aggregation"] for meter in METERS if meter["id"] == key[0])
    time_us = 0
    value = Decimal(0)
    if aggregation == "count":
        value = Decimal(sum(event.sign for event in events))
    elif aggregation == "sum":
        value = exact(sum(event.sign * unscale(event.value) for event in events))
    elif aggregation == "max":
        value = max(event.value for event in events)
    elif aggregation == "min":
        value = min(event.value for event in events)
    elif aggregation == "latest":
        last = max(events, key=lambda event: (event.time_us, event.position))
        value, time_us = last.value, last.time_us
    else:
        new = {(*key[:3], _period(key[1], key[3]), event.user) for event in events} - seen
        seen |= new
        value = Decimal(len(new))
    return value, time_us, sum(event.sign for event in events), len(events)


class MemorySet:
    """An exact set in memory that keeps to the log's order of calls."""

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        self.values: dict[tuple[int, int], tuple[int, int]] = dict(state["values"]) if state else {}
        self.waiting = False
        self.commits = 0
        self.expired_before = 0

    def find(
        self, hi: npt.NDArray[np.uint64], lo: npt.NDArray[np.uint64], horizon_from_minute: int | npt.NDArray[Any]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.uint64], npt.NDArray[np.uint32]]:
        rows = [self.values.get(key) for key in zip(hi.tolist(), lo.tolist(), strict=True)]
        minutes = np.array([-1 if row is None else row[1] for row in rows], dtype=np.int64)
        found: npt.NDArray[np.bool_] = (minutes >= 0) & (minutes >= horizon_from_minute)
        content = np.array([row[0] if row else 0 for row in rows], dtype=np.uint64)
        return found, content, np.array([row[1] if row else 0 for row in rows], dtype=np.uint32)

    def append(
        self,
        hi: npt.NDArray[np.uint64],
        lo: npt.NDArray[np.uint64],
        content: npt.NDArray[np.uint64],
        arrival_minute: npt.NDArray[np.uint32],
    ) -> None:
        assert not self.waiting, "append between snapshot() and committed()"
        for key_hi, key_lo, payload, minute in zip(
            hi.tolist(), lo.tolist(), content.tolist(), arrival_minute.tolist(), strict=True
        ):
            assert (key_hi, key_lo) not in self.values, "added twice"
            self.values[key_hi, key_lo] = (payload, minute)

    def expire(self, before_minute: int) -> None:
        self.expired_before = max(self.expired_before, before_minute)

    def snapshot(self) -> dict[str, Any]:
        self.waiting = True
        return {"values": dict(self.values)}

    def committed(self) -> None:
        assert self.waiting, "committed() without a snapshot"
        self.waiting = False
        self.commits += 1


@dataclass
class Collected:
    """What a run emitted. Adding a sealed fact twice with other values fails."""

    facts: dict[Key, Fact] = field(default_factory=dict)
    open: dict[Key, Fact] = field(default_factory=dict)
    folded: dict[tuple[str, str, int], int] = field(default_factory=dict)
    minutes: list[int] = field(default_factory=list)

    def add(self, items: Iterable[object]) -> None:
        for item in items:
            if isinstance(item, Facts):
                self._add_facts(item.frame)
            elif isinstance(item, Exceptions):
                for row in item.frame.iter_rows(named=True):
                    self.folded[row["tenant"], row["meter"], row["booked_minute"]] = row["events"]

    def _add_facts(self, frame: pl.DataFrame) -> None:
        for row in frame.iter_rows(named=True):
            key = (row["meter"], row["tenant"], row["dimensions"], row["usage_minute"], row["booked_minute"])
            fact = (row["value"], row["value_time_us"], row["events"], row["version"])
            if row["sealed"]:
                assert self.facts.setdefault(key, fact) == fact, f"sealed fact changed: {key}"
                self.minutes.append(row["booked_minute"])
            else:
                self.open[key] = fact
