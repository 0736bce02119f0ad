"""Each model with each modifier and at its edges, worked out by hand: the calculation stands above the figure."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from operators.rating.charges import amount, amount_of_events, parse_charge
from operators.rating.explain import explain, explain_events

TIERS = [{"up_to": "100", "unit_amount": "0.10"}, {"unit_amount": "0.05", "flat_amount": "2"}]
PERCENT_TIERS = [{"up_to": "1000", "rate_percent": "3", "flat_amount": "1"}, {"rate_percent": "1"}]
PACK = {"package_size": "10", "package_amount": "7"}
RATE = {"rate_percent": "2", "fixed_amount": "0.25"}
Case = tuple[str, dict[str, Any], str, int, str]

PER_UNIT: list[Case] = [
    # 7.5 x 0.2 = 1.5
    ("per_unit", {"unit_amount": "0.2"}, "7.5", 0, "1.5"),
    # a negative price is a credit: 10 x -0.2 = -2; no discount is taken off a credit
    ("per_unit", {"unit_amount": "-0.2", "discount_amount": "1"}, "10", 0, "-2"),
    # -10 x 0.2 = -2, and a share of it off: -2 - (-2 x 10 %) = -1.8
    ("per_unit", {"unit_amount": "0.2", "discount_percent": "10"}, "-10", 0, "-1.8"),
    # 5000 / 1000 = 5, 5 - 2 = 3, 3 x 4 = 12, less 50 % = 6, less 1 = 5, at least 5.5
    ("per_unit", {"unit_amount": "4", "unit_divisor": "1000", "included": "2", "discount_percent": "50",
                  "discount_amount": "1", "minimum": "5.5"}, "5000", 0, "5.5"),
    # all of it off, then the minimum: 100 - 100 % = 0, raised to 3
    ("per_unit", {"unit_amount": "1", "discount_percent": "100", "minimum": "3"}, "100", 0, "3"),
    # a maximum of zero is a limit
    ("per_unit", {"unit_amount": "1", "maximum": "0"}, "100", 0, "0"),
    # a negative quantity stays below an allowance: -3 x 1
    ("per_unit", {"unit_amount": "1", "included": "5"}, "-3", 0, "-3"),
    # 2 / 3 = 0.666..., half up at two digits 0.67, x 100
    ("per_unit", {"unit_amount": "100", "unit_divisor": "3", "quantity_rounding": {"mode": "half_up", "digits": 2}},
     "2", 0, "67"),
    # the allowance comes behind the rounding: 2.2 up to 3, 3 - 2.5 = 0.5
    ("per_unit", {"unit_amount": "1", "included": "2.5", "quantity_rounding": {"mode": "up"}}, "2.2", 0, "0.5"),
]  # fmt: skip
TIERED: list[Case] = [
    # the limit belongs to the tier: 100 x 0.10, without the second tier's flat amount
    ("graduated", {"tiers": TIERS}, "100", 0, "10"),
    # a grain above it enters the second tier: 10 + 0.000000000001 x 0.05 + 2
    ("graduated", {"tiers": TIERS}, "100.000000000001", 0, "12.00000000000005"),
    # 300 - 150 = 150: 100 x 0.10 + 50 x 0.05 + 2 = 14.5
    ("graduated", {"tiers": TIERS, "included": "150"}, "300", 0, "14.5"),
    # 100.4 down to 100: the second tier is not entered
    ("graduated", {"tiers": TIERS, "quantity_rounding": {"mode": "down"}}, "100.4", 0, "10"),
    # 10 + 100 x 0.05 + 2 = 17, less 10 % = 15.3, cut to 15
    ("graduated", {"tiers": TIERS, "discount_percent": "10", "maximum": "15"}, "200", 0, "15"),
    # one open tier: 9 + 5 x 2
    ("graduated", {"tiers": [{"unit_amount": "2", "flat_amount": "9"}]}, "5", 0, "19"),
    # 200 x 0.05 + 2 = 12, and at the limit 100 x 0.10 = 10
    ("volume", {"tiers": TIERS}, "200", 0, "12"),
    ("volume", {"tiers": TIERS}, "100", 0, "10"),
    # 150 - 100 = 50 falls in the first tier: 50 x 0.10
    ("volume", {"tiers": TIERS, "included": "100"}, "150", 0, "5"),
    # 200000 / 1000 = 200: 200 x 0.05 + 2 = 12, less 15 is never below 0, raised to 1
    ("volume", {"tiers": TIERS, "unit_divisor": "1000", "discount_amount": "15", "minimum": "1"}, "200000", 0, "1"),
    # 1000 x 3 % + 1 = 31, + 500 x 1 % = 36
    ("graduated_percentage", {"tiers": PERCENT_TIERS}, "1500", 0, "36"),
    # -100 x 3 % = -3, without the flat amount
    ("graduated_percentage", {"tiers": PERCENT_TIERS}, "-100", 0, "-3"),
    # nothing, or the first tier's flat amount
    ("graduated_percentage", {"tiers": PERCENT_TIERS}, "0", 0, "0"),
    ("graduated_percentage", {"tiers": PERCENT_TIERS, "zero_usage": "first_tier_flat"}, "0", 0, "1"),
    # usage within the allowance is no usage either
    ("graduated_percentage", {"tiers": PERCENT_TIERS, "zero_usage": "first_tier_flat", "included": "9"}, "9", 0, "1"),
    # 31, + 5, less 10 % = 32.4, less 2.4 = 30
    ("graduated_percentage", {"tiers": PERCENT_TIERS, "discount_percent": "10", "discount_amount": "2.4"},
     "1500", 0, "30"),
]  # fmt: skip
PACKAGES: list[Case] = [
    # 10 / 10 = 1 package; a grain more starts the second
    ("package", PACK, "10", 0, "7"),
    ("package", PACK, "10.000000000001", 0, "14"),
    # 9.999999999999 is not a full package
    ("package", PACK | {"package_rounding": "down"}, "9.999999999999", 0, "0"),
    # 0.3 / 0.1 = 3 packages exactly, which floats make 4 of
    ("package", {"package_size": "0.1", "package_amount": "1"}, "0.3", 0, "3"),
    # (47 - 5 - 20) / 10 = 2.2, up to 3, 3 x 7 = 21, less 50 % = 10.5
    ("package", PACK | {"included": "5", "free_units": "20", "discount_percent": "50"}, "47", 0, "10.5"),
    # 25 / 10 = 2.5, up to 3, 21, cut to 20
    ("package", PACK | {"maximum": "20"}, "25", 0, "20"),
    # no package, but the minimum
    ("package", PACK | {"minimum": "4"}, "0", 0, "4"),
]
SHARES: list[Case] = [
    # 500 x 2 % + 3 x 0.25 = 10.75
    ("percentage", RATE, "500", 3, "10.75"),
    # (500 - 100) x 2 % + 0.75 = 8.75
    ("percentage", RATE | {"included": "100"}, "500", 3, "8.75"),
    # 10.75 less 10 % = 9.675, raised to 9.7
    ("percentage", RATE | {"discount_percent": "10", "minimum": "9.7"}, "500", 3, "9.7"),
    # refunds take the share back, events stay: -500 x 2 % + 3 x 0.25
    ("percentage", RATE, "-500", 3, "-9.25"),
    # four events of 50: the first two free, 2 x (50 x 2 % + 0.25)
    ("percentage", RATE | {"free_events": 2}, "200", 4, "2.5"),
    # four events of 50, 125 free: two, and half of the third; 25 x 2 % + 0.25 + 50 x 2 % + 0.25
    ("percentage", RATE | {"free_amount": "125"}, "200", 4, "2"),
    ("flat", {"amount": "50"}, "0", 0, "50"),
    # 50 less 10 % = 45, less 5 = 40
    ("flat", {"amount": "50", "discount_percent": "10", "discount_amount": "5"}, "9", 0, "40"),
    ("flat", {"amount": "50", "maximum": "30"}, "9", 0, "30"),
    ("flat", {"amount": "50", "minimum": "70"}, "9", 0, "70"),
]


@pytest.mark.parametrize(("model", "fields", "quantity", "events", "expected"), PER_UNIT + TIERED + PACKAGES + SHARES)
def test_a_total(model: str, fields: dict[str, Any], quantity: str, events: int, expected: str) -> None:
    charge = parse_charge({"id": "c", "meter": "m", "model": model} | fields)
    assert amount(charge, Decimal(quantity), events) == Decimal(expected)
    assert explain(charge, Decimal(quantity), events).exact == Fraction(expected)


@pytest.mark.parametrize(
    ("fields", "values", "expected"),
    [
        # each event is divided and rounded on its own: 1.5 and 2.5 up to 2 and 3; 2 % of each, at least 0.05
        ({"rate_percent": "2", "per_event_minimum": "0.05", "unit_divisor": "1000",
          "quantity_rounding": {"mode": "up"}},
         ["1500", "2500"], "0.11"),
        # the minimum of an event has the last word over its maximum: 100 x 2 % = 2, cut to 1, raised to 1.5
        ({"rate_percent": "2", "per_event_maximum": "1", "per_event_minimum": "1.5"}, ["100"], "1.5"),
        # 5 + 5 + 2 = 12 for the events, less 50 % = 6, cut to 5
        ({"rate_percent": "1", "per_event_maximum": "5", "discount_percent": "50", "maximum": "5"},
         ["1000", "600", "200"], "5"),
        # a free event costs no fixed part; one that is free in part does: 50 x 1 % + 0.3
        ({"rate_percent": "1", "fixed_amount": "0.3", "free_amount": "150"}, ["100", "100"], "0.8"),
        # 100 of the first event are free, 100 x 1 % + 50 x 1 %; the other way round 50 and 50 are, 150 x 1 %
        ({"rate_percent": "1", "free_amount": "100"}, ["200", "50"], "1.5"),
        ({"rate_percent": "1", "free_amount": "100"}, ["50", "200"], "1.5"),
        # no events, but the minimum of the period
        ({"rate_percent": "1", "free_events": 1, "minimum": "9"}, [], "9"),
    ],
)  # fmt: skip
def test_events(fields: dict[str, Any], values: list[str], expected: str) -> None:
    charge = parse_charge({"id": "c", "meter": "m", "model": "percentage"} | fields)
    exact = [Decimal(value) for value in values]
    assert amount_of_events(charge, exact) == Decimal(expected)
    assert explain_events(charge, exact).exact == Fraction(expected)


SHARE = {"rate_percent": "1.3", "fixed_amount": "2.0"}
LIMITED = {"rate_percent": "1", "per_event_minimum": "1.75", "per_event_maximum": "12"}
SMALL, LARGE = ["50", "100", "250", "400"], ["100", "1000", "10000"]


@pytest.mark.parametrize(
    ("fields", "values", "expected"),
    [
        # 550 x 1.3 % + 2 x 2: the third event is free in part
        (SHARE | {"free_events": 3, "free_amount": "250.0"}, SMALL, "11.15"),
        (SHARE | {"free_amount": "250.0"}, SMALL, "11.15"),
        # 400 x 1.3 % + 2: three events are free as a whole
        (SHARE | {"free_events": 3}, SMALL, "7.2"),
        (SHARE | {"free_events": 3, "free_amount": "500.0"}, SMALL, "7.2"),
        (SHARE, SMALL, "18.4"),
        (SHARE | {"free_events": 5}, SMALL, "0"),
        # 1 raised to 1.75, 10, 100 cut to 12
        (LIMITED, LARGE, "23.75"),
        (LIMITED | {"fixed_amount": "1.0"}, LARGE, "25"),
        (LIMITED | {"free_events": 2}, LARGE, "12"),
        # the first event and 200 of the second are free: 800 x 1 % + 12
        (LIMITED | {"free_amount": "300"}, LARGE, "20"),
        # 100, 1000 and 8900 of the third are free: 1100 x 1 %
        (LIMITED | {"free_events": 3, "free_amount": "10000"}, LARGE, "11"),
    ],
)
def test_shares_per_event_as_in_a_peers_public_suite(fields: dict[str, Any], values: list[str], expected: str) -> None:
    charge = parse_charge({"id": "c", "meter": "m", "model": "percentage"} | fields)
    assert amount_of_events(charge, [Decimal(value) for value in values]) == Decimal(expected)
