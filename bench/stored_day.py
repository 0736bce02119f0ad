"""A day of usage as the flow would have stored it, made inside ClickHouse: questions are measured on it.

Events are made from numbers, facts from the events, rated rows from the facts and documents from the rated rows, so
that every identity holds. Tenants differ in size by powers, as they do in practice; one event in eight is not a
completion.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from config.revision import Configuration, Revision
from config.settings import Settings
from sinks import clickhouse, ledger
from sinks.clickhouse.client import Client, connect
from sinks.ledger import documents, progress, revisions
from sinks.ledger.act_documents import ActDocument, act_key
from sinks.ledger.database import write
from tests.stack.servers import ClickHouseProcess

START: Final = datetime(2026, 9, 1, tzinfo=UTC)
TENANTS: Final = 1_000
HOURS: Final = 24
MEMORY_BYTES_MAX: Final = 4 << 30
_EVENTS_PER_INSERT: Final = 1_000_000
_DOCUMENTS_PER_STAGE: Final = 2_000
_SETTINGS: Final = {"max_partitions_per_insert_block": 1000, "max_insert_threads": 2}

PRICES: Final = {"input": "0.01", "output": "0.02", "requests": "0.05", "seats": "1.00"}
"""Unit amount per charge, each named like its meter: whole cents, so that nothing is rounded."""
MONEY: Final = [Decimal(price) for price in PRICES.values()]


def configuration() -> Configuration:
    """Return five meters, four of them priced, and one customer a tenant."""
    completion = {"event_type": "llm.completion"}
    by_model = {"model": "$.model", "region": "$.region"}
    meters = [
        completion | {"id": "input", "aggregation": "sum", "value": "$.input_tokens", "group_by": by_model},
        completion
        | {"id": "output", "aggregation": "sum", "value": "$.output_tokens", "group_by": by_model}
        | {"filter": {"model": ["large", "small"]}},
        completion | {"id": "requests", "aggregation": "count", "group_by": {"model": "$.model"}},
        {"id": "gib_max", "event_type": "storage.level", "aggregation": "max", "value": "$.gib"},
        {"id": "seats", "event_type": "seat.active", "aggregation": "unique_count", "value": "$.user"},
    ]
    charges = [{"id": name, "meter": name, "model": "per_unit", "unit_amount": price} for name, price in PRICES.items()]
    plan = {
        "id": "p",
        "versions": [{"effective_from": "2026-01-01T00:00:00Z", "currency": "USD", "charges": charges}],
    }
    entity = {
        "id": "US01",
        "functional_currency": "USD",
        "timezone": "UTC",
        "accounts": {"unbilled_receivable": "1150", "usage_revenue": "4001"},
        "erp": {"company": "US01"},
    }
    contract = {"plan": "p", "entity": "US01", "from": "2026-01-01T00:00:00Z"}
    customers = [
        {"id": f"c{number}", "subjects": [f"s{number}"], "contracts": [contract | {"id": f"k{number}"}]}
        for number in range(TENANTS)
    ]
    plain = {"meters": meters, "plans": [plan], "entities": [entity], "customers": customers}
    return Configuration.model_validate(plain | {"rules": {"books_open_at": START.isoformat()}})


# One event every (86,400 s / events); its position in the day decides everything else, by a hash.
EVENTS: Final = """
INSERT INTO usage_events
    (tenant, source, id, type, event_time, stream, entry_id, entry_index, ingest_time, booked_minute, data, entry_seq)
WITH
    cityHash64(number) AS h,
    toUInt32(floor({tenants:UInt32} * pow((h % 1000003) / 1000003., 2.5))) AS tenant_number,
    {start_ms:UInt64} + intDiv(number * {day_ms:UInt64}, {events:UInt64}) AS ms,
    number % 100000 AS seq,
    multiIf(h % 64 < 4, 'storage.level', h % 64 < 8, 'seat.active', 'llm.completion') AS kind,
    concat('s', toString(tenant_number)) AS subject,
    formatDateTime(fromUnixTimestamp64Milli(toInt64(ms), 'UTC'), '%Y-%m-%dT%H:%i:%SZ') AS time_text,
    ['large', 'small', 'embed'][1 + bitShiftRight(h, 8) % 3] AS model,
    ['eu', 'us', 'ap'][1 + bitShiftRight(h, 12) % 3] AS region,
    concat('e-', hex(h), '-', toString(number)) AS event_id
SELECT
    subject, 'gateway', event_id, kind, toDateTime64(intDiv(ms, 1000), 6, 'UTC'),
    concat('usage:', toString(tenant_number % 4)), concat(toString(ms), '-', toString(seq)), 0,
    fromUnixTimestamp64Milli(toInt64(ms), 'UTC'), toStartOfMinute(toDateTime(intDiv(ms, 1000), 'UTC')),
    concat('{"specversion":"1.0","id":"', event_id, '","source":"gateway","type":"', kind, '","subject":"', subject,
        '","time":"', time_text, '","data":',
        multiIf(
            kind = 'storage.level', concat('{"gib":"', toString(bitShiftRight(h, 16) % 5000), '.5"}'),
            kind = 'seat.active', concat('{"user":"u', toString(number), '"}'),
            concat('{"model":"', model, '","region":"', region, '","input_tokens":',
                toString(1 + bitShiftRight(h, 20) % 4000), ',"output_tokens":', toString(bitShiftRight(h, 32) % 900),
                ',"request":"', hex(h), '","latency_ms":', toString(bitShiftRight(h, 24) % 3000), '}')),
        '}'),
    seq
FROM numbers({first:UInt64}, {count:UInt64})
"""

FACTS: Final = """
INSERT INTO usage_facts
    (tenant, meter, dimensions, usage_minute, booked_minute, value, value_time, events, version, sealed)
WITH JSONExtract(data, 'data', 'Tuple(model String, region String, input_tokens UInt32, output_tokens UInt32,
    gib Decimal(38, 12), user String)') AS d
SELECT tenant, fact.1 AS meter, fact.2 AS dimensions, booked_minute, booked_minute,
    if(meter = 'gib_max', max(fact.3), sum(fact.3)), toDateTime64(0, 6, 'UTC'), count(), count(), 1
FROM usage_events
ARRAY JOIN arrayConcat(
    if(type = 'llm.completion', [
        ('input', map('model', d.model, 'region', d.region), toDecimal128(d.input_tokens, 12)),
        ('requests', map('model', d.model), toDecimal128(1, 12))], []),
    if(type = 'llm.completion' AND d.model != 'embed', [
        ('output', map('model', d.model, 'region', d.region), toDecimal128(d.output_tokens, 12))], []),
    if(type = 'storage.level', [('gib_max', CAST(map(), 'Map(String, String)'), d.gib)], []),
    if(type = 'seat.active', [('seats', CAST(map(), 'Map(String, String)'), toDecimal128(1, 12))], [])) AS fact
WHERE booked_minute >= {from:DateTime} AND booked_minute < {to:DateTime}
GROUP BY tenant, meter, dimensions, booked_minute
"""

RATED: Final = """
INSERT INTO rated_usage
    (customer, contract, entity, plan, plan_version, charge, price_row, meter, period_start, usage_hour, booked_hour,
     accounting_period, line_kind, quantity, events, amount, revenue_amount, amount_before, amount_after, currency,
     config_version, status, version, tenant)
SELECT replaceOne(tenant, 's', 'c'), replaceOne(tenant, 's', 'k'), 'US01', 'p', 1, meter, '', meter,
    toDateTime64({start:DateTime}, 6, 'UTC'), toStartOfHour(usage_minute), toStartOfHour(booked_minute), '2026-09',
    'usage', sum(f.value) AS quantity, sum(f.events),
    quantity * transform(toString(meter), {meters:Array(String)}, {prices:Array(Decimal(18, 2))},
        toDecimal64(0, 2)) AS amount,
    amount, 0, 0, 'USD', 'bench', 'sealed', 1, ''
FROM usage_facts AS f WHERE meter IN {meters:Array(String)}
GROUP BY tenant, meter, toStartOfHour(usage_minute), toStartOfHour(booked_minute)
"""

COUNTS: Final = """
INSERT INTO intake_counts (stream, shard, ingest_minute, outcome, reason, events)
SELECT stream, 'bench', toStartOfMinute(ingest_time), 'accepted', '', count() FROM usage_events GROUP BY ALL
"""


@contextmanager
def stored_day(directory: Path, events: int, *, with_books: bool = True) -> Iterator[Settings]:
    """Start a ClickHouse with that many events of one day, and, if asked for, all that follows from them."""
    with served(directory) as (found, _):
        with connect(found.clickhouse) as client:
            _fill(client, events, with_books=with_books)
            made = list(documents_since(client, START)) if with_books else []
            books(found, client, made, START + timedelta(hours=HOURS + 1))
        yield found


@contextmanager
def served(directory: Path) -> Iterator[tuple[Settings, int]]:
    """Start a ClickHouse with our tables, and nothing in them; yield settings and its process."""
    server = ClickHouseProcess(directory / "clickhouse", MEMORY_BYTES_MAX)
    server.start()
    try:
        base = Settings()
        found = base.model_copy(
            update={
                "state_dir": directory,
                "clickhouse": base.clickhouse.model_copy(
                    update={"url": server.url, "database": "bench", "request_timeout_s": 900.0}
                ),
            }
        )
        clickhouse.migrate(found.clickhouse)
        yield found, server.pid
    finally:
        server.stop()


def _run(client: Client, text: str, parameters: dict[str, Any]) -> None:
    first = text.lstrip().split("\n", 1)[0]
    qualified = text.replace("INSERT INTO ", "INSERT INTO bench.").replace("FROM usage_", "FROM bench.usage_")
    client.command(qualified, parameters, _SETTINGS | {"log_comment": first})


def _fill(client: Client, events: int, *, with_books: bool) -> None:
    day_ms = HOURS * 3_600_000
    common = {"tenants": TENANTS, "start_ms": int(START.timestamp() * 1000), "day_ms": day_ms, "events": events}
    for first in range(0, events, _EVENTS_PER_INSERT):
        count = min(_EVENTS_PER_INSERT, events - first)
        _run(client, EVENTS, common | {"first": first, "count": count})
    _run(client, COUNTS, {})
    if not with_books:
        return
    for hour in range(HOURS):  # as the flow writes them: in the order of time
        begins = START + timedelta(hours=hour)
        _run(client, FACTS, {"from": begins, "to": begins + timedelta(hours=1)})
    _run(client, RATED, {"start": START, "meters": list(PRICES), "prices": MONEY})


def books(found: Settings, client: Client, made: list[ActDocument], watermark: datetime) -> None:
    """Make the ledger: the configuration, these documents with their copies, and how far everything is booked."""
    ledger.migrate(found.ledger_url)
    engine = ledger.connect(found.ledger_url)
    revisions.record_revision(engine, Revision(configuration()), START)
    for first in range(0, len(made), _DOCUMENTS_PER_STAGE):
        with write(engine) as connection:
            if documents.stage(connection, made[first : first + _DOCUMENTS_PER_STAGE], 1):
                message = "the generated documents were refused"
                raise AssertionError(message)
    if made:
        client.insert_arrow("financial_documents", _copies(made))
    with write(engine) as connection:
        documents.promote(connection, None)
        progress.put(connection, progress.PROMOTED, progress.Progress(1, int(watermark.timestamp() * 1000)))
    engine.dispose()


def documents_since(client: Client, since: datetime) -> Iterator[ActDocument]:
    """Yield a document per customer and booked hour, with the entries of its sealed rated rows."""
    rows = client.query(
        "SELECT customer, toUnixTimestamp(booked_hour) AS booked,"
        " groupArray((toString(charge), quantity, events, amount)) FROM bench.rated_usage FINAL"
        " WHERE status = 'sealed' AND booked_hour >= {since:DateTime}"
        " GROUP BY customer, booked ORDER BY booked, customer",
        {"since": since},
    ).result_rows
    for customer, booked, entries in rows:
        hour = booked // 3600
        contract = customer.replace("c", "k")
        lines = [
            _line(charge, quantity, events, amount, side, role)
            for charge, quantity, events, amount in sorted(entries)
            for side, role in (("debit", "unbilled_receivable"), ("credit", "usage_revenue"))
        ]
        yield ActDocument(
            {
                "key": act_key("US01", customer, str(hour)),
                "entity": "US01",
                "customer": customer,
                "contract": contract,
                "currency": "USD",
                "booked_hour": hour,
                "accounting_period": "2026-09",
                "posting_date": f"{START:%Y-%m-%d}",
                "kind": "accrual",
                "config_version": "bench",
                "total": f"{sum(amount for *_, amount in entries):.2f}",
                "lines": lines,
            }
        )


def _line(charge: str, quantity: Decimal, events: int, amount: Decimal, side: str, role: str) -> dict[str, Any]:
    return {
        "kind": "usage",
        "account_role": role,
        "side": side,
        "amount": f"{amount:.2f}",
        "amount_exact": f"{amount:.12f}",
        "swapped": False,
        "quantity": f"{quantity:.12f}",
        "events": events,
        "plan": "p",
        "plan_version": 1,
        "charge": charge,
        "price_row": "",
        "meter": charge,
        "period_start": f"{START:%Y-%m-%dT%H:%M:%SZ}",
        "dimensions": {},
    }


def _copies(made: list[ActDocument]) -> pa.Table:
    names = ("key", "digest", "entity", "customer", "contract", "currency", "accounting_period", "kind")
    columns: dict[str, Any] = {name: [getattr(one, name) for one in made] for name in names}
    columns["booked_hour"] = pa.array([one.booked_hour * 3600 for one in made], pa.uint32())
    columns["lines"] = ["[]"] * len(made)
    columns["posting_key"] = columns["status"] = [""] * len(made)
    columns["total"] = pa.array([Decimal(0)] * len(made), pa.decimal128(38, 12))
    return pa.table(columns)
