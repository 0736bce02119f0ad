"""Runs the real flow against real servers in tests: settings, sending, reading back."""

import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from config.loader import load
from config.revision import Configuration
from config.settings import Settings
from sinks import clickhouse as clickhouse_sinks
from sinks import ledger
from sinks.clickhouse.client import connect
from tests.flows.oracle import Entry, Result

CONFIG = Path(__file__).parents[2] / "config" / "meterbridge.yaml"

LEVELS = {
    "id": "storage_gib_seconds",
    "event_type": "storage.level",
    "aggregation": "weighted_sum",
    "value": "$.gib",
    "group_by": {"volume": "$.volume"},
    "level_expiry": "PT6H",
}


FEES = {
    "id": "request_fees",
    "event_type": "llm.completion",
    "aggregation": "sum",
    "value": "$.input_tokens",
    "group_by": {"model": "$.model"},
    "per_event": {"rate_percent": "1.3", "fixed_amount": "0.7", "minimum": "2", "maximum": "40"},
}
HELD = {
    "id": "storage_held",
    "meter": "storage_gib_seconds",
    "model": "per_unit",
    "unit_amount": "0.01",
    "unit_divisor": "3600",
}


def with_more_meters(configuration: Configuration) -> Configuration:
    """Add a meter of amounts per event, and a priced one of levels.

    The levels expire, so that they end before the clock of the test.
    """
    plain = configuration.model_dump(mode="json", by_alias=True)
    plain["meters"] += [LEVELS, FEES]
    for plan in plain["plans"]:
        for version in plan["versions"]:
            version["charges"].append(HELD)
    return Configuration.model_validate(plain)


@dataclass
class Deployment:
    """One deployment in a temporary directory with its own database on shared servers."""

    settings: Settings
    configuration: Configuration

    def environment(self, **extra: str) -> dict[str, str]:
        """Return the environment that gives a process of its own these settings."""
        own = {
            "METERBRIDGE_CONFIG_FILE": str(CONFIG),
            "METERBRIDGE_STATE_DIR": str(self.settings.state_dir),
            "METERBRIDGE_REDIS__URL": self.settings.redis.url,
            "METERBRIDGE_CLICKHOUSE__URL": self.settings.clickhouse.url,
            "METERBRIDGE_CLICKHOUSE__DATABASE": self.settings.clickhouse.database,
            "METERBRIDGE_FLOW__EPOCH_S": str(self.settings.flow.epoch_s),
            "METERBRIDGE_FLOW__WORKERS": str(self.settings.flow.workers),
            "METERBRIDGE_METRICS__FLOW_PORT": "0",
            "METERBRIDGE_METRICS__POSTER_PORT": "0",
        }
        return os.environ | own | extra

    def start(self, *arguments: str, **extra: str) -> "subprocess.Popen[str]":
        """Start a command as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "cli", *arguments],
            env=self.environment(**extra),
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def query(self, text: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Run a query; `@` stands for the database."""
        with connect(self.settings.clickhouse) as client:
            result = client.query(text.replace("@", f"{self.settings.clickhouse.database}."), parameters=parameters)
            return [tuple(row) for row in result.result_rows]

    def query_command(self, text: str) -> None:
        """Run a statement that returns nothing."""
        with connect(self.settings.clickhouse) as client:
            client.command(text)

    def outcomes(self) -> dict[tuple[str, str], int]:
        """Return the intake counts by outcome and reason."""
        rows = self.query("SELECT outcome, reason, sum(events) FROM @intake_counts_current GROUP BY outcome, reason")
        return {(outcome, reason): int(events) for outcome, reason, events in rows}

    def facts(self) -> dict[Any, Any]:
        """Return all current facts in the oracle's form."""
        rows = self.query(
            "SELECT tenant, meter, dimensions, toUnixTimestamp(usage_minute), toUnixTimestamp(booked_minute), value,"
            " events, version FROM @usage_facts_current"
        )
        return {
            (tenant, meter, _canonical(dimensions), usage // 60, booked // 60): (value, events, version)
            for tenant, meter, dimensions, usage, booked, value, events, version in rows
        }


def _canonical(dimensions: dict[str, str]) -> str:
    import orjson  # noqa: PLC0415

    return orjson.dumps(dimensions, option=orjson.OPT_SORT_KEYS).decode()


def deploy(redis_url: str, clickhouse_url: str, directory: Path, database: str, **flow: Any) -> Deployment:
    """Return a migrated, empty deployment."""
    base = Settings()
    settings = base.model_copy(
        update={
            "state_dir": directory,
            "redis": base.redis.model_copy(update={"url": redis_url}),
            "clickhouse": base.clickhouse.model_copy(update={"url": clickhouse_url, "database": database}),
            "flow": base.flow.model_copy(update={"epoch_s": 0.3, **flow}),
            "metrics": base.metrics.model_copy(update={"flow_port": 0, "poster_port": 0}),
        }
    )
    directory.mkdir(parents=True, exist_ok=True)
    clickhouse_sinks.migrate(settings.clickhouse)
    ledger.migrate(settings.ledger_url)
    return Deployment(settings, load(CONFIG))


def read_streams(redis_url: str, streams: Iterable[str]) -> list[Entry]:
    """Return every entry of the streams, for the oracle."""
    client: Any = redis.Redis.from_url(redis_url)
    entries = []
    for index, stream in enumerate(streams):
        for entry_id, fields in client.xrange(stream):
            ms, seq = entry_id.split(b"-")
            if set(fields) != {b"tick"}:
                entries.append(Entry(index, int(ms), int(seq), fields))
    client.close()
    return entries


def differences(actual: dict[Any, Any], expected: Result) -> list[str]:
    """Return at most ten readable differences between stored facts and the oracle's."""
    found = [
        f"{key}: stored {actual.get(key)}, expected {expected.facts.get(key)}"
        for key in sorted(actual.keys() | expected.facts.keys())
        if actual.get(key) != expected.facts.get(key)
    ]
    return found[:10]
