from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from config.revision import History
from core.errors import InvariantViolation
from operators.document import documents
from sinks.clickhouse.tables import TABLES, dimensions_map, rows_in, size_bytes
from tests.operators.rate_support import Driver, Use, facts, revision, version
from tests.sinks.clickhouse import rows


def converted(table: str, *items: Any) -> list[dict[str, Any]]:
    plain: list[dict[str, Any]] = TABLES[table].convert(items, rows.STREAMS).to_pylist()
    return plain


def test_an_event_row() -> None:
    assert converted("usage_events", rows.events(1, first=3)) == [
        {
            "tenant": "t0",
            "source": "api",
            "id": "id-3",
            "type": "call",
            "event_time": datetime(2026, 1, 1, 0, 0, 0, 3007, tzinfo=UTC),
            "stream": "usage:1",
            "entry_id": f"{rows.MS + 3}-3",
            "entry_index": 0,
            "ingest_time": datetime(2026, 1, 1, 0, 0, 0, 3000, tzinfo=UTC),
            "entry_seq": 3,
            "booked_minute": rows.MINUTE * 60,
            "data": '{"n":3}',
        }
    ]


def test_items_are_joined_in_order() -> None:
    found = converted("usage_events", rows.events(2), rows.events(2, first=2))
    assert [row["id"] for row in found] == ["id-0", "id-1", "id-2", "id-3"]


def test_a_stream_that_is_not_configured_is_an_error_and_not_a_null() -> None:
    with pytest.raises(pl.exceptions.PolarsError):
        converted("usage_events", rows.events(1, stream=[9]))


def test_dimensions_become_maps() -> None:
    texts = pl.Series(['{"b":"2","a":"1"}', "{}", '{"b":"2","a":"1"}', '{"a":"ü"}']).to_arrow()
    assert dimensions_map(texts).to_pylist() == [
        [("b", "2"), ("a", "1")],
        [],
        [("b", "2"), ("a", "1")],
        [("a", "ü")],
    ]


@pytest.mark.parametrize("text", ["[]", '{"a":1}', '"x"', '{"a":null}'])
def test_dimensions_that_are_no_object_of_strings_are_refused(text: str) -> None:
    with pytest.raises(InvariantViolation, match="object of strings"):
        dimensions_map(pl.Series([text]).to_arrow())


def test_fact_and_rated_rows_keep_exact_decimals() -> None:
    assert converted("usage_facts", rows.fact("-0.000000000001", 1, 0))[0]["value"] == Decimal("-0.000000000001")
    found = converted("rated_usage", rows.rated("99999999999999999999999999.999999999999", 1, "sealed"))[0]
    assert found["amount"] == Decimal("99999999999999999999999999.999999999999")
    assert (found["usage_hour"], found["booked_hour"]) == (rows.MINUTE * 60, rows.MINUTE * 60 + 3600)


def test_absent_details_of_a_reject_are_empty() -> None:
    frame = rows.rejects((1, "malformed_json", "", b"", True)).with_columns(
        detail=pl.lit(None, pl.String), raw=pl.lit(None, pl.Binary)
    )
    found = converted("usage_rejects", frame)[0]
    assert (found["detail"], found["raw"], found["counted"]) == ("", b"", 1)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(InvariantViolation, match="usage_events come without booked_minute"):
        TABLES["usage_events"].trim(rows.events(1).drop("booked_minute"))


def test_columns_the_table_does_not_need_are_left_out_of_the_queue() -> None:
    frame = rows.events(100).with_columns(pl.Series("d:tokens", [f"{number:01000}" for number in range(100)]))
    trimmed = TABLES["usage_events"].trim(frame)
    assert rows_in(trimmed) == 100
    assert size_bytes(trimmed) < size_bytes(frame) / 2


def test_a_document_rows_total_is_the_net_of_its_charges_and_not_the_sum_of_its_debits() -> None:
    history = History([revision([version({"id": "in", "meter": "tokens", "model": "per_unit", "unit_amount": "1"})])])
    driver = Driver(history)
    # Booked in one hour: late usage of 3, and a void of 5 that came in before.
    driver.send(facts([Use(0, 0, "5"), Use(0, 70, "-5", -1), Use(1, 70, "3")]), 200)
    first, second = documents(driver.rows(), history)
    assert (second.debit_total, second.total) == (Decimal("8.00"), Decimal("-2.00"))
    rows_of_documents = converted("financial_documents", first, second)
    assert [row["total"] for row in rows_of_documents] == [Decimal(5), Decimal(-2)]
