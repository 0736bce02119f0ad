"""What a new revision may not change: every refusal alone, and what is allowed."""

import copy
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from config.journal_rules import Past, refusals
from config.revision import Configuration, Revision

FIRST: dict[str, Any] = {
    "rules": {"books_open_at": "2023-01-01T00:00:00Z", "too_old_days": 30, "dedupe_horizon_days": 10},
    "meters": [{"id": "m", "event_type": "t", "aggregation": "sum", "value": "$.x"}],
    "entities": [
        {"id": name, "functional_currency": "USD", "accounts": {}, "erp": {"company": name}} for name in ("E", "F")
    ],
    "customers": [
        {
            "id": "x",
            "subjects": ["s"],
            "contracts": [
                {"id": "open", "plan": "p", "entity": "E", "from": "2023-01-01T00:00:00Z"},
                {
                    "id": "ended",
                    "plan": "p",
                    "entity": "E",
                    "from": "2023-01-01T00:00:00Z",
                    "to": "2026-01-10T00:00:00Z",
                },
                {"id": "later", "plan": "p", "entity": "E", "from": "2026-06-01T00:00:00Z"},
                {
                    "id": "far",
                    "plan": "p",
                    "entity": "E",
                    "from": "2026-06-01T00:00:00Z",
                    "to": "9999-12-31T23:59:59Z",
                },
            ],
        },
        {
            "id": "y",
            "subjects": ["t"],
            "contracts": [{"id": "k", "plan": "p", "entity": "E", "from": "2023-01-01T00:00:00Z"}],
        },
    ],
}
NOW = datetime(2026, 3, 1, tzinfo=UTC)
"""The contract `ended` is over on 13 March: its last period ends with January, then 30 and 10 days."""

Change = Callable[[dict[str, Any]], object]


def _refused(*changes: Change, now: datetime = NOW) -> list[tuple[str, str]]:
    """Return place and text of what is refused of the last change; each change makes a revision of its own."""
    raw = copy.deepcopy(FIRST)
    revisions = [Revision(Configuration.model_validate(raw))]
    for number, change in enumerate(changes, start=1):
        change(raw)
        revisions.append(Revision(Configuration.model_validate(raw), number * 3_600_000))
    past = Past(tuple(reversed(revisions[:-1])), int(now.timestamp() * 1000))
    return [(".".join(map(str, found.location)), found.text) for found in refusals(past, revisions[-1].configuration)]


def _contracts(raw: dict[str, Any]) -> list[dict[str, Any]]:
    contracts: list[dict[str, Any]] = raw["customers"][0]["contracts"]
    return contracts


REFUSED: list[tuple[str, Change, str, str]] = [
    (
        "aggregation",
        lambda raw: raw["meters"][0].update(aggregation="max"),
        "meters.0.aggregation",
        "meters[m].aggregation: was sum and is max now, but facts were booked by it. hint: make a new meter",
    ),
    ("event type", lambda raw: raw["meters"][0].update(event_type="u"), "meters.0.event_type", "was t and is u now"),
    ("value", lambda raw: raw["meters"][0].update(value="$.y"), "meters.0.value", "was $.x and is $.y now"),
    (
        "terms per event",
        lambda raw: raw["meters"][0].update(per_event={"rate_percent": "2.9", "fixed_amount": "0.3", "maximum": "5"}),
        "meters.0.per_event",
        "meters[m].per_event: was absent and is 2.9 % + 0.3, at most 5 now",
    ),
    ("opening", lambda raw: raw["rules"].pop("books_open_at"), "rules.books_open_at", "was 2023-01-01T00:00:00Z"),
    (
        "removed",
        lambda raw: _contracts(raw).pop(0),
        "customers.0.contracts",
        "customers[x].contracts[open]: was removed, but is in force since 2023-01-01T00:00:00Z. hint: end it with `to`",
    ),
    (
        "removed before late usage is over",
        lambda raw: _contracts(raw).pop(1),
        "customers.0.contracts",
        "at the earliest at 2026-03-13T00:00:00Z",
    ),
    ("customer removed", lambda raw: raw["customers"].pop(1), "customers", "customers[y].contracts[k]: was removed"),
    (
        "renamed customer",
        lambda raw: raw["customers"][1].update(id="z"),
        "customers",
        "customers[y].contracts[k]: was removed",
    ),
    (
        "entity",
        lambda raw: _contracts(raw)[0].update(entity="F"),
        "customers.0.contracts.0.entity",
        "was E and is F now",
    ),
    (
        "period",
        lambda raw: _contracts(raw)[0].update(billing_period={"unit": "year"}),
        "customers.0.contracts.0.billing_period",
        "was changed, but is in force",
    ),
    (
        "plan version",
        lambda raw: _contracts(raw)[0].update(plan_version=1),
        "customers.0.contracts.0.plan_version",
        "customers[x].contracts[open].plan_version: was not set and is 1 now, but is in force since",
    ),
    (
        "plan",
        lambda raw: _contracts(raw)[0].update(plan="other"),
        "customers.0.contracts.0.plan",
        "and is other now, but is in force since",
    ),
]


@pytest.mark.parametrize(
    ("change", "location", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_what_books_were_made_by_cannot_change(change: Change, location: str, message: str) -> None:
    ((where, text),) = _refused(change)
    assert where == location
    assert message in text


def test_all_refusals_come_at_once() -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["meters"][0].update(event_type="u", value="$.y")
        raw["customers"].clear()

    assert len(_refused(change)) == 5


@pytest.mark.parametrize(
    "change",
    [
        lambda _: None,
        lambda raw: raw["meters"].clear(),
        lambda raw: raw["meters"][0].update(group_by={"d": "$.d"}, allow_negative=True, filter={"d": ["a"]}),
        lambda raw: raw["meters"].append(raw["meters"][0] | {"id": "n", "aggregation": "max"}),
        lambda raw: raw["rules"].update(grace_s=9),
        lambda raw: _contracts(raw).pop(2),
        lambda raw: _contracts(raw).pop(3),
        lambda raw: _contracts(raw)[2].update(entity="F", billing_period={"unit": "year"}),
        lambda raw: _contracts(raw)[0].update(to="2026-04-01T00:00:00Z"),
        lambda raw: raw["customers"].reverse(),
    ],
)
def test_what_may_change(change: Change) -> None:
    assert _refused(change) == []


def test_a_contract_may_go_once_nothing_can_be_booked_on_it() -> None:
    def remove(raw: dict[str, Any]) -> None:
        _contracts(raw).pop(1)

    assert _refused(remove, now=datetime(2026, 3, 12, 23, 59, tzinfo=UTC)) != []
    assert _refused(remove, now=datetime(2026, 3, 13, tzinfo=UTC)) == []


def test_the_opening_may_be_set_once() -> None:
    def unset(raw: dict[str, Any]) -> None:
        raw["rules"].pop("books_open_at")

    opened = Revision(Configuration.model_validate(FIRST))
    raw = copy.deepcopy(FIRST)
    unset(raw)
    without = Revision(Configuration.model_validate(raw))
    assert refusals(Past((without,), 0), opened.configuration) == []
    assert refusals(Past((opened,), 0), without.configuration) != []


def test_taking_a_meter_out_and_in_again_does_not_change_what_it_is() -> None:
    def put_back(raw: dict[str, Any]) -> None:
        raw["meters"] = [FIRST["meters"][0] | {"aggregation": "max"}]

    ((where, _),) = _refused(lambda raw: raw["meters"].clear(), put_back)
    assert where == "meters.0.aggregation"


def test_nothing_is_refused_before_the_first_revision() -> None:
    assert refusals(Past((), 0), Configuration.model_validate(FIRST)) == []


def _ruled(kind: str, side: str, role: str) -> Change:
    return lambda raw: raw["entities"][0].update(posting_rules={kind: {side: role}})


def test_posting_rules_keep_their_roles_of_the_balance_sheet() -> None:
    assert _refused(_ruled("fee", "credit", "usage_revenue")) == []
    assert _refused(_ruled("usage", "credit", "own_revenue"), _ruled("usage", "credit", "usage_revenue")) == []
    ((place, text),) = _refused(_ruled("recognition", "debit", "unbilled_receivable"))
    assert place == "entities.0.posting_rules.recognition.debit"
    assert "entities[E].posting_rules.recognition.debit: was contract_asset and is unbilled_receivable now" in text
    # A new entity has nothing on its accounts yet.
    fresh = {"id": "G", "functional_currency": "USD", "accounts": {}, "erp": {"company": "G"}}
    fresh["posting_rules"] = {"recognition": {"debit": "unbilled_receivable"}}
    assert _refused(lambda raw: raw["entities"].append(fresh)) == []
