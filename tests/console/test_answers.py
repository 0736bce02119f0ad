"""The forms of an answer: what is accepted, that numbers stay exact, and what a spreadsheet must not run."""

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from console.answers import CSV, JSON, PARQUET, decimal_text, rows_answer
from console.paging import cursor_of, position_of
from console.problems import Problem

ROWS: list[dict[str, Any]] = [
    {
        "at": datetime(2026, 11, 24, tzinfo=UTC),
        "who": "=HYPERLINK(1)",
        "d": {"b": "x", "a": "y"},
        "v": Decimal("-1.50"),
    },
    {"at": datetime(2026, 11, 25, tzinfo=UTC), "who": None, "d": {}, "v": Decimal("1E+3")},
]
COLUMNS = ("at", "who", "d", "v")


def _request(**headers: str) -> Request:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "path": "/x", "query_string": b"a=1", "headers": named,
                    "scheme": "http", "server": ("h", 80)})  # fmt: skip


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("", JSON), ("*/*", JSON), ("application/json", JSON), ("text/csv", CSV), ("text/*", CSV), (PARQUET, PARQUET),
        ("text/html, text/csv;q=0.9, */*;q=0.1", CSV), ("application/json;q=0.2, " + PARQUET, PARQUET),
        ("text/csv;q=0, application/json", JSON),
    ],
)  # fmt: skip
def test_the_best_accepted_form_is_made(accept: str, media: str) -> None:
    answer = rows_answer(_request(accept=accept), ROWS, COLUMNS, None)
    assert answer.headers["content-type"].startswith(media)
    assert "accept" in answer.headers["vary"].lower()


@pytest.mark.parametrize("accept", ["text/html", "image/*", "text/csv;q=0", "text/csv;q=x"])
def test_what_cannot_be_made_is_said(accept: str) -> None:
    with pytest.raises(Problem, match="not_acceptable"):
        rows_answer(_request(accept=accept), ROWS, COLUMNS, None)


def test_all_forms_hold_the_same() -> None:
    plain = json.loads(bytes(rows_answer(_request(), ROWS, COLUMNS, "c").body))
    assert plain["next"] == "c"
    assert plain["items"][0] == {
        "at": "2026-11-24T00:00:00Z",
        "who": "=HYPERLINK(1)",
        "d": {"b": "x", "a": "y"},
        "v": "-1.5",
    }
    assert plain["items"][1]["v"] == "1000"
    text = bytes(rows_answer(_request(accept=CSV), ROWS, COLUMNS, None).body).decode()
    lines = list(csv.reader(io.StringIO(text)))
    assert lines[0] == list(COLUMNS)
    assert lines[1] == ["2026-11-24T00:00:00Z", "'=HYPERLINK(1)", '{"b":"x","a":"y"}', "-1.5"]
    assert lines[2] == ["2026-11-25T00:00:00Z", "", "{}", "1000"]
    frame = pl.read_parquet(io.BytesIO(bytes(rows_answer(_request(accept=PARQUET), ROWS, COLUMNS, None).body)))
    assert frame["v"].to_list() == [Decimal("-1.5"), Decimal(1000)]
    assert frame["at"].to_list() == [row["at"] for row in ROWS]
    assert pl.read_parquet(
        io.BytesIO(bytes(rows_answer(_request(accept=PARQUET), [], COLUMNS, None).body))
    ).columns == list(COLUMNS)


def test_the_same_is_not_sent_twice() -> None:
    first = rows_answer(_request(), ROWS, COLUMNS, "c")
    assert first.headers["link"] == '</x?a=1&cursor=c>; rel="next"'
    again = rows_answer(_request(if_none_match=f'"other", {first.headers["etag"]}'), ROWS, COLUMNS, "c")
    assert (again.status_code, bytes(again.body)) == (304, b"")
    assert rows_answer(_request(if_none_match=first.headers["etag"]), ROWS[:1], COLUMNS, "c").status_code == 200


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_decimals_are_plain_and_exact(value: Decimal) -> None:
    text = decimal_text(value)
    assert Decimal(text) == value
    assert "E" not in text.upper()
    assert "." not in text or text[-1] not in "0."


@given(st.lists(st.integers(0, 2**53 - 1) | st.text(max_size=5), max_size=4))
def test_a_cursor_comes_back_as_it_was(values: list[int | str]) -> None:
    position = tuple(values)
    cursor = cursor_of(position)
    assert cursor is not None
    assert position_of(cursor, tuple(map(type, position))) == position


@pytest.mark.parametrize(
    "cursor", ["x", "é", "W10", cursor_of((1, "a")), cursor_of((-1,)), cursor_of((1.5,)), "a" * 5000]
)
def test_a_foreign_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(Problem, match="hand back `next`"):
        position_of(cursor, (int,))
