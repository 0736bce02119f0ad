"""The life of one event: arrival, outcome, facts, rated rows, documents, postings (design 2.7, the way forward).

Every step is a look-up by key: the event, refused ones and voids by the filter on the id, its facts by tenant, meter
and minutes, its rated rows by customer and booked hour, documents by the hour. The meters' values are read from the
event again, by the same decoder and the revision that was known when it arrived; what the stores hold is then looked
up, never assumed.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import orjson

from core.errors import MeterbridgeError
from core.reasons import VOID_TYPE
from core.redis_client import connect, guarded
from operators.decode_plan import RevisionPlan
from operators.decode_slow import Accepted, decode_event
from queries.document_state import document_states
from queries.pricing_of import charges_of
from queries.stores import Row, Stores, minute_of, of_hour, of_minute
from sources.entries import REQUEST_FIELD

_US_PER_MINUTE: Final = 60_000_000
_MINUTES_PER_HOUR: Final = 60
_ROWS_MAX: Final = 1_000
_EVENT_COLUMNS: Final = (
    "tenant, source, id, type, event_time, stream, entry_id, entry_index, ingest_time, booked_minute, data"
)


@dataclass(slots=True)
class MeterTrace:
    """What the event brought to one meter, and what became of it."""

    meter: str
    aggregation: str
    value: Any
    dimensions: dict[str, str]
    usage_minute: datetime
    booked_minute: datetime
    facts: list[Row] = field(default_factory=list)
    rated: list[Row] = field(default_factory=list)
    documents: list[Row] = field(default_factory=list)


@dataclass(slots=True)
class EventTrace:
    """Everything known about one (source, id)."""

    source: str
    id: str
    accepted: Row | None = None
    refused: list[Row] = field(default_factory=list)
    """Rejected and conflicting occurrences, and exception rows of the accepted one."""
    voids: list[Row] = field(default_factory=list)
    meters: list[MeterTrace] = field(default_factory=list)
    request: str | None = None
    """Id of the API request that brought it, while its stream entry is there to be asked."""

    @property
    def outcome(self) -> str:
        """Return one word: accepted, voided, rejected or unknown."""
        if self.accepted is None:
            return "rejected" if self.refused else "unknown"
        return "voided" if self.voids else "accepted"


def trace_event(stores: Stores, source: str, event_id: str) -> EventTrace:
    """Return the life of the event with that CloudEvents source and id.

    Occurrences dropped as duplicates leave a count, not a row: they are not found here.
    """
    trace = EventTrace(source, event_id)
    found = stores.rows(
        f"SELECT {_EVENT_COLUMNS} FROM @usage_events"  # noqa: S608
        " WHERE id = {id:String} AND source = {source:String}"
        " ORDER BY ingest_time, stream, entry_seq, entry_index LIMIT 1",
        {"id": event_id, "source": source},
    )
    if found:
        trace.accepted = found[0]
    trace.refused = _refused(stores, source, event_id)
    if trace.accepted is not None:
        trace.voids = _voids(stores, trace.accepted)
        trace.meters = _meters(stores, trace.accepted)
        trace.request = _request(stores, trace.accepted)
    return trace


def _request(stores: Stores, event: Row) -> str | None:
    """Return the request that the event's stream entry names; None if it names none, is trimmed, or Redis is away."""
    settings = stores.settings.redis
    try:
        with connect(settings) as client, guarded(settings):
            found: Any = client.xrange(event["stream"], event["entry_id"], event["entry_id"], count=1)
    except MeterbridgeError:
        return None
    named = found[0][1].get(REQUEST_FIELD) if found else None
    return None if named is None else named.decode("utf-8", "replace")


def _refused(stores: Stores, source: str, event_id: str) -> list[Row]:
    """Return rejects of that source and id; where the bytes cannot be read, those that hold both as JSON strings."""
    rows = stores.rows(
        "SELECT DISTINCT stream, entry_id, entry_index, ingest_time, reason, detail, counted, raw FROM @usage_rejects"
        " WHERE event_id IN ({event:String}, '') AND position(raw, {id:String}) > 0"
        " AND position(raw, {source:String}) > 0 ORDER BY ingest_time LIMIT {limit:UInt32}",
        {
            "event": event_id,
            "id": orjson.dumps(event_id).decode(),
            "source": orjson.dumps(source).decode(),
            "limit": _ROWS_MAX,
        },
    )
    return [row for row in rows if _names(row["raw"]) in (None, (source, event_id))]


def _names(raw: str) -> tuple[Any, Any] | None:
    """Return source and id of a refused event, or None if its bytes are no JSON object."""
    try:
        event = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return (event.get("source"), event.get("id")) if isinstance(event, dict) else None


def _voids(stores: Stores, event: Row) -> list[Row]:
    """Return accepted voids of the event; they arrive behind it, within the horizon of duplicates."""
    horizon = timedelta(days=stores.history.latest.rules.dedupe_horizon_days + 1)
    return stores.rows(
        "SELECT DISTINCT source, id, stream, entry_id, ingest_time, booked_minute FROM @usage_events"
        " WHERE ingest_time >= {from:DateTime64(3)} AND ingest_time < {to:DateTime64(3)} AND type = {void:String}"
        " AND tenant = {tenant:String} AND void_of = {id:String}"
        " AND JSONExtractString(data, 'data', 'source') = {source:String} ORDER BY ingest_time LIMIT 10",
        {
            "from": event["ingest_time"],
            "to": event["ingest_time"] + horizon,
            "void": VOID_TYPE,
            "tenant": event["tenant"],
            "id": event["id"],
            "source": event["source"],
        },
    )


def _meters(stores: Stores, event: Row) -> list[MeterTrace]:
    entry_ms = int(event["entry_id"].split("-")[0])
    revision = stores.history.at(entry_ms)
    raw = event["data"].encode() if isinstance(event["data"], str) else event["data"]
    verdict = decode_event(raw, entry_ms, RevisionPlan(revision))
    if not isinstance(verdict, Accepted) or verdict.columns["usage_time_us"] is None:
        return []
    usage_minute = verdict.columns["usage_time_us"] // _US_PER_MINUTE
    booked_minute = minute_of(event["booked_minute"])
    traces = []
    for meter in revision.configuration.meters:
        column = f"u:{meter.id}" if meter.aggregation == "unique_count" else f"v:{meter.id}"
        value, text = verdict.columns.get(column), verdict.columns.get(f"d:{meter.id}")
        if value is None or text is None:
            continue
        trace = MeterTrace(
            meter.id,
            meter.aggregation,
            meter.brings(value) if isinstance(value, Decimal) else value,
            orjson.loads(text),
            of_minute(usage_minute),
            of_minute(booked_minute),
        )
        _follow(stores, event["tenant"], trace, usage_minute, booked_minute)
        traces.append(trace)
    return traces


def _follow(stores: Stores, tenant: str, trace: MeterTrace, usage_minute: int, booked_minute: int) -> None:
    """Add the facts, rated rows and documents."""
    usage, booked = "usage_minute = {usage:DateTime}", trace.booked_minute
    if trace.aggregation == "weighted_sum":
        # A level is booked by the hour: in time with its hour, late in all hours that it corrects.
        usage = "usage_minute >= toStartOfHour({usage:DateTime})"
        if usage_minute // _MINUTES_PER_HOUR == booked_minute // _MINUTES_PER_HOUR:
            booked = of_hour(usage_minute // _MINUTES_PER_HOUR) + timedelta(minutes=_MINUTES_PER_HOUR - 1)
    trace.facts = stores.rows(
        "SELECT usage_minute, value, events, version, sealed FROM @usage_facts_current WHERE tenant = {tenant:String}"  # noqa: S608
        f" AND meter = {{meter:String}} AND booked_minute = {{booked:DateTime}} AND {usage}"
        " AND mapSort(dimensions) = mapSort(mapFromArrays({names:Array(String)}, {texts:Array(String)}))"
        f" ORDER BY usage_minute LIMIT {_ROWS_MAX}",
        {
            "tenant": tenant,
            "meter": trace.meter,
            "booked": booked,
            "usage": trace.usage_minute,
            "names": list(trace.dimensions),
            "texts": list(trace.dimensions.values()),
        },
    )
    documents: dict[str, Row] = {}
    priced = charges_of(stores.history, tenant, trace.meter, trace.dimensions, usage_minute, booked_minute)
    for each in priced:
        rows = stores.rows(
            "SELECT customer, contract, plan, plan_version, charge, price_row, usage_hour, booked_hour,"
            " accounting_period, line_kind, quantity, events, amount, currency, status, config_version"
            " FROM @rated_usage_current WHERE customer = {customer:String} AND booked_hour = {booked:DateTime}"
            " AND contract = {contract:String} AND charge = {charge:String} AND price_row = {row:String}"
            " AND usage_hour = {usage:DateTime} AND meter = {meter:String}",
            {
                "customer": each.terms.customer,
                "contract": each.terms.contract.id,
                "charge": each.charge.id,
                "row": each.price_row,
                "booked": of_hour(each.booked_hour),
                "usage": of_hour(usage_minute // 60),
                "meter": trace.meter,
            },
        )
        trace.rated.extend(rows)
        for row in rows:
            documents |= {found["key"]: found for found in document_states(stores, row)}
    trace.documents = list(documents.values())
