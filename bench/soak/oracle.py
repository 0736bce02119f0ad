"""Compares what is stored with what the load says it sent, series by series and minute by minute."""

from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.soak.load import MODELS
from config.settings import ClickHouseSettings
from sinks.clickhouse.client import connect

METERS: Final = ("requests", "tokens")
_SHOWN_MAX: Final = 5
_ARRIVAL_STEP_S: Final = 300


class Totals:
    """What was sent, as `bench.soak.load` wrote it."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as stored:
            self.names: list[str] = stored["names"].tolist()
            self.events: npt.NDArray[np.int64] = stored["events"]
            self.tokens: npt.NDArray[np.int64] = stored["tokens"]
            minutes: list[list[int]] = stored["minutes"].tolist()
            self.new, self.duplicates, self.late = (int(count) for count in stored["counts"])
            self.seconds = float(stored["seconds"][0])
        self.minutes = {minute: (events, tokens) for minute, events, tokens in minutes}

    def series(self) -> dict[tuple[str, str, str], tuple[Decimal, int]]:
        """Return value and events of each series (tenant, model, meter)."""
        expected: dict[tuple[str, str, str], tuple[Decimal, int]] = {}
        for place, name in enumerate(self.names):
            for model in range(MODELS):
                events, tokens = int(self.events[place, model]), int(self.tokens[place, model])
                if events:
                    expected[name, f"model-{model:02d}", "requests"] = (Decimal(events), events)
                    expected[name, f"model-{model:02d}", "tokens"] = (Decimal(tokens), events)
        return expected


def differences(settings: ClickHouseSettings, totals: Totals) -> list[str]:
    """Return what is not equal; an empty list if everything is."""
    with connect(settings) as client:

        def query(text: str) -> list[Any]:
            return list(client.query(text.replace("@", f"{settings.database}.")).result_rows)

        outcomes = dict(query("SELECT outcome, toInt64(sum(events)) FROM @intake_counts_current GROUP BY outcome"))
        wanted = {"accepted": totals.new, "duplicate": totals.duplicates}
        wrong = [] if outcomes == wanted else [f"outcomes are {outcomes}, sent were {wanted}"]
        series = query(
            "SELECT tenant, dimensions['model'], meter, sum(value), toInt64(sum(events)) FROM @usage_facts_current"
            " GROUP BY tenant, dimensions['model'], meter"
        )
        stored = {(tenant, model, meter): (value, events) for tenant, model, meter, value, events in series}
        wrong += _unequal("series", stored, totals.series())
        minutes = query(
            "SELECT intDiv(toUnixTimestamp(usage_minute), 60), sumIf(value, meter = 'requests'),"
            " sumIf(value, meter = 'tokens') FROM @usage_facts_current GROUP BY usage_minute"
        )
        found = {int(minute): (int(requests), int(tokens)) for minute, requests, tokens in minutes}
        wrong += _unequal("usage minute", found, totals.minutes)
        rows = _event_rows(query)
    if rows != totals.new:
        wrong.append(f"{rows} events are stored, {totals.new} were sent")
    return wrong


def _event_rows(query: Any) -> int:
    """Count stored events, some minutes of arrival at a time: all at once would need all their keys in memory."""
    ((first, last),) = query(
        "SELECT toInt64(toUnixTimestamp(min(ingest_time))), toInt64(toUnixTimestamp(max(ingest_time)))"
        " FROM @usage_events"
    )
    rows = 0
    for start in range(first, last + 1, _ARRIVAL_STEP_S):
        part = (
            f"SELECT count() FROM @usage_events_current WHERE ingest_time >= toDateTime64({start}, 3, 'UTC')"
            f" AND ingest_time < toDateTime64({start + _ARRIVAL_STEP_S}, 3, 'UTC')"
        )
        rows += int(query(part)[0][0])
    return rows


def _unequal(what: str, stored: dict[Any, Any], expected: dict[Any, Any]) -> list[str]:
    keys = [key for key in expected.keys() | stored.keys() if stored.get(key) != expected.get(key)]
    shown = [f"{what} {key}: stored {stored.get(key)}, sent {expected.get(key)}" for key in sorted(keys)[:_SHOWN_MAX]]
    return [*shown, f"{len(keys)} of {len(expected)} differ by {what}"] if keys else []
