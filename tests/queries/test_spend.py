"""Spend to date against rated rows, the forecast against whole-period prices, and positions in tiers."""

from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidRequest
from operators.rating.charges import amount, parse_charge
from queries.spend import spend, tier_position
from tests.queries.conftest import START, Finished

END = START + timedelta(hours=8)


def test_to_date_is_what_was_rated_and_grows_with_the_booked_time(finished: Finished) -> None:
    stores = finished.stores
    customers = [customer.id for customer in stores.history.latest.configuration.customers]
    for customer in customers[:20]:
        for contract in spend(stores, customer, END):
            expected = stores.rows(
                "SELECT charge, price_row, sum(amount) AS total FROM @rated_usage_current WHERE customer = {c:String}"
                " AND contract = {k:String} AND status != 'unrated' GROUP BY charge, price_row",
                {"c": customer, "k": contract.contract},
            )
            rated = {(row["charge"], row["price_row"]): row["total"] for row in expected}
            assert {(one.charge, one.price_row): one.amount for one in contract.charges if one.amount} == {
                key: total for key, total in rated.items() if total
            }
            early = {one.contract: one for one in spend(stores, customer, END, as_of=START + timedelta(hours=2))}
            assert early[contract.contract].amount <= contract.amount


def test_the_forecast_prices_the_period_at_the_same_rate(finished: Finished) -> None:
    stores = finished.stores
    checked = stays = 0
    meters = stores.history.latest.meters
    for customer in stores.history.latest.configuration.customers:
        for contract in spend(stores, customer.id, END):
            terms = contract.period_end - contract.period_start
            for charge in contract.charges:
                if not charge.quantity or charge.forecast_quantity is None or charge.meter not in meters:
                    continue
                if meters[charge.meter].aggregation not in ("count", "sum", "weighted_sum"):
                    assert charge.forecast_quantity == charge.quantity, "a maximum does not grow with time"
                    stays += 1
                    continue
                elapsed = Fraction((END - contract.period_start) / timedelta(microseconds=1)) / Fraction(
                    terms / timedelta(microseconds=1)
                )
                expected = Fraction(charge.quantity) / elapsed
                assert abs(Fraction(charge.forecast_quantity) - expected) < Fraction(1, 10**11)
                checked += 1
    assert checked
    assert stays


def test_a_period_that_is_over_is_not_forecast(finished: Finished) -> None:
    stores = finished.stores
    for customer in stores.history.latest.configuration.customers:
        for contract in spend(stores, customer.id, END, now=END + timedelta(days=60)):
            assert contract.elapsed_percent == 100
            for charge in contract.charges:
                assert charge.forecast_quantity in (None, charge.quantity)


def test_an_unknown_customer_is_said(finished: Finished) -> None:
    with pytest.raises(InvalidRequest, match="no customer 'nobody'"):
        spend(finished.stores, "nobody", END)


@given(
    borders=st.lists(st.integers(1, 500), min_size=0, max_size=5, unique=True).map(sorted),
    quantity=st.fractions(0, 700, max_denominator=7),
)
def test_the_tier_is_the_one_whose_price_the_next_unit_has(borders: list[int], quantity: Fraction) -> None:
    tiers: list[dict[str, Any]] = [
        {"up_to": str(border), "unit_amount": str(1000 - place)} for place, border in enumerate(borders)
    ]
    tiers.append({"up_to": None, "unit_amount": "7"})
    charge: Any = parse_charge({"id": "c", "meter": "m", "model": "graduated", "tiers": tiers})
    found = tier_position(charge, quantity)
    assert found is not None
    assert (found.tiers, found.over < quantity or not quantity) == (len(tiers), True)
    assert found.up_to is None or quantity <= found.up_to
    if quantity.denominator == 1 and quantity > found.over:
        last = amount(charge, Decimal(int(quantity))) - amount(charge, Decimal(int(quantity) - 1))
        assert last == found.price
    if found.up_to is not None:
        assert found.left is not None
        assert abs(Fraction(found.left) + quantity - Fraction(found.up_to)) < Fraction(1, 10**11)
        following = amount(charge, found.up_to + 1) - amount(charge, found.up_to)
        assert following == found.next_price


def test_a_charge_without_tiers_has_no_position() -> None:
    charge: Any = parse_charge({"id": "c", "meter": "m", "model": "per_unit", "unit_amount": "1"})
    assert tier_position(charge, Fraction(5)) is None
