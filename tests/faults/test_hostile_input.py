"""Hostile input at volume: every poisoned event is accounted for, and one tenant's bomb hits nobody else.

`POISON_EVENTS=1000000` runs the poison test with a million events.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis

from config.revision import Rules
from flows import runtime
from operators.book_limit import OVERFLOW
from sources.producer import Producer
from tests.flows.harness import Deployment, deploy, differences, read_streams
from tests.flows.oracle import Oracle

START = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)
HOUR_MS = 3_600_000
EVENTS = int(os.environ.get("POISON_EVENTS", "200000"))
POISON_EVERY = 20
LARGE_BYTES = Rules().event_bytes_max
SERIES_MAX = 1_000
VALUES = 200_000
TENANTS = ("acme", "globex", "initech")


def _event(number: int, tenant: str, at_ms: int, **changes: Any) -> dict[str, Any]:
    time = (datetime.fromtimestamp(at_ms / 1000, UTC)).isoformat().replace("+00:00", "Z")
    whole: dict[str, Any] = {
        "specversion": "1.0",
        "id": f"e-{number}",
        "source": "/hostile",
        "type": "llm.completion",
        "subject": tenant,
        "time": time,
        "data": {"model": "gpt-4", "region": "eu", "input_tokens": 3, "output_tokens": 2},
    }
    whole.update(changes)
    return {name: value for name, value in whole.items() if value is not ...}


def _deployed(redis_url: str, clickhouse_settings: Any, directory: Path) -> Deployment:
    return deploy(redis_url, clickhouse_settings.url, directory, clickhouse_settings.database, epoch_s=1.0)


# --- poison ------------------------------------------------------------------------------------------------


def _poison(number: int, at_ms: int) -> list[tuple[str, bytes]]:
    """Return one event of each kind of poison, with the reason it has to be refused for."""
    year = timedelta(days=366)

    def text(**changes: Any) -> bytes:
        return orjson.dumps(_event(number, "acme", at_ms, **changes))

    deep = b"[" * 5_000 + b"]" * 5_000
    return [
        ("malformed_json", b""),
        ("malformed_json", b"\x00\xff\xfe not json"),
        ("malformed_json", b"[]"),
        ("malformed_json", text()[:-1]),
        ("malformed_json", text().replace(b"gpt-4", b"gpt-\xff")),
        ("malformed_json", text().replace(b'"input_tokens":3', b'"input_tokens":NaN')),
        ("malformed_json", text().replace(b'"input_tokens":3', b'"input_tokens":' + deep)),
        ("missing_field", text(id=...)),
        ("missing_field", text(subject=...)),
        ("missing_field", b"{}"),
        ("invalid_field", text(id="")),
        ("invalid_field", text(id=17)),
        ("invalid_field", text(subject="x" * 2_000)),
        ("invalid_field", text(time="yesterday")),
        ("invalid_field", text(data=[1, 2])),
        ("invalid_field", text(type={})),
        ("future_time", text(time=f"{START + year:%Y-%m-%dT%H:%M:%SZ}")),
        ("too_old", text(time=f"{START - year:%Y-%m-%dT%H:%M:%SZ}")),
        ("too_large", text(padding="x" * LARGE_BYTES)),
        ("unmatched_void", text(type="meterbridge.void", data=_event(number, "acme", at_ms, id=f"never-{number}"))),
    ]


def _hostile(events: int, *, poison: bool = True) -> Iterator[tuple[int, str, bytes, str]]:
    """Yield arrival, subject, payload and the reason of a refusal (empty: none); five of a hundred are poison."""
    chance = random.Random(1)
    for number in range(events):
        at_ms = START_MS + number * HOUR_MS // events
        tenant = TENANTS[number % len(TENANTS)]
        if poison and number % POISON_EVERY == 7:
            kinds = _poison(number, at_ms)
            reason, payload = kinds[number // POISON_EVERY % len(kinds)]
            # Large ones are few, or the test would be about the network.
            if len(payload) > 10_000 and chance.random() < 0.95:
                reason, payload = kinds[9]
            yield at_ms, tenant, payload, reason
        else:
            yield at_ms, tenant, orjson.dumps(_event(number, tenant, at_ms)), ""


def _working_s() -> float:
    """Return the processor time of all threads but this one, which only waits, and the longer the busier a machine."""
    return time.process_time() - time.thread_time()


def _metered(deployed: Deployment, *, poison: bool) -> tuple[Counter[str], float]:
    """Send and drain; return the events by reason, and the processor time of the drain in seconds."""
    with redis.Redis.from_url(deployed.settings.redis.url) as client:
        client.flushall()
    wanted: Counter[str] = Counter()

    def records() -> Iterator[tuple[int, str, bytes]]:
        for at_ms, subject, payload, reason in _hostile(EVENTS, poison=poison):
            wanted[reason] += 1
            yield at_ms, subject, payload

    with Producer(deployed.settings.redis) as producer:
        producer.send(records())
    began_s, began_processor_s = time.monotonic(), _working_s()
    assert runtime.run(deployed.settings, deployed.configuration, drain=True).drained
    processor_s, seconds = _working_s() - began_processor_s, time.monotonic() - began_s
    what = "5 % poison" if poison else "clean"
    print(f"{EVENTS:,} events, {what}: {seconds:.1f} s, {processor_s:.1f} s of processor time of the flow's threads")
    return wanted, processor_s


@pytest.mark.slow
@pytest.mark.timeout(1_500)
def test_every_poisoned_event_among_many_is_accounted_for_at_half_the_clean_speed_or_more(
    redis_url: str, clickhouse_settings: Any, tmp_path: Path
) -> None:
    """Speed is compared in processor time: the machine may have other work."""
    clean_settings = clickhouse_settings.model_copy(update={"database": f"{clickhouse_settings.database}_clean"})
    unpoisoned = _deployed(redis_url, clean_settings, tmp_path / "clean")
    try:
        only_good, clean_s = _metered(unpoisoned, poison=False)
        assert unpoisoned.outcomes() == {("accepted", ""): EVENTS}
        assert only_good == {"": EVENTS}
    finally:
        unpoisoned.query_command(f"DROP DATABASE {clean_settings.database}")
    deployed = _deployed(redis_url, clickhouse_settings, tmp_path / "state")
    wanted, poisoned_s = _metered(deployed, poison=True)
    assert poisoned_s <= 2 * clean_s

    clean = wanted.pop("")
    expected = {("rejected", reason): count for reason, count in wanted.items()} | {("accepted", ""): clean}
    assert deployed.outcomes() == expected
    assert sum(wanted.values()) == EVENTS // POISON_EVERY
    kept = deployed.query("SELECT reason, count() FROM @usage_rejects_current WHERE counted = 1 GROUP BY reason")
    assert {reason: int(count) for reason, count in kept} == dict(wanted)
    totals = deployed.query("SELECT meter, sum(value), sum(events) FROM @usage_facts_current GROUP BY meter")
    assert {
        meter: (value, int(events)) for meter, value, events in totals if meter != "smallest_completion_tokens"
    } == {
        "requests": (Decimal(clean), clean),
        "input_tokens": (Decimal(clean * 3), clean),
        "output_tokens": (Decimal(clean * 2), clean),
    }


# --- a cardinality bomb ------------------------------------------------------------------------------------


def _bomb() -> Iterator[tuple[int, str, bytes]]:
    """Yield an hour in which one tenant uses a dimension value for each event, and the others live as ever."""
    for number in range(VALUES):
        at_ms = START_MS + number * HOUR_MS // VALUES
        data = {"model": f"model-{number}", "region": "eu", "input_tokens": 3, "output_tokens": 2}
        yield at_ms, "acme", orjson.dumps(_event(number, "acme", at_ms, data=data))
        if number % 50 == 0:
            for tenant in ("globex", "initech"):
                yield at_ms, tenant, orjson.dumps(_event(number, tenant, at_ms, id=f"{tenant}-{number}"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cardinality_bomb_is_bounded_reported_and_harms_nobody_else(
    redis_url: str, clickhouse_settings: Any, tmp_path: Path
) -> None:
    """Given 200,000 dimension values of one tenant in an hour; then its series are bounded and its sums still right."""
    deployed = _deployed(redis_url, clickhouse_settings, tmp_path / "state")
    rules = deployed.configuration.rules.model_copy(update={"series_per_tenant_minute_max": SERIES_MAX})
    configuration = deployed.configuration.model_copy(update={"rules": rules})
    with Producer(deployed.settings.redis) as producer:
        producer.send(_bomb())
    assert runtime.run(deployed.settings, configuration, drain=True).drained

    crowded = deployed.query(
        "SELECT tenant, max(series) FROM (SELECT tenant, meter, booked_minute, uniqExact(dimensions) AS series"
        " FROM @usage_facts_current GROUP BY tenant, meter, booked_minute) GROUP BY tenant"
    )
    assert dict(crowded) == {"acme": SERIES_MAX + 1, "globex": 1, "initech": 1}

    entries = [
        entry
        for entry in read_streams(deployed.settings.redis.url, deployed.settings.redis.streams)
        if b'"subject":"acme"' not in entry.fields[b"event"]
    ]
    expected = Oracle(configuration).run(entries)
    others = {key: fact for key, fact in deployed.facts().items() if key[0] != "acme"}
    assert differences(others, expected) == []

    sums = deployed.query(
        "SELECT meter, sum(value), sum(events) FROM @usage_facts_current"
        " WHERE tenant = 'acme' AND meter IN ('requests', 'input_tokens') GROUP BY meter"
    )
    assert {meter: (value, int(events)) for meter, value, events in sums} == {
        "requests": (Decimal(VALUES), VALUES),
        "input_tokens": (Decimal(VALUES * 3), VALUES),
    }
    reported = deployed.query(
        "SELECT tenant, meter, count(), sum(events) FROM @exceptions_current WHERE kind = 'cardinality_limit'"
        " GROUP BY tenant, meter"
    )
    beyond = {
        meter: int(events)
        for meter, events in deployed.query(
            "SELECT meter, sum(events) FROM @usage_facts_current WHERE tenant = 'acme'"
            f" AND mapContains(dimensions, '{next(iter(orjson.loads(OVERFLOW)))}') GROUP BY meter"
        )
    }
    assert {tenant for tenant, _, _, _ in reported} == {"acme"}
    assert {meter: int(events) for _, meter, _, events in reported} == beyond
    assert all(minutes == 60 for _, _, minutes, _ in reported)
