"""A month of facts as the flow would have stored them, made inside ClickHouse, for questions and pages.

Tenants differ in size as one over their rank; a series has at most one fact a minute. One fact in fifty came late, by
up to a day. One in twenty was written again as an open row after it was sealed, as a replay does; the last hour is
open.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from bench.stored_day import EVENTS, MONEY, PRICES, books, configuration, documents_since, served
from config.revision import Revision
from config.settings import Settings
from sinks.clickhouse import usage_hours
from sinks.clickhouse.client import Client, connect
from sinks.clickhouse.meters import record_meters

START: Final = datetime(2026, 9, 1, tzinfo=UTC)
DAYS: Final = 30
HOURS: Final = 24 * DAYS
TENANTS: Final = 1_000
OPEN: Final = START + timedelta(hours=HOURS - 1)
"""Up to here everything is sealed."""
LAST_DAY: Final = START + timedelta(days=DAYS - 1)
_FACTS_PER_INSERT: Final = 4_000_000
_EVENTS: Final = 500_000
_SETTINGS: Final = {"max_partitions_per_insert_block": 1000, "max_insert_threads": 2}

SERIES: Final = 20
"""Of each tenant: nine of `input`, six of `output`, three of `requests`, one of `gib_max` and one of `seats`."""

# A row per tenant, series, hour and place in the hour. `perhaps` decides the fraction of a fact that a series has.
FACTS: Final = """
INSERT INTO usage_facts
    (tenant, meter, dimensions, usage_minute, booked_minute, value, value_time, events, version, sealed)
SELECT
    concat('s', toString(rank)), meter, dimensions, usage_minute, booked_minute,
    if(meter IN ('requests', 'seats'), toDecimal128(1 + h % 40, 12), toDecimal128(1 + h % 40000, 12) / 8),
    if(meter = 'gib_max', toDateTime64(usage_minute, 6, 'UTC'), toDateTime64(0, 6, 'UTC')), 1 + h % 40, version, sealed
FROM
(
    SELECT
        intDiv(number, {series:UInt32}) % {tenants:UInt32} AS rank,
        number % {series:UInt32} AS series,
        {first:UInt32} + 3600 * intDiv(number, {series:UInt32} * {tenants:UInt32}) AS hour,
        least(60., {share:Float64} / pow(rank + 1, 0.9)) AS per_hour,
        cityHash64(number, hour) AS perhaps,
        toUInt32(floor(per_hour + (perhaps % 1000003) / 1000003.)) AS facts,
        arrayJoin(range(facts)) AS place,
        cityHash64(rank, series, hour, place) AS h,
        toDateTime(hour + 60 * intDiv(60 * place, facts), 'UTC') AS booked_minute,
        if(h % 50 = 0, booked_minute - 60 * (1 + bitShiftRight(h, 8) % 1440), booked_minute) AS usage_minute,
        multiIf(series < 9, 'input', series < 15, 'output', series < 18, 'requests', series < 19, 'gib_max', 'seats')
            AS meter,
        ['large', 'small', 'embed'][1 + series % 3] AS model,
        ['eu', 'us', 'ap'][1 + intDiv(series, 3) % 3] AS region,
        multiIf(
            series < 9, map('model', model, 'region', region),
            series < 15, map('model', ['large', 'small'][1 + series % 2], 'region', ['eu', 'us', 'ap'][1 + series % 3]),
            series < 18, map('model', model),
            CAST(map(), 'Map(String, String)')) AS dimensions,
        {version:UInt64} AS version,
        {sealed:UInt8} AS sealed
    FROM numbers({count:UInt64})
)
WHERE h % {one_in:UInt32} = 0
"""

RATED: Final = """
INSERT INTO rated_usage
    (customer, contract, entity, plan, plan_version, charge, price_row, meter, period_start, usage_hour, booked_hour,
     accounting_period, original_period, line_kind, quantity, events, amount, revenue_amount, amount_before,
     amount_after, currency, config_version, status, version, tenant)
SELECT replaceOne(tenant, 's', 'c'), replaceOne(tenant, 's', 'k'), 'US01', 'p', 1, meter, '', meter,
    toDateTime64({start:DateTime('UTC')}, 6, 'UTC'), toStartOfHour(usage_minute) AS usage_hour,
    toStartOfHour(booked_minute) AS hour, '2026-09', '2026-09', if(usage_hour < hour, 'late_usage', 'usage'),
    sum(f.value) AS quantity, sum(f.events),
    quantity * transform(toString(meter), {meters:Array(String)}, {prices:Array(Decimal(18, 2))},
        toDecimal64(0, 2)) AS amount,
    amount, 0, 0, 'USD', 'bench', if(hour < {open:DateTime('UTC')}, 'sealed', 'provisional'), 1, ''
FROM usage_facts AS f
WHERE meter IN {meters:Array(String)}
    AND booked_minute >= {from:DateTime('UTC')} AND booked_minute < {to:DateTime('UTC')}
    AND (sealed = 1 OR booked_minute >= {open:DateTime('UTC')})
GROUP BY tenant, meter, usage_hour, hour
"""

DOCUMENTS: Final = """
INSERT INTO financial_documents
    (key, digest, entity, customer, contract, currency, booked_hour, accounting_period, kind, total, lines,
     posting_key, status)
SELECT substring(upper(base32Encode(toString(cityHash64(customer, booked_hour)))), 1, 16), hex(SHA256(customer)),
    'US01', customer, replaceOne(customer, 'c', 'k'), 'USD', booked_hour, '2026-09', 'accrual', sum(r.amount), '[]', '',
    ''
FROM rated_usage AS r WHERE status = 'sealed' AND booked_hour < {to:DateTime('UTC')} GROUP BY customer, booked_hour
"""

COUNTS: Final = """
INSERT INTO intake_counts (stream, shard, ingest_minute, outcome, reason, events)
SELECT concat('usage:', toString(number % 4)), concat('shard-', toString(intDiv(number, 4) % 4)),
    {start:DateTime('UTC')} + 60 * intDiv(number, 64) AS minute,
    ['accepted', 'duplicate', 'conflicting_duplicate', 'rejected'][1 + intDiv(number, 16) % 4] AS outcome,
    multiIf(outcome = 'rejected', 'invalid_field', outcome = 'conflicting_duplicate', outcome, ''),
    if(outcome = 'accepted', 300 + cityHash64(number) % 200, cityHash64(number) % 5)
FROM numbers({count:UInt64})
"""

REJECTS: Final = """
INSERT INTO usage_rejects (stream, entry_id, entry_index, ingest_time, reason, detail, raw)
SELECT 'usage:0', concat(toString(toUnixTimestamp64Milli(at)), '-0'), 0,
    toDateTime64({start:DateTime('UTC')}, 3, 'UTC') + toIntervalMillisecond(number * {step_ms:UInt64}) AS at,
    'invalid_field', concat('field ', toString(number % 20), ' is not a time'), '{"id":"x","subject":"s1","type":"t"}'
FROM numbers({count:UInt64})
"""


@contextmanager
def stored_month(directory: Path, facts: int, *, with_books: bool) -> Iterator[tuple[Settings, int]]:
    """Start a ClickHouse with that many facts of a month, summed by hour; yield settings and the server's process.

    `with_books`: also rated rows, documents (those of the last day in the ledger too), counts, rejects and the last
    day's events.
    """
    with served(directory) as (settings, pid):
        with connect(settings.clickhouse) as client:
            fill_facts(client, facts)
            made = []
            if with_books:
                _fill_books(client)
                made = list(documents_since(client, LAST_DAY))
            books(settings, client, made, OPEN + timedelta(minutes=30))
            revision = Revision(configuration())
            record_meters(settings.clickhouse, revision)
            steps = list(usage_hours.advance(client, revision.meters, OPEN))
            if not steps or steps[-1] != OPEN:
                message = f"facts were summed until {steps[-1:]}, not until {OPEN}"
                raise AssertionError(message)
        yield settings, pid


def _run(client: Client, text: str, parameters: dict[str, Any]) -> None:
    qualified = text.replace("INSERT INTO ", "INSERT INTO bench.").replace("FROM usage_", "FROM bench.usage_")
    client.command(qualified.replace("FROM rated_", "FROM bench.rated_"), parameters, _SETTINGS)


def share(facts: int) -> float:
    """Return how many facts an hour the series of the largest tenant would have without the limit of 60."""
    low, high = 0.0, 1e9
    for _ in range(100):
        middle = (low + high) / 2
        found = sum(min(60.0, middle / (rank + 1) ** 0.9) for rank in range(TENANTS)) * SERIES * HOURS
        low, high = (middle, high) if found < facts else (low, middle)
    return low


def fill_facts(client: Client, facts: int) -> None:
    """Write the month's facts in the order of booking, as the flow does."""
    largest = share(facts)
    hours = max(1, min(24, _FACTS_PER_INSERT * HOURS // facts))
    for first in range(0, HOURS, hours):
        count = min(hours, HOURS - first)
        begins = START + timedelta(hours=first)
        common = {"series": SERIES, "tenants": TENANTS, "share": largest, "first": int(begins.timestamp())}
        for part, sealed_now in ((count - 1, 1), (1, 0)) if first + count == HOURS else ((count, 1),):
            own = common | {"first": common["first"] + (0 if sealed_now else 3600 * (count - 1))}
            own |= {"count": part * SERIES * TENANTS}
            _run(client, FACTS, own | {"one_in": 1, "sealed": sealed_now, "version": 2})
            if sealed_now:
                _run(client, FACTS, own | {"one_in": 20, "sealed": 0, "version": 3})


def _fill_books(client: Client) -> None:
    """Write what follows from the facts, day by day; counts, rejects and the last day's events beside them."""
    priced = {"start": START, "open": OPEN, "meters": list(PRICES), "prices": MONEY}
    for day in range(DAYS):
        begins = START + timedelta(days=day)
        _run(client, RATED, priced | {"from": begins, "to": begins + timedelta(days=1)})
    _run(client, DOCUMENTS, {"to": LAST_DAY})
    _run(client, COUNTS, {"start": START, "count": 64 * 60 * HOURS})
    _run(client, REJECTS, {"start": START, "count": 20_000, "step_ms": HOURS * 3_600_000 // 20_000})
    numbers = {"tenants": TENANTS, "events": _EVENTS, "first": 0, "count": _EVENTS}
    _run(client, EVENTS, numbers | {"start_ms": int(LAST_DAY.timestamp() * 1000), "day_ms": 86_400_000})
