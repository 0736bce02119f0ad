"""No question of a trace is a scan: each reads its tables by the key or by an index of the table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from queries.document_trace import trace_document
from queries.event_trace import trace_event
from queries.stores import Row, Stores
from tests.queries.conftest import Finished


@dataclass(frozen=True)
class Recording(Stores):
    """Stores that remember what they were asked."""

    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def rows(self, text: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        self.asked.append((self.resolved(text), dict(parameters or {})))
        return super().rows(text, parameters)

    def conditions(self, text: str, parameters: dict[str, Any]) -> list[list[str]]:
        """Return per table read what chooses its parts and granules: conditions on the key, names of indexes."""
        found: list[list[str]] = []
        for (line,) in self.client.query(f"EXPLAIN indexes = 1 {text}", parameters).result_rows:
            if "ReadFromMergeTree (" in line:
                found.append([])
            elif found and (" Condition: " in line or " Name: " in line):
                found[-1].append(line.split(": ", 1)[1])
        return found


def recording(finished: Finished) -> Recording:
    stores = finished.stores
    return Recording(stores.settings, stores.client, stores.engine, stores.history)


def assert_no_scan(stores: Recording) -> None:
    assert stores.asked
    for text, parameters in stores.asked:
        for conditions in stores.conditions(text, parameters):
            assert [one for one in conditions if one != "true"], text


def one(finished: Finished, text: str) -> Row:
    return finished.stores.rows(text)[0]


def test_an_event_is_looked_up_in_every_table(finished: Finished) -> None:
    voided = one(
        finished,
        "SELECT JSONExtractString(data, 'data', 'source') AS source, void_of AS id FROM @usage_events"
        " WHERE void_of != '' ORDER BY id LIMIT 1",
    )
    stores = recording(finished)

    trace = trace_event(stores, voided["source"], voided["id"])

    assert trace.outcome == "voided"
    assert len(stores.asked) > 5
    assert_no_scan(stores)
    (text, parameters) = stores.asked[0]
    assert stores.conditions(text, parameters) == [["true", "true", "true", "by_id"]]


def test_a_refused_event_is_looked_up_by_the_id_in_it(finished: Finished) -> None:
    refused = one(
        finished,
        "SELECT event_id, JSONExtractString(raw, 'source') AS source FROM @usage_rejects"
        " WHERE reason = 'future_time' LIMIT 1",
    )
    stores = recording(finished)

    trace = trace_event(stores, refused["source"], refused["event_id"])

    assert trace.outcome == "rejected"
    assert {row["reason"] for row in trace.refused} == {"future_time"}
    assert_no_scan(stores)
    assert any("by_event_id" in str(stores.conditions(*asked)) for asked in stores.asked)


def test_a_document_is_looked_up_in_every_table(finished: Finished) -> None:
    key = one(finished, "SELECT key FROM @financial_documents ORDER BY length(lines) DESC, key LIMIT 1")
    stores = recording(finished)

    trace = trace_document(stores, key["key"])

    assert trace is not None
    assert any(charge.facts for charge in trace.charges)
    assert len(stores.asked) > 2
    assert_no_scan(stores)
