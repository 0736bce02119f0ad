"""Explanations: the same total as the price engine on every input, and lines that add up by themselves."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from operators.rating.charges import Charge, amount, amount_of_events, parse_charge
from operators.rating.explain import compare, explain, explain_events
from operators.rating.explain_models import EVENTS_SHOWN_MAX
from tests.operators.rating.charge_strategies import QUANTITIES, charges

SHARES = st.sampled_from([Fraction(1), Fraction(10, 31), Fraction(1, 3), Fraction(0)])
TIERS = [{"up_to": "100", "unit_amount": "0.10"}, {"up_to": "1000", "unit_amount": "0.05"}, {"unit_amount": "0.01"}]


def charge(model: str, **fields: Any) -> Charge:
    return parse_charge({"id": "c", "meter": "m", "model": model} | fields)


FREE = charge("percentage", rate_percent="1", free_events=3, free_amount="250", per_event_minimum="1")


@given(one=charges(), quantity=QUANTITIES, events=st.integers(0, 12), final=st.booleans(), share=SHARES)
@example(one=FREE, quantity="1000", events=10, final=True, share=Fraction(1))
@example(one=FREE, quantity="500", events=2, final=True, share=Fraction(1))
@example(one=FREE, quantity="-5", events=2, final=True, share=Fraction(1))
@settings(max_examples=600, deadline=None)
def test_the_total_is_the_amount(one: Charge, quantity: Any, events: int, final: bool, share: Fraction) -> None:
    exact = Decimal(quantity)
    explained = explain(one, exact, events, final=final, share=share)
    assert explained.total == amount(one, exact, events, final=final, share=share)


@given(one=charges(), values=st.lists(QUANTITIES, max_size=8), final=st.booleans(), share=SHARES)
@settings(max_examples=400, deadline=None)
def test_the_total_of_events_is_their_amount(one: Charge, values: list[Any], final: bool, share: Fraction) -> None:
    exact = [Decimal(value) for value in values]
    explained = explain_events(one, exact, final=final, share=share)
    assert explained.total == amount_of_events(one, exact, final=final, share=share)


@given(one=charges(), quantity=QUANTITIES, events=st.integers(0, 12))
@settings(max_examples=200, deadline=None)
def test_the_parts_add_up_and_carry_the_whole_quantity(one: Charge, quantity: Any, events: int) -> None:
    explained = explain(one, Decimal(quantity), events)
    assert sum((line.amount or Fraction(0) for line in explained.parts), Fraction(0)) == explained.subtotal
    assert explained.exact == (explained.modifiers[-1].amount if explained.modifiers else explained.subtotal)
    if one.model in {"per_unit", "graduated", "volume", "graduated_percentage"}:
        rated = explained.quantity_lines[-1].quantity if explained.quantity_lines else Fraction(Decimal(quantity))
        assert sum((line.quantity or Fraction(0) for line in explained.parts), Fraction(0)) == rated


@given(one=charges(), first=QUANTITIES, second=QUANTITIES)
@settings(max_examples=200, deadline=None)
def test_a_difference_is_after_less_before_and_its_parts_add_up(one: Charge, first: Any, second: Any) -> None:
    before, after = explain(one, Decimal(first), 1), explain(one, Decimal(second), 2)
    step = compare(before, after)
    exact = after.exact - before.exact
    assert sum((part.difference for part in step.parts), Fraction(0)) + step.modified == exact
    assert abs(Fraction(step.total) - exact) < Fraction(1, 10**100)


def test_a_matrix_is_explained_by_its_default_row() -> None:
    rows = [{"when": {"model": "a"}, "unit_amount": "9"}, {"unit_amount": "2"}]
    matrix = charge("matrix", rows=rows, discount_percent="10")
    # 5 x 2 = 10, less 10 % = 9
    assert explain(matrix, Decimal(5)).exact == 9
    assert explain(matrix, Decimal(5)).total == amount(matrix, Decimal(5))


def test_each_tier_has_a_line() -> None:
    # 100 x 0.10 = 10, 900 x 0.05 = 45, 200 x 0.01 = 2
    parts = explain(charge("graduated", tiers=TIERS), Decimal(1200)).parts
    assert [(line.key, line.quantity, line.price, line.amount) for line in parts] == [
        ("tier 1", Fraction(100), Fraction("0.10"), Fraction(10)),
        ("tier 2", Fraction(900), Fraction("0.05"), Fraction(45)),
        ("tier 3", Fraction(200), Fraction("0.01"), Fraction(2)),
    ]


def test_a_tier_that_appears_or_goes_is_part_of_the_difference() -> None:
    graduated = charge("graduated", tiers=TIERS)
    step = compare(explain(graduated, Decimal(50)), explain(graduated, Decimal(150)))
    # tier 1 from 50 x 0.10 to 100 x 0.10, tier 2 from nothing to 50 x 0.05
    assert [(part.key, part.difference) for part in step.parts] == [
        ("tier 1", Fraction(5)),
        ("tier 2", Fraction("2.5")),
    ]
    volume = charge("volume", tiers=TIERS)
    step = compare(explain(volume, Decimal(1000)), explain(volume, Decimal(1001)))
    # 1,000 x 0.05 = 50 goes, 1,001 x 0.01 = 10.01 comes
    assert [(part.key, part.difference) for part in step.parts] == [
        ("tier 2", Fraction(-50)),
        ("tier 3", Fraction("10.01")),
    ]


def test_many_events_share_a_line_beyond_the_limit() -> None:
    explained = explain_events(charge("percentage", rate_percent="1", per_event_minimum="1"), [Decimal(1)] * 1000)
    assert len(explained.parts) == EVENTS_SHOWN_MAX + 1
    assert explained.parts[-1].amount == 1000 - EVENTS_SHOWN_MAX
    assert explained.total == 1000
