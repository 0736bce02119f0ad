from datetime import UTC, datetime
from typing import Any

import pytest

from core.errors import InvalidRequest
from operators.rate_lookup import find_charge
from operators.rating.schema import PerUnit
from tests.operators.rate_support import contract, customer, revision, version


def per_unit(price: str, identifier: str = "input") -> dict[str, Any]:
    return {"id": identifier, "meter": "tokens", "model": "per_unit", "unit_amount": price}


REVISION = revision(
    [version(per_unit("1")), version(per_unit("2"), currency="EUR", effective="2024-06-01T00:00:00Z")],
    [
        customer("acme", contracts=[contract(overrides=[{"charge": "input", "set": {"unit_amount": "7"}}])]),
        customer("globex", contracts=[contract(plan_version="latest"), contract("only", plan_version=2)]),
    ],
)


def at(month: int) -> datetime:
    return datetime(2024, month, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("fields", "month", "number", "price", "currency"),
    [
        ({"plan": "p"}, 5, 1, "1", "USD"),
        ({"plan": "p"}, 6, 2, "2", "EUR"),
        ({"plan": "p", "plan_version": 1}, 6, 1, "1", "USD"),
        # pinned by its start in January, with its own price
        ({"contract": "acme/c1"}, 6, 1, "7", "USD"),
        ({"contract": "globex/c1"}, 6, 2, "2", "EUR"),
        ({"contract": "only"}, 1, 2, "2", "EUR"),
        ({"contract": "only", "plan": "p"}, 1, 2, "2", "EUR"),
    ],
)
def test_which_version_and_price(fields: Any, month: int, number: int, price: str, currency: str) -> None:
    found = find_charge(REVISION, "input", at=at(month), **fields)
    assert isinstance(found.charge, PerUnit)
    assert (found.plan_version, str(found.charge.unit_amount), found.currency) == (number, price, currency)
    assert found.contract == fields.get("contract", "").rpartition("/")[2]


@pytest.mark.parametrize(
    ("charge", "fields", "message"),
    [
        ("input", {}, "which plan"),
        ("input", {"plan": "q"}, "no plan 'q': known are p"),
        ("output", {"plan": "p"}, "no charge of plan p version 1 'output': known are input"),
        ("input", {"plan": "p", "plan_version": 3}, "no version of plan p '3': known are 1, 2"),
        ("input", {"contract": "c9"}, "no contract 'c9': known are c1, only"),
        ("input", {"contract": "c1"}, "write one of acme/c1, globex/c1"),
        ("input", {"contract": "only", "plan": "q"}, "has plan p, not q"),
    ],
)
def test_what_is_unknown_is_said_with_what_is_known(charge: str, fields: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        find_charge(REVISION, charge, at=at(1), **fields)


def test_before_the_first_version_there_is_no_price() -> None:
    with pytest.raises(InvalidRequest, match="no version in force at 2022-01-01T00:00Z; its first begins at 2023"):
        find_charge(REVISION, "input", at=datetime(2022, 1, 1, tzinfo=UTC), plan="p")
