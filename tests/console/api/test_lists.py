"""Every list: pages that join without gap, the same rows in every form, and nothing sent twice."""

import csv
import io
import json
from typing import Any

import polars as pl
import pytest

from sinks.ledger import retention
from tests.console.api.conftest import World
from tests.console.conftest import make_token
from tests.queries.conftest import START

CUSTOMER = "a customer of the run"
SPAN = {"from": START.isoformat(), "to": "2026-11-20T14:00:00Z"}
LISTS: dict[str, dict[str, Any]] = {
    "/usage": SPAN | {"meter": "input_tokens", "group_by": ["tenant", "model"]},
    "/customers": {},
    "/documents": {},
    "/audit": {"action": "create_token"},
    "/rated-rows": {"customer": CUSTOMER},
    "/exceptions": {"resolved": True},
    "/periods": {},
    "/retention": {},
    "/holds": {"ended": True},
}


def _parameters(world: World, path: str) -> dict[str, Any]:
    parameters = dict(LISTS[path])
    if parameters.get("customer") == CUSTOMER:
        parameters["customer"] = world.get("/documents", limit=1).json()["items"][0]["customer"]
    return parameters


@pytest.fixture(autouse=True, scope="module")
def some_acts(world: World) -> None:
    """Make enough rows of the audit log and enough legal holds to page through."""
    for _ in range(5):
        make_token(world.services)
    for name in "abcde":
        now = world.services.clock.now()
        retention.place(world.services.pool.engine, "tenant", name, actor="test", reason="=case", now=now)


@pytest.mark.parametrize("path", LISTS)
def test_pages_join_without_gap(world: World, path: str) -> None:
    parameters = _parameters(world, path)
    whole = world.all_pages(path, limit=10_000, **parameters)
    assert len(whole) > 2, "too few rows to say anything"
    small = max(1, len(whole) // 7)
    assert world.all_pages(path, limit=small, **parameters) == whole
    assert world.get(path, cursor="nonsense", **parameters).status_code == 400


@pytest.mark.parametrize("path", LISTS)
def test_all_forms_hold_the_same_rows(world: World, path: str) -> None:
    parameters = _parameters(world, path) | {"limit": 5}
    page = world.get(path, **parameters)
    rows = page.json()["items"]

    def fetch(accept: str) -> bytes:
        answer = world.client.get(f"/api/v1{path}", params=parameters, headers={"Accept": accept})
        assert answer.status_code == 200, answer.text
        assert answer.headers.get("link") == page.headers.get("link")
        return answer.content

    lines = list(csv.DictReader(io.StringIO(fetch("text/csv").decode())))
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        assert set(line) == set(row)
        for name, value in row.items():
            if isinstance(value, str):
                assert line[name].lstrip("'") == value.lstrip("'")
    frame = pl.read_parquet(io.BytesIO(fetch("application/vnd.apache.parquet")))
    assert (frame.height, set(frame.columns)) == (len(rows), set(rows[0]))
    assert world.client.get(f"/api/v1{path}", params=parameters, headers={"Accept": "image/png"}).status_code == 406


@pytest.mark.parametrize("path", LISTS)
def test_what_the_caller_has_is_not_sent_again(world: World, path: str) -> None:
    parameters = _parameters(world, path)
    first = world.get(path, **parameters)
    again = world.client.get(f"/api/v1{path}", params=parameters, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_next_page_is_linked(world: World) -> None:
    first = world.get("/documents", limit=2)
    assert first.links["next"]["url"].startswith("/api/v1/documents?")
    second = world.client.get(first.links["next"]["url"]).json()["items"]
    keys = [row["key"] for row in first.json()["items"] + second]
    assert len(set(keys)) == 4


REPORTS: dict[str, dict[str, Any]] = {
    "/reconciliation": SPAN,
    "/trace/event": {},
    "/customers/{customer}/spend": {"at": SPAN["to"]},
    "/meters": {},
    "/plans": {},
}
"""What is one thing and made of rows, too."""


@pytest.mark.parametrize("path", REPORTS)
def test_what_is_made_of_rows_comes_as_a_file(world: World, path: str) -> None:
    parameters = dict(REPORTS[path])
    if path == "/trace/event":
        parameters = world.finished.stores.rows("SELECT source, id FROM @usage_events_current LIMIT 1")[0]
    customer = world.get("/documents", limit=1).json()["items"][0]["customer"]
    address = f"/api/v1{path.replace('{customer}', customer)}"

    def fetch(accept: str) -> bytes:
        answer = world.client.get(address, params=parameters, headers={"Accept": accept})
        assert answer.status_code == 200, answer.text
        assert "accept" in answer.headers["vary"].lower()
        return answer.content

    lines = list(csv.DictReader(io.StringIO(fetch("text/csv").decode())))
    frame = pl.read_parquet(io.BytesIO(fetch("application/vnd.apache.parquet")))
    assert len(lines) == frame.height > 0
    assert list(lines[0]) == frame.columns
    plain = json.loads(fetch("application/json"))
    known = {
        "/reconciliation": lambda: len(plain["checks"]),
        "/trace/event": lambda: frame.height,
        "/customers/{customer}/spend": lambda: sum(len(one["charges"]) for one in plain["contracts"]),
        "/meters": lambda: len(plain["items"]),
        "/plans": lambda: sum(len(one["versions"]) for one in plain["items"]),
    }
    assert frame.height == known[path]()
    assert world.client.get(address, params=parameters, headers={"Accept": "image/png"}).status_code == 406
