"""What the rate and document tests share: a small configuration, facts from events, and a plain driver."""

import zlib
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import polars as pl

from config.revision import Configuration, History, Revision
from core.frames import FACT_SCHEMA
from operators.items import Facts, Marker
from operators.rate import RateLogic, customer_shards
from operators.rate_fold import FOLD_ROWS
from operators.rate_terms import first_minute

GRACE_S = 60
T0 = 28_401_120
"""2024-01-01T00:00Z in minutes."""
HOUR0 = T0 // 60

ENTITY = {
    "id": "US01",
    "functional_currency": "USD",
    "timezone": "UTC",
    "accounts": {"unbilled_receivable": "1150", "usage_revenue": "4001"},
    "erp": {"company": "US01"},
}
METERS = [
    {"id": "tokens", "event_type": "t", "aggregation": "sum", "value": "$.tokens", "group_by": {"model": "$.model"}},
    {"id": "calls", "event_type": "t", "aggregation": "count"},
    {"id": "peak", "event_type": "t", "aggregation": "max", "value": "$.peak"},
    {"id": "level", "event_type": "t", "aggregation": "latest", "value": "$.level"},
    {"id": "dashboard", "event_type": "t", "aggregation": "count"},
]


def contract(identifier: str = "c1", **fields: Any) -> dict[str, Any]:
    """Return a contract on plan `p` from 2024 on."""
    return {"id": identifier, "plan": "p", "entity": "US01", "from": "2024-01-01T00:00:00Z"} | fields


def customer(identifier: str = "acme", subjects: Any = None, **fields: Any) -> dict[str, Any]:
    """Return a customer with one contract and one subject of its own name."""
    return {"id": identifier, "subjects": subjects or [identifier], "contracts": [contract()]} | fields


def version(*charges: dict[str, Any], currency: str = "USD", effective: str = "2023-01-01T00:00:00Z") -> dict[str, Any]:
    """Return a plan version."""
    return {"effective_from": effective, "currency": currency, "charges": list(charges)}


def revision(
    versions: list[dict[str, Any]],
    customers: list[dict[str, Any]] | None = None,
    known_from_ms: int = 0,
    rules: dict[str, Any] | None = None,
    entity: dict[str, Any] | None = None,
    plans: list[dict[str, Any]] | None = None,
) -> Revision:
    """Return a revision with plan `p` and the given customers."""
    plain = {
        "meters": METERS,
        "plans": [{"id": "p", "versions": versions}, *(plans or [])],
        "entities": [ENTITY | (entity or {})],
        "customers": [customer()] if customers is None else customers,
        "rules": {"grace_s": GRACE_S} | (rules or {}),
    }
    return Revision(Configuration.model_validate(plain), known_from_ms)


@dataclass(frozen=True, slots=True)
class Use:
    """One sealed fact to come: minutes are counted from T0."""

    usage_minute: int
    booked_minute: int
    quantity: str
    events: int = 1
    meter: str = "tokens"
    tenant: str = "acme"
    dimensions: str = "{}"


def facts(uses: list[Use], sealed: int = 1) -> pl.DataFrame:
    """Return facts (FACT_SCHEMA), one per key as book makes them: same keys summed (or merged)."""
    merged: dict[tuple[Any, ...], list[Any]] = {}
    for use in uses:
        key = (use.tenant, use.meter, use.dimensions, T0 + use.usage_minute, T0 + use.booked_minute)
        value = merged.setdefault(key, [None, 0, 0])
        quantity = Decimal(use.quantity)
        if value[0] is None:
            value[0] = quantity
        elif use.meter == "peak":
            value[0] = max(value[0], quantity)
        elif use.meter == "level":
            value[0] = quantity
        else:
            value[0] += quantity
        value[1] += use.events
        value[2] += 1
    rows = [
        (*key, value, key[3] * 60_000_000, events, inputs, sealed) for key, (value, events, inputs) in merged.items()
    ]
    return pl.DataFrame(rows, schema=FACT_SCHEMA, orient="row")


@dataclass
class Driver:
    """Feeds rate shards as the flow would, and gathers what they emit."""

    history: History
    shards: int = 1
    logics: list[RateLogic] = field(default_factory=list)
    out: list[Any] = field(default_factory=list)
    fold_rows: int = FOLD_ROWS

    def __post_init__(self) -> None:
        if not self.logics:
            self.logics = [self._logic(shard, None) for shard in range(self.shards)]

    def _logic(self, shard: int, state: dict[str, Any] | None) -> RateLogic:
        key = f"customer-{shard}"
        return RateLogic(key, shard, self.shards, ["book"], self.history, state, fold_rows=self.fold_rows)

    def send(self, frame: pl.DataFrame, watermark_minute: int | None = None) -> None:
        """Route facts to the shards, with a marker behind them if a watermark (minutes from T0) is given."""
        items: dict[int, list[Facts | Marker]] = {shard: [] for shard in range(self.shards)}
        for (hour,), part in frame.group_by(pl.col("booked_minute") // 60):
            known = self.history.at(int(str(hour)) * 3_600_000)
            for shard, rows in customer_shards(part, known, self.shards):
                items[shard].append(Facts(rows))
        for shard, logic in enumerate(self.logics):
            if watermark_minute is not None:
                items[shard].append(Marker("book", (T0 + watermark_minute) * 60_000))
            if items[shard]:
                self.out += logic.process(items[shard])

    def restart(self) -> None:
        """Stop and resume every shard from its snapshot."""
        self.logics = [self._logic(shard, logic.snapshot()) for shard, logic in enumerate(self.logics)]

    def rows(self, *statuses: str) -> pl.DataFrame:
        """Return the rated rows emitted so far with these statuses (default: all but provisional)."""
        frames = [item.frame for item in self.out if hasattr(item, "watermark_ms") and hasattr(item, "frame")]
        frame = pl.concat(frames) if frames else pl.DataFrame()
        if frame.is_empty():
            return frame
        return frame.filter(pl.col("status").is_in(list(statuses or ("sealed", "unrated"))))

    def exceptions(self) -> list[dict[str, Any]]:
        """Return the exceptions raised so far."""
        return [
            row
            for item in self.out
            if hasattr(item, "frame") and not hasattr(item, "watermark_ms")
            for row in item.frame.iter_rows(named=True)
        ]


def shard_for(name: str, shards: int) -> int:
    """Return the shard by the documented rule, written down once more."""
    return zlib.crc32(name.encode("utf-8")) % shards


def minute(text: str) -> int:
    """Return minutes from T0 of an RFC 3339 time."""
    from datetime import datetime  # noqa: PLC0415

    return first_minute(datetime.fromisoformat(text)) - T0


PER_TOKEN = {"id": "in", "meter": "tokens", "model": "per_unit", "unit_amount": "0.5"}
FLAT = {"id": "base", "model": "flat", "amount": "31", "accounting": {"recognition": "as_billable"}}
LEAST = PER_TOKEN | {"minimum": "62"}
DAY = 1440
JANUARY = 31 * DAY


def short(rows: pl.DataFrame) -> list[tuple[Any, ...]]:
    """Return (charge, usage hour, booked hour, kind, quantity, amount), hours from the first one."""
    return [
        (
            row["charge"],
            row["usage_hour"] - HOUR0,
            row["booked_hour"] - HOUR0,
            row["line_kind"],
            row["quantity"],
            row["amount"],
        )
        for row in rows.iter_rows(named=True)
    ]


def run(history: History, *uses: Use, end: int = 5 * DAY, shards: int = 1) -> Driver:
    """Rate these uses up to the end, in minutes from the first hour."""
    driver = Driver(history, shards)
    driver.send(facts(list(uses)), end)
    return driver
