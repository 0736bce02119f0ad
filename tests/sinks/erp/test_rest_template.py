"""From postings to requests and from answers to values, exactly."""

import json
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.erp_rest import EntryFields, Place
from core.errors import Unreachable
from sinks.erp.port import PostingLine
from sinks.erp.rest_entries import entries, items
from sinks.erp.rest_template import decimal_or_none, fill, find, line_values, posting_values, render
from tests.sinks.erp.samples import posting


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**15), max_value=10**15))
def test_amounts_become_json_numbers_with_every_digit(amount: Decimal) -> None:
    line = PostingLine("usage_revenue", "4001", "credit", amount)
    template = {"n": "{signed:number}", "d": "{debit:number}", "c": "{credit:number}", "t": "{amount}"}
    body = orjson.dumps(render(template, line_values(line, 1)))
    read = json.loads(body, parse_float=Decimal)
    assert Decimal(read["n"]) == -amount
    assert Decimal(read.get("d", 0)) - Decimal(read.get("c", 0)) == -amount
    assert ("d" in read) != ("c" in read)
    assert Decimal(read["t"]) == abs(amount)


def test_templates_fill_texts_and_leave_out_what_has_no_value() -> None:
    values = posting_values(posting(7, trace_url=""), "attempt") | {"lines": [{"a": 1}]}
    template = {
        "memo": "mb {booked_day} {key} {other}",
        "url": "{trace_url}",
        "lines": "{lines}",
        "keep": ["{customer}", 1, None, True],
        "deep": {"gone": "{customer}"},
        "braces": "{ not a name }",
    }
    assert render(template, values) == {
        "memo": "mb 2025-11-24 AAAAAAAAAAAAAAAH ",
        "lines": [{"a": 1}],
        "keep": [None, 1, None, True],
        "deep": {},
        "braces": "{ not a name }",
    }


def test_values_in_a_path_are_escaped_and_cannot_leave_it() -> None:
    assert fill("/x/{key}?", {"key": "a/../b?c#d"}, is_path=True) == "/x/a%2F..%2Fb%3Fc%23d?"
    assert fill("{key}", {"key": "{digest}", "digest": "no"}) == "{digest}"  # filled once, not again


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("a.1.b", "x"), ("a.9.b", ""), ("a", ""), ("n", "1.50"), ("z", ""), ("header.location", "/e/77"),
        (Place(path="header.Location", pattern=r"/(\d+)$"), "77"), (Place(path="n", pattern="(9)"), ""), ("zero", "0"),
    ],
)  # fmt: skip
def test_values_are_found_in_answers(place: str | Place, value: str) -> None:
    answer = json.loads('{"a": [0, {"b": "x"}], "n": 1.50, "z": null, "zero": 0}', parse_float=Decimal)
    where = Place(path=place) if isinstance(place, str) else place
    assert find(where, answer, {"location": "/e/77"}) == value


def test_texts_that_are_no_amounts() -> None:
    assert [decimal_or_none(text) for text in ("1,234.50", "NaN", "", "x", "Infinity")] == [
        Decimal("1234.50"), None, None, None, None,
    ]  # fmt: skip


FIELDS: dict[str, Any] = {"key": "k", "number": "n", "account": "a", "amount": "x"}


def test_rows_of_one_number_are_one_entry() -> None:
    fields = EntryFields(**FIELDS, lines=".")
    rows = [
        {"k": "K1", "n": 1, "a": "1", "x": "5"},
        {"k": "", "n": 9, "a": "1", "x": "9"},  # somebody else's
        {"k": "K1", "n": 1, "a": "2", "x": "-5"},
        {"k": "K1", "n": 2, "a": "1", "x": "7"},  # the same key again: a duplicate, not more lines
        {"k": "K2", "n": 3, "a": "1", "x": "1"},
    ]
    found = [
        (entry.key, entry.number, [int(amount) for _, amount in entry.lines]) for entry, _ in entries(fields, rows)
    ]
    assert found == [("K1", "1", [5, -5]), ("K1", "2", [7]), ("K2", "3", [1])]


def test_a_line_that_cannot_be_read_is_no_empty_line() -> None:
    fields = EntryFields(**FIELDS, lines="l")
    with pytest.raises(Unreachable, match="K1"):
        list(entries(fields, [{"k": "K1", "n": 1, "l": [{"a": "1"}]}]))
    assert items({"a": {"b": {"c": 1}}}, "a.b") == [{"c": 1}]
    assert items(None, "a.b") == items({"a": None}, "a") == []


def test_a_line_has_mapped_codes_by_our_names_and_no_names_of_ours_in_its_dimensions() -> None:
    line = PostingLine(
        "usage_revenue", "4001", "credit", Decimal(1), dimensions=(("model", "gpt-4"), ("region", "eu")),
        erp_dimensions=(("Product", "P-1"), ("Area", "")), tax_code="VAT19",
    )  # fmt: skip
    template = {"all": "{dimensions}", "one": "{dimension.model}", "none": "{dimension.region}", "tax": "{tax_code}"}
    assert render(template, line_values(line, 1)) == {"all": {"Product": "P-1"}, "one": "P-1", "tax": "VAT19"}
    plain = PostingLine("usage_revenue", "4001", "credit", Decimal(1), dimensions=(("model", "gpt-4"), ("region", "")))
    assert render(template, line_values(plain, 1)) == {"all": {"model": "gpt-4", "region": ""}, "one": "gpt-4"}
