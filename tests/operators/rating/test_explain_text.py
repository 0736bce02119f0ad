from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.rating.charges import Charge, amount, parse_charge
from operators.rating.explain import compare, explain
from operators.rating.explain_text import difference_lines, difference_to_plain, lines, to_plain
from tests.operators.rating.charge_strategies import QUANTITIES, charges

FULL: dict[str, Any] = {
    "id": "input",
    "meter": "tokens",
    "model": "graduated",
    "unit": "thousand tokens",
    "unit_divisor": "1000",
    "quantity_rounding": {"mode": "up"},
    "included": "100",
    "tiers": [{"up_to": "10000", "unit_amount": "0.03"}, {"unit_amount": "0.025", "flat_amount": "3"}],
    "discount_percent": "10",
    "discount_amount": "5",
    "maximum": "1000",
    "minimum": "400",
}


def test_the_text_of_every_step() -> None:
    # 14,999.5 thousand, up to 15,000, less 100 is 14,900: 10,000 x 0.03 + 4,900 x 0.025 + 3 = 425.5,
    # less 10 % = 382.95, less 5 = 377.95, raised to 400
    assert lines(explain(parse_charge(FULL), Decimal(14_999_500)), "USD") == [
        "Quantity to date                    14,999,500",
        "In units of 1,000                   14,999,500 / 1,000 = 14,999.5 thousand tokens",
        "Rounded up, digits 0                14,999.5 -> 15,000",
        "Allowance of 100                    15,000 - 100 = 14,900",
        "Each tier's part at its own price:",
        "  tier 1: from 0 up to 10,000       10,000 x 0.03 = 300",
        "  tier 2: over 10,000               4,900 x 0.025 + 3 = 125.5",
        "  sum                               425.5",
        "Discount of 10 %                    425.5 - 42.55 = 382.95",
        "Discount of 5                       382.95 - 5 = 377.95",
        "Maximum of 1,000                    377.95 is within it",
        "Minimum of 400                      377.95 is raised to 400",
        "Amount                              400 USD",
    ]


@pytest.mark.parametrize(
    ("fields", "quantity", "events", "expected"),
    [
        ({"model": "package", "package_size": "10", "package_amount": "7", "free_units": "5"}, "25.1", 0,
         "(25.1 - 5 free) / 10 = 2.01, up to 3 packages; 3 x 7 = 21"),
        ({"model": "package", "package_size": "10", "package_amount": "7", "free_units": "5"}, "4", 0,
         "nothing above 5: 0 packages = 0"),
        ({"model": "percentage", "rate_percent": "2.5", "per_event_maximum": "1"}, "200", 4,
         "50 x 2.5 % = 1.25, at most 1 per event; 4 x 1 = 4"),
        ({"model": "per_unit", "unit_amount": "0.3", "unit_divisor": "3"}, "1", 0,
         "about 0.333333333333 x 0.3 = 0.1"),
        ({"model": "volume", "tiers": [{"up_to": "10", "unit_amount": "2"}, {"unit_amount": "1"}]}, "11", 0,
         "11 x 1 = 11"),
        ({"model": "graduated", "tiers": [{"unit_amount": "2", "flat_amount": "9"}]}, "-3", 0, "-3 x 2 = -6"),
        ({"model": "graduated", "tiers": [{"flat_amount": "9"}], "zero_usage": "first_tier_flat"}, "0", 0,
         "flat amount of tier 1 = 9"),
        ({"model": "per_unit", "unit_amount": "1", "discount_amount": "15"}, "10", 0,
         "10 - 15, never below 0, = 0"),
        ({"model": "per_unit", "unit_amount": "1", "maximum": "15"}, "20", 0, "20 is cut to 15"),
    ],
)  # fmt: skip
def test_the_text_of_each_model(fields: Any, quantity: str, events: int, expected: str) -> None:
    text = "\n".join(lines(explain(parse_charge({"id": "c", "meter": "m"} | fields), Decimal(quantity), events)))
    assert f"  {expected}" in text


def test_while_the_period_runs_the_minimum_is_named_but_not_applied() -> None:
    explained = explain(parse_charge(FULL), Decimal(0), final=False, share=Fraction(10, 31))
    assert "Minimum of 400 x 10 / 31 = about 129.032258064516  is not due while the period runs" in lines(explained)


def test_a_difference_shows_before_after_and_each_part() -> None:
    one = parse_charge(FULL | {"minimum": "0"})
    text = difference_lines(compare(explain(one, Decimal(1_100_000)), explain(one, Decimal(11_100_000))), "USD")
    # before 1,000 x 0.03 = 30, less 3, less 5 = 22; after 300 + (1,000 x 0.025 + 3) = 328, less 32.8, less 5 = 290.2
    assert text[text.index("Difference, part by part") :] == [
        "Difference, part by part",
        "  tier 1: from 0 up to 10,000    300 - 30 = 270",
        "  tier 2: over 10,000            28 - 0 = 28",
        "  discounts, maximum, minimum    -29.8",
        "Amount after less amount before  290.2 - 22 = 268.2 USD",
    ]


@given(one=charges(), first=QUANTITIES, second=QUANTITIES, events=st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_plain_values_are_exact_and_add_up(one: Charge, first: Any, second: Any, events: int) -> None:
    after = explain(one, Decimal(second), events)
    data = to_plain(after)
    assert Decimal(data["amount"]) == amount(one, Decimal(second), events)
    assert sum((Fraction(line["amount"]) for line in data["parts"]), Fraction(0)) == Fraction(data["subtotal"])
    last = data["modifiers"][-1]["amount"] if data["modifiers"] else data["subtotal"]
    assert Fraction(last) == Fraction(data["amount_exact"])
    step = difference_to_plain(compare(explain(one, Decimal(first)), after))
    moved = sum((Fraction(part["difference"]) for part in step["parts"]), Fraction(step["modifiers_difference"]))
    assert moved == Fraction(step["after"]["amount_exact"]) - Fraction(step["before"]["amount_exact"])
