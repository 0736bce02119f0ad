"""Contract of the tables: what is written comes back through the views, once, whatever is written again."""

import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from config.settings import ClickHouseSettings
from sinks import clickhouse
from sinks.clickhouse.client import Client, connect
from sinks.clickhouse.posting_states import PostingState, write_posting_states
from sinks.clickhouse.tables import TABLES
from sinks.clickhouse.writer import TableWriter
from tests.sinks.clickhouse import rows

Write = Callable[..., None]
START = datetime(2026, 1, 1, tzinfo=UTC)
MAXIMUM = "99999999999999999999999999.999999999999"


@pytest.fixture(scope="module")
def shared(clickhouse_url: str) -> Iterator[Client]:
    """A database for this module: making the schema takes longer than a test."""
    settings = ClickHouseSettings(url=clickhouse_url, database=f"test_{uuid.uuid4().hex[:12]}")
    clickhouse.migrate(settings)
    with connect(settings) as found:
        yield found
        found.command(f"DROP DATABASE {settings.database}")


@pytest.fixture
def client(shared: Client) -> Client:
    """A client of empty tables."""
    for table in (*TABLES, "meters", "posting_states"):
        shared.command(f"TRUNCATE TABLE {shared.settings.database}.{table}")
    return shared


@pytest.fixture
def write(client: Client) -> Write:
    def run(table: str, *items: Any) -> None:
        stop = threading.Event()
        writer = TableWriter(TABLES[table], client.settings, rows.STREAMS, stop=stop, epoch_s=1)
        try:
            for item in items:
                writer.write([item])
                writer.flush()
        finally:
            writer.close()

    return run


def read(client: Client, columns: str, view: str, order: str = "1") -> list[tuple[Any, ...]]:
    query = f"SELECT {columns} FROM {client.settings.database}.{view} ORDER BY {order}"
    return [tuple(row) for row in client.query(query).result_rows]


def test_events_come_back_as_they_were(write: Write, client: Client) -> None:
    write("usage_events", rows.events(2, raw=['{"ü":"\\n"}', "x" * 100_000]))
    found = read(client, "*", "usage_events_current", "entry_index, id")
    assert found[0] == (
        *("t0", "api", "id-0", "call", START.replace(microsecond=7), "usage:0", f"{rows.MS}-0", 0),
        *(START, START, '{"ü":"\\n"}'),
    )
    assert found[1][10] == "x" * 100_000


def test_a_replay_of_events_with_other_batches_changes_nothing(write: Write, client: Client) -> None:
    write("usage_events", rows.events(10))
    before = read(client, "*", "usage_events_current", "id")
    write("usage_events", rows.events(3), rows.events(4, first=3), rows.events(3, first=7))
    assert read(client, "*", "usage_events_current", "id") == before
    assert read(client, "count()", "usage_events") != [(10,)], "the replay wrote nothing: the test is void"


def test_events_of_one_millisecond_stay_apart(write: Write, client: Client) -> None:
    frame = rows.events(3, entry_ms=[rows.MS] * 3, stream=[0] * 3, entry_seq=[1, 1, 2], entry_index=[0, 1, 0])
    write("usage_events", frame)
    assert read(client, "entry_id, entry_index", "usage_events_current", "1, 2") == [
        (f"{rows.MS}-1", 0),
        (f"{rows.MS}-1", 1),
        (f"{rows.MS}-2", 0),
    ]


def test_an_event_inserted_without_the_helper_column_has_the_same_identity(write: Write, client: Client) -> None:
    write("usage_events", rows.events(1))
    columns = "tenant, source, id, type, event_time, stream, entry_id, entry_index, ingest_time, booked_minute, data"
    table = f"{client.settings.database}.usage_events"
    client.command(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {table}")
    assert read(client, "count()", "usage_events_current") == [(1,)]


def test_rejects_keep_raw_bytes_and_all_reasons_of_one_position(write: Write, client: Client) -> None:
    raw = bytes(range(256))
    frame = rows.rejects(
        (1, "malformed_json", "", raw, True),
        (2, "invalid_quantity", "meter a", b"{}", False),
        (2, "invalid_quantity", "meter b", b"{}", False),
    )
    write("usage_rejects", frame, frame)
    found = read(client, "entry_id, reason, detail, hex(raw), counted", "usage_rejects_current", "1, 3")
    assert found == [
        (f"{rows.MS + 1}-1", "malformed_json", "", raw.hex().upper(), 1),
        (f"{rows.MS + 2}-2", "invalid_quantity", "meter a", "7B7D", 0),
        (f"{rows.MS + 2}-2", "invalid_quantity", "meter b", "7B7D", 0),
    ]


def test_counts_are_absolute_and_sum_over_shards(write: Write, client: Client) -> None:
    write("intake_counts", rows.counts(("id-0", "accepted", "", 5), ("id-1", "accepted", "", 2)))
    write("intake_counts", rows.counts(("id-0", "accepted", "", 9)), rows.counts(("id-0", "accepted", "", 7)))
    assert read(client, "stream, outcome, reason, events", "intake_counts_current") == [("usage:0", "accepted", "", 11)]


@pytest.mark.parametrize("value", [MAXIMUM, f"-{MAXIMUM}", "0.000000000001", "-0.000000000001", "0"])
def test_decimals_are_exact_at_their_extremes(write: Write, client: Client, value: str) -> None:
    write("usage_facts", rows.fact(value, 1, 0))
    assert read(client, "value", "usage_facts_current") == [(Decimal(value),)]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ([("1", 5, 0), ("2", 6, 0)], ("2", 6, 0)),
        ([("2", 6, 0), ("1", 5, 0)], ("2", 6, 0)),
        ([("1", 5, 0), ("2", 5, 1), ("3", 5, 0)], ("2", 5, 1)),
        ([("2", 5, 1), ("3", 2**63 - 1, 0)], ("2", 5, 1)),
        ([("3", 2**63 - 1, 0), ("2", 5, 1)], ("2", 5, 1)),
    ],
)
@pytest.mark.parametrize("merged", [False, True])
def test_sealed_facts_beat_open_ones_and_newer_beat_older(
    write: Write,
    client: Client,
    written: list[tuple[str, int, int]],
    expected: tuple[str, int, int],
    merged: bool,
) -> None:
    for value, version, sealed in written:
        write("usage_facts", rows.fact(value, version, sealed))
    if merged:
        client.command(f"OPTIMIZE TABLE {client.settings.database}.usage_facts FINAL")
    value, version, sealed = expected
    assert read(client, "value, version, sealed", "usage_facts_current") == [(Decimal(value), version, sealed)]


def test_dimensions_are_maps_and_part_of_the_identity(write: Write, client: Client) -> None:
    texts = ["{}", '{"a":""}', '{"a":"ü\\"/","b":"2"}', "{}"]
    frame = pl.concat([rows.fact("1", version, 0, dimensions=text) for version, text in enumerate(texts, 1)])
    write("usage_facts", frame)
    found = read(client, "dimensions, version", "usage_facts_current", "version")
    assert found == [({"a": ""}, 2), ({"a": 'ü"/', "b": "2"}, 3), ({}, 4)]


def test_final_rated_rows_beat_provisional_ones(write: Write, client: Client) -> None:
    write("rated_usage", rows.rated("1", 3, "sealed"), rows.rated("2", 9, "provisional"))
    write("rated_usage", rows.rated("5", 1, "unrated", tenant="b"), rows.rated("6", 4, "provisional", tenant="b"))
    found = read(client, "tenant, amount, status, version, period_start", "rated_usage_current")
    assert found == [("b", Decimal(5), "unrated", 1, START), ("x", Decimal(1), "sealed", 3, START)]


def test_unrated_rows_of_two_tenants_or_meters_stay_apart(write: Write, client: Client) -> None:
    write(
        "rated_usage",
        rows.rated("1", 1, "unrated", tenant="a", meter="m"),
        rows.rated("1", 1, "unrated", tenant="b", meter="m"),
        rows.rated("1", 1, "unrated", tenant="b", meter="n"),
    )
    assert read(client, "count()", "rated_usage_current") == [(3,)]


def test_an_exception_is_one_row_per_kind_and_identity(write: Write, client: Client) -> None:
    write("exceptions", rows.exception("first", 3), rows.exception("more", 8), rows.exception("first", 3))
    assert read(client, "detail, events", "exceptions_current") == [("more", 8)]


class Document:
    def __init__(self, key: str, digest: str, status: str = "TO_POST") -> None:
        self.key, self.digest, self._status = key, digest, status

    def to_json(self) -> str:
        return (
            '{"entity":"US01","customer":"acme","contract":"c","currency":"USD","accounting_period":"2026-01",'
            f'"kind":"accrual","status":"{self._status}","booked_hour":{rows.MINUTE // 60},"total":"12.34",'
            '"lines":[{"side":"debit","amount":"12.34"}]}'
        )


def test_documents_show_what_the_poster_says(write: Write, client: Client) -> None:
    write("financial_documents", Document("A", "d1"), Document("B", "d2", "NOT_POSTED_ZERO"), Document("A", "d1"))
    columns = "key, digest, booked_hour, total, posting_state, posting_key, lines"
    lines = '[{"side":"debit","amount":"12.34"}]'
    assert read(client, columns, "financial_documents_current") == [
        ("A", "d1", START, Decimal("12.34"), "PENDING", "", lines),
        ("B", "d2", START, Decimal("12.34"), "NOT_POSTED_ZERO", "", lines),
    ]
    newer = PostingState("A", "P", "CONFIRMED", "", "INV-1", START, START, 2)
    older = PostingState("A", "P", "SUBMITTED", "", "", START, None, 1)
    write_posting_states(client, [newer])
    write_posting_states(client, [older])
    assert read(client, "key, posting_state, posting_key, erp_reference", "financial_documents_current")[0] == (
        *("A", "CONFIRMED", "P", "INV-1"),
    )


def test_a_document_with_another_digest_shows_beside_the_first(write: Write, client: Client) -> None:
    write("financial_documents", Document("A", "d1"), Document("A", "d2"))
    assert read(client, "digest", "financial_documents_current") == [("d1",), ("d2",)]


def test_rollups_merge_by_the_meters_function(write: Write, client: Client) -> None:
    table = f"{client.settings.database}.meters"
    client.command(f"INSERT INTO {table} VALUES ('top','max','v',now64(3)),('low','min','v',now64(3))")
    client.command(f"INSERT INTO {table} VALUES ('last','latest','v',now64(3))")
    for meter in ("tokens", "top", "low", "last"):
        write(
            "usage_facts",
            rows.fact("5", 1, 1, meter=meter, value_time_us=9),
            rows.fact("7", 1, 0, meter=meter, usage_minute=rows.MINUTE + 59, value_time_us=1),
            rows.fact("1", 1, 1, meter=meter, booked_minute=rows.MINUTE + 90, value_time_us=2),
            rows.fact("100", 1, 1, meter=meter, usage_minute=rows.MINUTE + 60 * 24 * 31, value_time_us=1),
        )
    expected = {"tokens": 13, "top": 7, "low": 1, "last": 5}
    for view, column, start in (
        ("usage_by_hour", "usage_hour", START),
        ("usage_by_day", "usage_day", date(2026, 1, 1)),
        ("usage_by_month", "usage_month", date(2026, 1, 1)),
    ):
        found = [row for row in read(client, f"{column}, meter, value, events, sealed", view) if row[0] == start]
        assert {row[1]: (row[2], row[3], row[4]) for row in found} == {
            meter: (Decimal(value), 3, 0) for meter, value in expected.items()
        }
