import pytest

from core.reasons import VOID_TYPE
from queries.event_trace import EventTrace, trace_event
from tests.queries.conftest import Finished


def _one(finished: Finished, condition: str) -> EventTrace:
    """Trace some accepted event that meets the condition."""
    found = finished.stores.rows(
        f"SELECT source, id FROM @usage_events_current WHERE {condition} ORDER BY source, id LIMIT 1"
    )
    assert found, condition
    return trace_event(finished.stores, found[0]["source"], found[0]["id"])


def test_an_event_in_time_leads_to_a_posted_document(finished: Finished) -> None:
    trace = _one(finished, "tenant = 'globex' AND type = 'llm.completion' AND booked_minute <= event_time")

    assert trace.outcome == "accepted"
    tokens = next(meter for meter in trace.meters if meter.meter == "input_tokens")
    assert len(tokens.facts) == 1
    assert tokens.facts[0]["sealed"] == 1
    assert tokens.facts[0]["value"] >= tokens.value > 0
    assert tokens.usage_minute == tokens.booked_minute
    assert {row["line_kind"] for row in tokens.rated} >= {"usage"}
    assert [document["state"] for document in tokens.documents] == ["POSTED"]
    posting = tokens.documents[0]["posting"]
    assert [attempt["outcome"] for attempt in posting["attempts"]] == ["posted"]
    assert posting["erp_entries"][0]["number"].startswith("J-")


def test_a_late_event_is_found_where_it_was_booked(finished: Finished) -> None:
    trace = _one(
        finished, "tenant = 'initech' AND type = 'llm.completion' AND toStartOfMinute(event_time) < booked_minute"
    )

    meter = next(meter for meter in trace.meters if meter.meter == "input_tokens")
    assert meter.usage_minute < meter.booked_minute
    assert meter.facts
    assert "late_usage" in {row["line_kind"] for row in meter.rated}
    assert {row["booked_hour"] for row in meter.rated} == {meter.booked_minute.replace(minute=0)}


def test_a_voided_event_names_the_void_and_the_void_leads_on(finished: Finished) -> None:
    void = _one(finished, f"type = '{VOID_TYPE}' AND JSONExtractString(data, 'data', 'type') = 'llm.completion'")
    assert void.accepted is not None
    original = finished.stores.rows(
        "SELECT JSONExtractString(data, 'data', 'source') AS o_source, JSONExtractString(data, 'data', 'id') AS o_id"
        " FROM @usage_events_current WHERE id = {id:String}",
        {"id": void.id},
    )[0]

    trace = trace_event(finished.stores, original["o_source"], original["o_id"])

    assert trace.outcome == "voided"
    assert [row["id"] for row in trace.voids] == [void.id]
    counted = next(meter for meter in void.meters if meter.meter == "requests")
    assert counted.facts


def test_a_conflicting_duplicate_is_shown_beside_the_accepted_event(finished: Finished) -> None:
    rejected = finished.stores.rows(
        "SELECT JSONExtractString(raw, 'source') AS source, JSONExtractString(raw, 'id') AS id"
        " FROM @usage_rejects_current WHERE reason = 'conflicting_duplicate' LIMIT 1"
    )[0]

    trace = trace_event(finished.stores, rejected["source"], rejected["id"])

    assert trace.accepted is not None
    assert "conflicting_duplicate" in {row["reason"] for row in trace.refused}


def test_a_rejected_event_has_its_reason(finished: Finished) -> None:
    rejected = finished.stores.rows(
        "SELECT JSONExtractString(raw, 'source') AS source, JSONExtractString(raw, 'id') AS id"
        " FROM @usage_rejects_current WHERE reason = 'future_time' LIMIT 1"
    )[0]

    trace = trace_event(finished.stores, rejected["source"], rejected["id"])

    assert trace.outcome == "rejected"
    assert [row["reason"] for row in trace.refused] == ["future_time"]
    assert trace.meters == []


def test_usage_without_a_contract_is_rated_by_nothing(finished: Finished) -> None:
    trace = _one(finished, "tenant = 'trial-anonymous' AND type = 'llm.completion'")

    tokens = next(meter for meter in trace.meters if meter.meter == "input_tokens")
    assert tokens.facts
    assert tokens.rated == []


@pytest.mark.parametrize("name", ["nobody-sent-this", "%", '"', "\\"])
def test_an_unknown_id_is_unknown(finished: Finished, name: str) -> None:
    assert trace_event(finished.stores, "/llm-gateway/us", name).outcome == "unknown"


def test_a_level_leads_to_its_hour_and_a_late_one_to_all_hours_it_corrects(finished: Finished) -> None:
    in_time = _one(finished, "type = 'storage.level' AND booked_minute <= event_time")
    held = next(meter for meter in in_time.meters if meter.meter == "storage_gib_seconds")
    assert [fact["events"] >= 1 and fact["usage_minute"].minute == 0 for fact in held.facts] == [True]
    assert {row["charge"] for row in held.rated} == {"storage_held"}

    late = _one(
        finished, "type = 'storage.level' AND tenant = 'globex' AND event_time < toStartOfHour(booked_minute) - 7200"
    )
    held = next(meter for meter in late.meters if meter.meter == "storage_gib_seconds")
    assert held.facts[0]["events"] >= 1
    assert held.facts[0]["usage_minute"].hour == held.usage_minute.hour
    assert len(held.facts) > 1


def test_amounts_per_event_are_what_an_event_brings(finished: Finished) -> None:
    trace = _one(finished, "type = 'llm.completion'")
    fees = next(meter for meter in trace.meters if meter.meter == "request_fees")
    assert 2 <= fees.value <= 40
    assert fees.facts[0]["value"] >= fees.value
