"""What an address asks for: a time is one, or the answer says which parameter is none."""

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from console.pages import asked
from console.pages.documents import _after
from console.problems import Problem


def _request(**parameters: str) -> Request:
    query = "&".join(f"{name}={value}" for name, value in parameters.items()).encode()
    return Request({"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": query})


def test_a_time_without_an_offset_is_in_utc() -> None:
    assert asked.moment(_request(at="2026-10-05T14:00"), "at") == datetime(2026, 10, 5, 14, tzinfo=UTC)
    assert asked.moment(_request(at="2026-10-05T14:00%2B02:00"), "at") == datetime(2026, 10, 5, 12, tzinfo=UTC)
    assert asked.moment(_request(), "at") is None


@pytest.mark.parametrize(
    "text",
    ["0001-01-01T00:00%2B14:00", "9999-12-31T23:00-12:00", "1969-12-31T23:59Z", "2100-01-01T00:00Z", "x", "2026-13-01"],
)
def test_what_is_no_time_or_out_of_range_is_named(text: str) -> None:
    with pytest.raises(Problem, match="invalid_request: at: "):
        asked.moment(_request(at=text), "at")


@given(st.text(max_size=40))
def test_where_a_page_begins_is_read_or_refused(text: str) -> None:
    found = None
    with suppress(Problem):
        found = _after(text)
    assert found is None or 0 <= found[0] < 10**9


@pytest.mark.parametrize("text", ["\N{SUPERSCRIPT TWO}.AAAAAAAAAAAAAAAA", f"{'9' * 30}.AAAAAAAAAAAAAAAA", "1.a"])
def test_where_no_page_begins_is_refused(text: str) -> None:
    with pytest.raises(Problem):
        _after(text)
    assert _after("494000.AAAAAAAAAAAAAAAA") == (494000, "AAAAAAAAAAAAAAAA")
