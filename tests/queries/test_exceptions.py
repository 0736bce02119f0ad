"""Exceptions: grouped by cause, corrected and sent again, resolved and open again."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import orjson
import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from cli.main import app
from core.errors import InvalidRequest
from core.redis_client import connect
from flows import runtime
from queries import exception_acts
from queries import exceptions as listed
from queries.exception_acts import Person
from queries.exceptions import Group, find, groups
from queries.stores import Stores
from sinks.ledger import audit, exceptions, tables
from sinks.ledger.database import read, write
from tests.flows.harness import CONFIG
from tests.queries.conftest import Finished

PERSON = Person("ada", "the gateway sent null")


def _of(stores: Stores, kind: str) -> list[Group]:
    return groups(stores, kind=kind)


def test_every_refused_event_is_in_exactly_one_group(finished: Finished) -> None:
    found = groups(finished.stores)

    by_reason = {
        reason: events
        for (outcome, reason), events in finished.deployment.outcomes().items()
        if outcome in ("rejected", "conflicting_duplicate")
    }
    grouped: dict[str, int] = {}
    for group in found:
        if group.origin == "rejects" and group.kind != "unusable_value":
            grouped[group.kind] = grouped.get(group.kind, 0) + group.count
    assert grouped == by_reason
    assert len({group.key for group in found}) == len(found)
    assert [group.count for group in found] == sorted((group.count for group in found), reverse=True)


def test_events_with_one_cause_are_one_group_with_samples(finished: Finished) -> None:
    (group,) = _of(finished.stores, "conflicting_duplicate")

    assert group.count > 3
    assert len(group.samples) == 3
    assert group.first <= group.last
    assert "content digest #" in group.cause


def test_unrated_usage_names_its_tenant(finished: Finished) -> None:
    found = _of(finished.stores, "unrated")

    assert found
    assert {tenant for group in found for tenant in group.tenants} == {"trial-anonymous"}
    assert groups(finished.stores, tenant="trial-anonymous", kind="unrated")
    assert groups(finished.stores, tenant="nobody") == []


def test_corrected_events_are_sent_again_and_accepted(finished: Finished, tmp_path: Path) -> None:
    stores = finished.stores
    (group,) = [group for group in _of(stores, "missing_field") if group.cause == "type is absent"]
    path = tmp_path / "corrected.ndjson"
    assert exception_acts.export(stores, group, path) == group.count
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    now = datetime.now(UTC)
    for line in lines:
        line["event"]["type"] = "llm.completion"
        line["event"]["time"] = f"{now:%Y-%m-%dT%H:%M:%SZ}"
    path.write_bytes(b"\n".join(map(orjson.dumps, lines)))
    accepted_before = finished.deployment.outcomes()["accepted", ""]

    sent = exception_acts.send_again(stores, group, exception_acts.corrected(group, path), PERSON, now)
    runtime.run(finished.deployment.settings, finished.deployment.configuration, drain=True)

    assert sent == group.count
    assert finished.deployment.outcomes()["accepted", ""] == accepted_before + sent
    assert group.key not in {other.key for other in groups(stores)}
    event = lines[0]["event"]
    with read(stores.engine) as connection:
        (link,) = audit.entries(connection, subject=f"{event['source']} {event['id']}")
    assert link["action"] == "send_again"
    assert link["detail"] == f"was refused at {lines[0]['position']}"
    assert link["actor"] == "ada"


def test_a_resolved_group_opens_again_when_something_comes_after(finished: Finished) -> None:
    stores = finished.stores
    group = _of(stores, "future_time")[0]

    exception_acts.resolve(stores, group, PERSON, group.last)
    assert group.key not in {other.key for other in groups(stores)}
    assert group.key in {other.key for other in groups(stores, everything=True)}

    table = stores.resolved("@usage_rejects")
    columns = "stream, entry_id, entry_index, ingest_time, reason, detail, raw"
    later = f"ingest_time + INTERVAL 1 HOUR, {columns.split('ingest_time, ')[1]}"
    finished.deployment.query_command(
        f"INSERT INTO {table} ({columns}) SELECT stream, entry_id, entry_index + 7, {later} FROM {table}"
        " WHERE reason = 'future_time' ORDER BY ingest_time DESC LIMIT 1"
    )
    assert group.key in {other.key for other in groups(stores)}


def test_the_ledgers_exceptions_are_in_the_list(finished: Finished) -> None:
    stores, now = finished.stores, datetime.now(UTC) - timedelta(minutes=1)
    with write(stores.engine) as connection:
        exceptions.raise_exception(connection, "posting_unknown", "K" * 16, "no answer", now)

    (group,) = _of(stores, "posting_unknown")
    assert (group.origin, group.count, group.cause) == ("ledger", 1, "no answer")
    exception_acts.resolve(stores, group, PERSON, datetime.now(UTC))

    assert _of(stores, "posting_unknown") == []
    with pytest.raises(InvalidRequest, match="not tried again by hand"):
        exception_acts.release(stores, group, PERSON, now)


def test_what_can_never_be_accepted_is_not_sent_again(finished: Finished) -> None:
    (group,) = _of(finished.stores, "conflicting_duplicate")
    lines = [exception_acts.export_line(row) for row in exception_acts.refused_events(finished.stores, group)]

    with pytest.raises(InvalidRequest, match="accepted already"):
        exception_acts.send_again(finished.stores, group, lines, PERSON, datetime.now(UTC))


def test_a_broken_correction_is_refused_with_its_line(finished: Finished, tmp_path: Path) -> None:
    group = _of(finished.stores, "too_old")[0]
    path = tmp_path / "broken.ndjson"
    path.write_text('{"position": "usage:0 1-1 0", "event": {}}\n{"event": 3}\n')

    with pytest.raises(InvalidRequest, match="line 2"):
        exception_acts.corrected(group, path)


def test_a_key_is_found_by_its_beginning_and_an_unknown_one_refused(finished: Finished) -> None:
    group = groups(finished.stores)[0]

    assert find(finished.stores, [group.key[:8]])[0].key == group.key
    with pytest.raises(InvalidRequest, match="exceptions list"):
        find(finished.stores, ["nothing"])


def test_the_ledgers_exceptions_are_grouped_by_cause_with_the_money_behind_them(finished: Finished) -> None:
    stores, now = finished.stores, datetime.now(UTC)
    table = tables.postings
    with read(stores.engine) as connection:
        rows = connection.execute(select(table.c.key, table.c.currency, table.c.json).order_by(table.c.key)).all()
    expected: dict[str, Decimal] = {}
    with write(stores.engine) as connection:
        for number, row in enumerate(rows):
            detail = f"posting {row.key}: the ERP has no customer for it (try {number})"
            exceptions.raise_exception(connection, "posting_held", row.key, detail, now)
            lines = orjson.loads(row.json)["lines"]
            debits = sum((Decimal(line["amount"]) for line in lines if line["side"] == "debit"), Decimal(0))
            expected[row.currency] = expected.get(row.currency, Decimal(0)) + debits
        exceptions.raise_exception(connection, "posting_held", "A" * 16, "the period is closed", now)

    held = {group.count: group for group in _of(stores, "posting_held")}
    assert set(held) == {1, len(rows)}
    group = held[len(rows)]
    assert group.cause == "posting #: the ERP has no customer for it (try #)"
    assert group.at_stake == expected
    assert len(group.samples) == 3
    assert held[1].at_stake == {}
    most = max(expected.values())
    assert [one.key for one in groups(stores, amount_min=most)] == [group.key]
    assert groups(stores, amount_min=most + 1) == []

    exception_acts.resolve(stores, group, PERSON, now + timedelta(seconds=1))
    assert [one.count for one in _of(stores, "posting_held")] == [1]
    assert find(stores, [group.key])[0].resolved_until is not None
    exception_acts.resolve(stores, held[1], PERSON, now + timedelta(seconds=1))
    assert _of(stores, "posting_held") == []


def _call(finished: Finished, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    for name, value in finished.deployment.environment().items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, ["--config", str(CONFIG), "exceptions", *arguments])
    return result.exit_code, f"{result.output} {result.exception}"


def test_a_dry_run_refuses_what_the_run_would_refuse(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {group.kind: group.key for group in groups(finished.stores, everything=True)}
    for kind, said in (("conflicting_duplicate", "take it back by a void"), ("unrated", "not tried again by hand")):
        code, text = _call(finished, monkeypatch, "retry", known[kind], "--reason", "x", "--dry-run")
        assert code == 1
        assert said in text
    sent = [known["invalid_quantity"], known["conflicting_duplicate"]]
    settings = finished.deployment.settings.redis
    with connect(settings) as client:
        before = [client.xlen(stream) for stream in settings.streams]
        assert _call(finished, monkeypatch, "retry", *sent, "--reason", "x")[0] == 1
        # One that cannot be sent again keeps the others back.
        assert [client.xlen(stream) for stream in settings.streams] == before


def test_the_list_filters_by_age_and_refuses_amounts_that_are_none(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _call(finished, monkeypatch, "list", "--amount-min", "NaN")[0] == 1
    code, text = _call(finished, monkeypatch, "list", "--amount-min", "many")
    assert (code, "is not a number" in text) == (1, True)
    assert "0 open group(s)" in _call(finished, monkeypatch, "list", "--waiting-days", "36500")[1]
    assert "0 open group(s)" not in _call(finished, monkeypatch, "list", "--waiting-days", "0.001")[1]


def test_what_is_named_twice_is_done_once(finished: Finished) -> None:
    (group, *_) = groups(finished.stores, everything=True)
    assert find(finished.stores, [group.key, group.key[:10]]) == [group]


def test_what_arrives_while_a_group_is_resolved_opens_it(finished: Finished) -> None:
    """Rows come to ClickHouse after they arrived: the time of the act says nothing about what was seen."""
    group = next(one for one in groups(finished.stores, everything=True) if one.origin == "rejects")
    exception_acts.resolve(finished.stores, group, PERSON, datetime.now(UTC))
    (again,) = find(finished.stores, [group.key])
    assert (again.resolved_until, again.is_open) == (group.last, False)


def test_old_resolved_ones_do_not_hide_open_ones(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    stores, now = finished.stores, datetime.now(UTC)
    with write(stores.engine) as connection:
        for number in range(4):
            exceptions.raise_exception(connection, "stream_loss", f"old-{number}", "gap", now - timedelta(days=9))
        exceptions.resolve(connection, "stream_loss", [f"old-{number}" for number in range(4)], now)
        exceptions.raise_exception(connection, "stream_loss", "new", "gap", now)
    open_ = sum(group.count for group in groups(stores) if group.origin == "ledger")
    monkeypatch.setattr(listed, "GROUPS_MAX", open_)
    assert [group.identities for group in groups(stores, kind="stream_loss")] == [["new"]]
    with write(stores.engine) as connection:
        exceptions.resolve(connection, "stream_loss", ["new"], now)
