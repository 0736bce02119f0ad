"""A token of single tenants, walked along every route: it neither sees nor changes anything of another tenant.

Each route is asked by an administrator too, who does see it: a test that finds nothing must have had something to find.
"""

import re
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import select

from console.api import ENDPOINTS
from console.endpoint import API, Endpoint
from sinks.ledger import retention, tables
from sinks.ledger.database import read
from tests.console.api.conftest import World
from tests.console.conftest import bearer, make_token
from tests.queries.conftest import START

SPAN = {"from": START.isoformat(), "to": "2026-11-20T14:00:00Z"}


@dataclass(frozen=True)
class Known:
    """Names of one customer's things, which nobody else may see."""

    customer: str
    tenant: str
    document: str
    event: dict[str, str]
    group: str
    period: dict[str, str]


@dataclass(frozen=True)
class Asked:
    """How a route is asked for the other's things. `shows`: what an administrator must find in the answer."""

    path: dict[str, str]
    parameters: dict[str, Any]
    shows: str


@pytest.fixture(scope="module")
def known(world: World) -> Known:
    document = world.get("/documents", limit=1).json()["items"][0]
    customer = document["customer"]
    tenant = world.get(f"/customers/{customer}").json()["subjects"][0]
    stores = world.finished.stores
    event = stores.rows(
        "SELECT source, id FROM @usage_events_current WHERE tenant = {tenant:String} LIMIT 1", {"tenant": tenant}
    )[0]
    group = next(one for one in world.all_pages("/exceptions", resolved=True) if one["tenants"])
    now, engine = world.services.clock.now(), world.services.pool.engine
    retention.place(engine, "tenant", tenant, actor="test", reason="case 7", now=now)
    period = {"entity": document["entity"], "period": document["accounting_period"]}
    return Known(customer, tenant, document["key"], event, group["key"], period)


def _routes(known: Known, group_tenant: str) -> dict[str, list[Asked]]:
    usage = SPAN | {"meter": "input_tokens"}
    return {
        "get_usage": [
            Asked({}, usage | {"tenant": known.tenant, "group_by": "tenant"}, known.tenant),
            Asked({}, usage | {"group_by": "tenant"}, known.tenant),
            Asked({}, usage | {"window": "total"}, '"events":'),
        ],
        "list_customers": [Asked({}, {}, known.customer)],
        "get_customer": [Asked({"customer": known.customer}, {}, known.customer)],
        "get_spend": [Asked({"customer": known.customer}, {"at": SPAN["to"]}, known.customer)],
        "list_plans": [Asked({}, {}, "charges")],
        "list_documents": [Asked({}, {}, known.document), Asked({}, {"customer": known.customer}, known.customer)],
        "get_document": [Asked({"key": known.document}, {}, known.customer)],
        "get_document_trace": [Asked({"key": known.document}, {}, known.document)],
        "list_rated_rows": [
            Asked({}, {"customer": known.customer}, known.customer),
            Asked({}, {"document": known.document}, known.customer),
        ],
        "explain_rated_rows": [
            Asked({}, {"customer": known.customer}, known.customer),
            Asked({}, {"document": known.document}, known.customer),
        ],
        "get_event_trace": [Asked({}, known.event, known.event["id"])],
        "list_exceptions": [
            Asked({}, {"resolved": True}, known.group),
            Asked({}, {"resolved": True, "tenant": group_tenant}, group_tenant),
        ],
        "get_exception": [Asked({"key": known.group}, {}, known.group)],
        "list_audit": [Asked({}, {}, "create_token")],
        "get_status": [Asked({}, {}, "books")],
        "get_reconciliation": [Asked({}, {}, "checks")],
        "list_periods": [Asked({}, {}, known.period["period"])],
        "get_period": [Asked(known.period, {}, known.period["period"])],
        "list_retention": [Asked({}, {}, "usage_events")],
        "list_holds": [Asked({}, {}, known.tenant)],
    }


NOTHING_TO_SEE = {"list_meters", "get_me"}
"""Names of meters are no secret, and a token may look at itself."""

ELSEWHERE = {"post_events": "test_events", "get_live": "below"}
"""Tested where their answers are: what is refused of a batch; a stream that never ends."""


ACTS = {
    "approve_document", "reverse_document", "retry_exception", "resolve_exception", "pull_master_data",
    "close_period", "record_close", "reopen_period", "place_hold", "lift_hold",
}  # fmt: skip


def test_every_route_is_walked(known: Known) -> None:
    names = {endpoint.handler.__name__ for endpoint in ENDPOINTS}
    assert names == set(_routes(known, "x")) | NOTHING_TO_SEE | set(ELSEWHERE) | ACTS


@pytest.mark.parametrize("endpoint", [one for one in ENDPOINTS if one.method == "POST"], ids=lambda one: one.path)
def test_another_tenants_token_changes_nothing(world: World, known: Known, endpoint: Endpoint) -> None:
    if endpoint.handler.__name__ in ELSEWHERE:
        pytest.skip(ELSEWHERE[endpoint.handler.__name__])
    name = known.document if "documents" in endpoint.path else known.group
    path = re.sub(r"{(\w+)}", lambda match: {"key": name, **known.period}[match[1]], endpoint.path)
    body = {"reason": "because", "dry_run": True}
    if "holds" in path:
        body |= {"kind": "tenant", "name": known.tenant}
    seen = world.client.post(path, json=body)
    assert seen.status_code in (200, 422), f"the administrator could not act either: {seen.text}"
    foreign = make_token(world.services, "admin", "somebody-else")
    before = _ledger(world)
    for dry_run in (True, False):
        headers = bearer(foreign) | {"Idempotency-Key": f"{path} {dry_run}".replace(" ", "-")}
        refused = world.client.post(path, json=body | {"dry_run": dry_run}, headers=headers)
        assert refused.status_code in (403, 404), refused.text
        for secret in (known.customer, known.tenant):
            assert secret not in refused.text
    assert _ledger(world) == before


def test_a_part_of_a_group_cannot_be_acted_on(world: World) -> None:
    shared = next(one for one in world.all_pages("/exceptions", resolved=True) if len(one["tenants"]) > 1)
    part = make_token(world.services, "operator", shared["tenants"][0])
    assert world.get(f"/exceptions/{shared['key']}", part).json()["count"] < shared["count"]
    answer = world.client.post(
        f"{API}/exceptions/{shared['key']}/resolve", json={"reason": "because"}, headers=bearer(part)
    )
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def _ledger(world: World) -> list[str]:
    with read(world.services.pool.engine) as connection:
        return [
            f"{table.name} {sorted(map(str, connection.execute(select(table)).all()))}"
            for table in tables.metadata.sorted_tables
            if table.name not in ("api_tokens", "audit_log", "idempotent_acts")
        ]


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.handler.__name__)
def test_another_tenants_token_finds_nothing(world: World, known: Known, endpoint: Endpoint) -> None:
    name = endpoint.handler.__name__
    group_tenant = world.get(f"/exceptions/{known.group}").json()["tenants"][0]
    foreign = make_token(world.services, "viewer", "somebody-else")
    for asked in _routes(known, group_tenant).get(name, []):
        path = re.sub(r"{(\w+)}", lambda match, asked=asked: asked.path[match[1]], endpoint.path)  # type: ignore[misc]
        path = path.removeprefix(API)
        seen = world.get(path, **asked.parameters)
        assert seen.status_code == 200, seen.text
        assert asked.shows in seen.text, f"{name}: the administrator sees nothing either"
        refused = world.get(path, foreign, **asked.parameters)
        assert refused.status_code in (200, 403, 404), refused.text
        if refused.status_code == 200:
            assert refused.json()["items"] == [], refused.text
        body = refused.text.replace(path, "")
        for secret in (known.customer, known.tenant, known.event["id"], group_tenant):
            if secret not in str(asked):  # what was asked for may be named in the answer
                assert secret not in body


def test_one_of_two_subjects_does_not_open_a_customer(world: World) -> None:
    customers = world.all_pages("/customers")
    two = next((one for one in customers if len(one["subjects"]) > 1), None)
    if two is None:
        pytest.skip("no customer of the run has two subjects")
    part = make_token(world.services, "viewer", two["subjects"][0])
    whole = make_token(world.services, "viewer", *two["subjects"])
    assert world.get(f"/customers/{two['id']}", part).status_code == 404
    assert world.get(f"/customers/{two['id']}", whole).status_code == 200


def test_the_own_tenant_is_seen_and_only_that(world: World, known: Known) -> None:
    subjects = world.get(f"/customers/{known.customer}").json()["subjects"]
    own = make_token(world.services, "viewer", *subjects)
    assert [one["id"] for one in world.get("/customers", own).json()["items"]] == [known.customer]
    assert {one["customer"] for one in world.get("/documents", own).json()["items"]} == {known.customer}
    usage = SPAN | {"meter": "input_tokens", "group_by": "tenant", "window": "total"}
    rows = world.get("/usage", own, **usage).json()["items"]
    assert {row["tenant"] for row in rows} <= set(subjects)
    assert world.get("/trace/event", own, **known.event).json()["outcome"] == "accepted"
    assert world.get(f"/documents/{known.document}", own).status_code == 200


def test_the_live_numbers_are_of_all(world: World) -> None:
    foreign = make_token(world.services, "viewer", "somebody-else")
    assert world.get("/live", foreign).status_code == 403
