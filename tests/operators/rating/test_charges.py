"""Every figure in a comment was worked out by hand; the sample cases come from public test suites of peers."""

import json
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.rating.charges import Charge, amount, amount_of_events, parse_charge

SHARED_CASES = Path(__file__).parents[4] / "shared" / "data" / "charge_cases_sample.json"

STEPS: list[dict[str, Any]] = [
    {"up_to": "5", "unit_amount": "0", "flat_amount": "100"},
    {"up_to": "10", "unit_amount": "0", "flat_amount": "50"},
    {"up_to": "15", "unit_amount": "10", "flat_amount": "0"},
    {"up_to": None, "unit_amount": "5", "flat_amount": "0"},
]
VOLUME_STEPS: list[dict[str, Any]] = [STEPS[0], STEPS[1] | {"flat_amount": "150"}, *STEPS[2:]]
PRICES = [{"up_to": "100", "unit_amount": "0.10"}, {"up_to": "1000", "unit_amount": "0.05"}, {"unit_amount": "0.01"}]


def charge(model: str, **fields: Any) -> Charge:
    return parse_charge({"id": "c", "meter": "m", "model": model} | fields)


def price(model: str, quantity: str, events: int = 0, *, final: bool = True, **fields: Any) -> Decimal:
    return amount(charge(model, **fields), Decimal(quantity), events, final=final)


@pytest.mark.parametrize(
    ("model", "fields", "quantity", "expected"),
    [
        ("per_unit", {"unit_amount": "10"}, "0", "0"),
        ("per_unit", {"unit_amount": "10", "maximum": "100"}, "10", "100"),
        ("graduated", {"tiers": STEPS, "zero_usage": "first_tier_flat"}, "3", "100"),
        ("graduated", {"tiers": STEPS, "zero_usage": "first_tier_flat"}, "7", "150"),
        ("volume", {"tiers": VOLUME_STEPS, "zero_usage": "first_tier_flat"}, "0", "100"),
        ("volume", {"tiers": VOLUME_STEPS, "zero_usage": "first_tier_flat"}, "14", "140"),
        ("volume", {"tiers": VOLUME_STEPS, "zero_usage": "first_tier_flat"}, "100", "500"),
        ("volume", {"tiers": VOLUME_STEPS, "zero_usage": "first_tier_flat", "minimum": "100"}, "100", "500"),
        ("volume", {"tiers": VOLUME_STEPS, "zero_usage": "first_tier_flat", "maximum": "100"}, "5", "100"),
        ("package", {"package_size": "10", "package_amount": "15", "free_units": "0"}, "5", "15"),
    ],
)
def test_figures_from_public_suites_of_peers(model: str, fields: Any, quantity: str, expected: str) -> None:
    assert price(model, quantity, **fields) == Decimal(expected)


@pytest.mark.skipif(not SHARED_CASES.exists(), reason="the larger sample is not beside this checkout")
def test_every_case_of_the_sample_file() -> None:
    cases = json.loads(SHARED_CASES.read_text())["cases"]
    wrong = [
        case["id"]
        for case in cases
        if amount(parse_charge(case["charge"]), Decimal(case["quantity"]), case.get("events", 0))
        != Decimal(case["expected"])
    ]
    assert len(cases) >= 10
    assert wrong == []


@pytest.mark.parametrize(
    ("model", "fields", "quantity", "events", "expected"),
    [
        # 100 x 0.10 + 900 x 0.05 + 200 x 0.01
        ("graduated", {"tiers": PRICES}, "1200", 0, "57"),
        # the limit of a tier still belongs to it: 100 x 0.10
        ("graduated", {"tiers": PRICES}, "100", 0, "10"),
        # 100 x 0.10 + 0.5 x 0.05
        ("graduated", {"tiers": PRICES}, "100.5", 0, "10.025"),
        # the whole quantity at one price: 1000 x 0.05, then 1001 x 0.01
        ("volume", {"tiers": PRICES}, "1000", 0, "50"),
        ("volume", {"tiers": PRICES}, "1001", 0, "10.01"),
        # (25 - 5) / 10 = 2 packages; (25.1 - 5) / 10 starts a third one
        ("package", {"package_size": "10", "package_amount": "7", "free_units": "5"}, "25", 0, "14"),
        ("package", {"package_size": "10", "package_amount": "7", "free_units": "5"}, "25.1", 0, "21"),
        ("package", {"package_size": "10", "package_amount": "7", "package_rounding": "down"}, "29.9", 0, "14"),
        # 2.5 % of 1000 + 0.30 x 4
        ("percentage", {"rate_percent": "2.5", "fixed_amount": "0.30"}, "1000", 4, "26.2"),
        # 10 % of 100 + 5 % of 50 + flat 3 for entering the second tier
        (
            "graduated_percentage",
            {"tiers": [{"up_to": "100", "rate_percent": "10"}, {"rate_percent": "5", "flat_amount": "3"}]},
            "150",
            0,
            "15.5",
        ),
        ("flat", {"amount": "49.99"}, "123", 7, "49.99"),
        # divisor, then rounding up, then the allowance: 2500 / 1000 = 2.5 -> 3 - 1 = 2 x 4
        (
            "per_unit",
            {"unit_amount": "4", "unit_divisor": "1000", "included": "1", "quantity_rounding": {"mode": "up"}},
            "2500",
            0,
            "8",
        ),
        # 100 less 10 % = 90, less 15 = 75: the percentage comes first
        ("per_unit", {"unit_amount": "1", "discount_percent": "10", "discount_amount": "15"}, "100", 0, "75"),
        # a fixed discount never makes a credit
        ("per_unit", {"unit_amount": "1", "discount_amount": "15"}, "10", 0, "0"),
        # the discount comes before the minimum: 100 - 50 = 50, raised to 60
        ("per_unit", {"unit_amount": "1", "discount_amount": "50", "minimum": "60"}, "100", 0, "60"),
        # the maximum before the minimum: the minimum has the last word
        ("per_unit", {"unit_amount": "1", "maximum": "10", "minimum": "20"}, "100", 0, "20"),
        # within the allowance nothing is priced
        ("graduated", {"tiers": STEPS, "included": "100"}, "100", 0, "0"),
        # 1/3 of a unit at 0.30 is exactly 0.10, though a third has no end
        ("per_unit", {"unit_amount": "0.30", "unit_divisor": "3"}, "1", 0, "0.1"),
        # 50 TB for a month of level-seconds: 1,150.00, not 1,149.97
        (
            "per_unit",
            {"unit_amount": "0.023", "unit_divisor": "2678400"},
            "133920000000",
            0,
            "1150",
        ),
        # net negative usage: at the first tier's price, without its flat amount
        ("graduated", {"tiers": [{"unit_amount": "2", "flat_amount": "9"}]}, "-3", 0, "-6"),
        ("package", {"package_size": "10", "package_amount": "7"}, "-3", 0, "0"),
    ],
)
def test_figures_worked_out_by_hand(model: str, fields: Any, quantity: str, events: int, expected: str) -> None:
    assert price(model, quantity, events, **fields) == Decimal(expected)


@pytest.mark.parametrize(
    ("mode", "digits", "quantity", "expected"),
    [
        ("up", 0, "1.001", "2"),
        ("down", 0, "1.999", "1"),
        ("half_up", 0, "2.5", "3"),
        ("half_even", 0, "2.5", "2"),
        ("half_up", 1, "0.25", "0.3"),
        ("up", -3, "1001", "2000"),
        ("half_up", 0, "-2.5", "-3"),
        ("up", 0, "-2.5", "-2"),
    ],
)
def test_quantity_rounding(mode: str, digits: int, quantity: str, expected: str) -> None:
    rounding = {"mode": mode, "digits": digits}
    assert price("per_unit", quantity, unit_amount="1", quantity_rounding=rounding) == Decimal(expected)


def test_while_the_period_runs_there_is_no_minimum_and_no_fee_of_zero_usage() -> None:
    fields: dict[str, Any] = {"tiers": STEPS, "zero_usage": "first_tier_flat", "minimum": "500"}
    assert price("graduated", "0", final=False, **fields) == 0
    assert price("graduated", "7", final=False, **fields) == 150
    assert price("graduated", "7", **fields) == 500


def test_zero_usage_is_free_unless_it_says_otherwise() -> None:
    assert price("graduated", "0", tiers=STEPS) == 0
    assert price("volume", "0", tiers=STEPS) == 0
    assert price("graduated", "0", tiers=STEPS, zero_usage="first_tier_flat") == 100


def test_a_share_of_the_period_prorates_flat_amount_and_minimum() -> None:
    flat = charge("flat", amount="31")
    assert amount(flat, Decimal(0), share=Fraction(10, 31)) == 10
    least = charge("per_unit", unit_amount="1", minimum="31")
    assert amount(least, Decimal(3), share=Fraction(10, 31)) == 10
    assert amount(least, Decimal(30), share=Fraction(10, 31)) == 30


@pytest.mark.parametrize(
    ("fields", "values", "expected"),
    [
        # 2 free events, then 1 % of 300 + 0.1
        ({"rate_percent": "1", "fixed_amount": "0.1", "free_events": 2}, ["100", "200", "300"], "3.1"),
        # 250 free: 100 free, 150 of 200 free, so 1 % of 50 + 0.1, then 1 % of 300 + 0.1
        ({"rate_percent": "1", "fixed_amount": "0.1", "free_amount": "250"}, ["100", "200", "300"], "3.7"),
        # both limits: the first event uses the one free event; the rest is priced
        ({"rate_percent": "1", "free_events": 1, "free_amount": "250"}, ["100", "200"], "2"),
        # the amount is used up first: 50 of the first event, and the second one is not free any more
        ({"rate_percent": "1", "free_events": 5, "free_amount": "50"}, ["100", "200"], "2.5"),
        # 1 % of 10 is raised to 1, 1 % of 1000 is cut to 5, 1 % of 200 stays
        ({"rate_percent": "1", "per_event_minimum": "1", "per_event_maximum": "5"}, ["10", "1000", "200"], "8"),
        ({"rate_percent": "1", "free_events": 0, "free_amount": "0"}, ["100"], "1"),
        ({"rate_percent": "1", "per_event_minimum": "1"}, [], "0"),
        # the allowance covers the first event and half of the second
        ({"rate_percent": "10", "per_event_minimum": "1", "included": "150"}, ["100", "100"], "6"),
    ],
)
def test_a_charge_that_looks_at_each_event(fields: Any, values: list[str], expected: str) -> None:
    assert amount_of_events(charge("percentage", **fields), [Decimal(value) for value in values]) == Decimal(expected)


def test_models_that_do_not_look_at_events_price_their_sum() -> None:
    assert amount_of_events(charge("volume", tiers=PRICES), [Decimal(1000), Decimal(1)]) == Decimal("10.01")


@pytest.mark.parametrize(("wide", "expected"), [("1e-200", "6"), ("1e200", "3e200")])
def test_values_of_any_size_add_up_to_130_digits_and_raise_nothing(wide: str, expected: str) -> None:
    values = [Decimal(1), Decimal(wide), Decimal(1)]
    assert amount_of_events(charge("per_unit", unit_amount="3"), values) == Decimal(expected)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"model": "graduated", "tiers": [{"up_to": "10", "unit_amount": "1"}]}, "above 10 has no price"),
        ({"model": "graduated", "tiers": [{"unit_amount": "1"}, {"unit_amount": "2"}]}, "only the last tier"),
        ({"model": "volume", "tiers": [{"up_to": "5"}, {"up_to": "5"}, {}]}, "ascending"),
        ({"model": "per_unit", "unit_amount": 0.1}, "float"),
        ({"model": "per_unit", "unit_amount": "NaN"}, "finite"),
        ({"model": "per_unit", "unit_amount": "1e999"}, "at most"),
        ({"model": "per_unit", "unit_amount": "1", "unit_divisor": "0"}, "greater than zero"),
        ({"model": "per_unit", "unit_amount": "1", "minimum": "-1"}, "negative"),
        ({"model": "per_unit", "unit_amount": "1", "discount_percent": "101"}, "less than or equal"),
        ({"model": "per_unit", "unit_amount": "1", "unit_amuont": "1"}, "Extra inputs"),
        ({"model": "per_unit", "unit_amount": "1", "meter": ""}, "meter"),
        ({"model": "surprise"}, "surprise"),
    ],
)
def test_what_a_charge_may_not_say(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_charge({"id": "c", "meter": "m"} | raw)


@pytest.mark.parametrize(
    "raw",
    [
        {"model": "per_unit", "unit_amount": "2"},
        {"model": "graduated", "tiers": [{"unit_amount": "2"}]},
        {"model": "package", "package_size": "1", "package_amount": "2"},
        {"model": "percentage", "rate_percent": "200"},
        {"model": "graduated_percentage", "tiers": [{"rate_percent": "200"}]},
        {"model": "flat", "amount": "14"},
        {"model": "matrix", "rows": [{"unit_amount": "2"}]},
    ],
)
def test_a_field_that_is_null_is_one_that_is_not_there(raw: dict[str, Any]) -> None:
    base = {"id": "c", "meter": "m"} | raw
    plain = parse_charge(base)
    fields = type(plain).model_fields
    nulls = {name: None for name, field in fields.items() if not field.is_required() and name not in base}
    filled = base | nulls
    for name in ("tiers", "rows"):
        if name in raw:
            filled[name] = [{"flat_amount": None, "up_to": None} | raw[name][0]] if name == "tiers" else raw[name]
    assert parse_charge(filled) == plain
    assert amount(plain, Decimal(7)) == 14


def test_a_required_field_may_not_be_null() -> None:
    with pytest.raises(ValueError, match="unit_amount"):
        charge("per_unit", unit_amount=None)


def test_one_filter_value_is_a_list_of_one() -> None:
    assert charge("per_unit", unit_amount="1", filter={"model": "gpt-4"}).filter == {"model": ("gpt-4",)}


# --- properties ------------------------------------------------------------------------------------------

QUANTITIES = st.decimals("0", "100000", places=12)
AMOUNTS = st.decimals("0", "50", places=4).map(str)


@st.composite
def tiers(draw: st.DrawFn) -> list[dict[str, Any]]:
    limits = sorted(draw(st.sets(st.integers(1, 100_000), min_size=1, max_size=4)))
    steps: list[dict[str, Any]] = [{"up_to": str(limit)} for limit in limits] + [{"up_to": None}]
    return [step | {"unit_amount": draw(AMOUNTS), "flat_amount": draw(AMOUNTS)} for step in steps]


def naive_graduated(steps: list[dict[str, Any]], quantity: Decimal) -> Fraction:
    total, lower = Fraction(0), Fraction(0)
    for step in steps:
        upper = Fraction(quantity) if step["up_to"] is None else min(Fraction(step["up_to"]), Fraction(quantity))
        if upper > lower:
            total += (upper - lower) * Fraction(step["unit_amount"]) + Fraction(step["flat_amount"])
            lower = upper
    return total


@given(steps=tiers(), quantity=QUANTITIES)
@settings(max_examples=60, deadline=None)
def test_graduated_equals_naive_fractions(steps: list[dict[str, Any]], quantity: Decimal) -> None:
    assert Fraction(amount(charge("graduated", tiers=steps), quantity)) == naive_graduated(steps, quantity)


@given(steps=tiers(), first=QUANTITIES, more=QUANTITIES)
@settings(max_examples=60, deadline=None)
def test_graduated_never_falls(steps: list[dict[str, Any]], first: Decimal, more: Decimal) -> None:
    graduated = charge("graduated", tiers=steps, maximum="1000", minimum="3", discount_percent="12.5")
    assert amount(graduated, first + more) >= amount(graduated, first)


@given(
    quantity=QUANTITIES,
    events=st.integers(1, 20),
    rate=AMOUNTS,
    fixed=AMOUNTS,
    free_events=st.integers(0, 10),
    free_amount=st.integers(0, 50_000).map(str),
)
@settings(max_examples=80, deadline=None)
def test_totals_price_events_of_equal_size(
    quantity: Decimal, events: int, rate: str, fixed: str, free_events: int, free_amount: str
) -> None:
    one = charge(
        "percentage",
        rate_percent=rate,
        fixed_amount=fixed,
        free_events=free_events,
        free_amount=free_amount,
        per_event_maximum="40",
    )
    with localcontext() as context:
        context.prec = 60
        exact = quantity * events
    assert amount(one, exact, events) == amount_of_events(one, [quantity] * events)


@given(quantity=st.decimals("-100000", "100000", places=12), divisor=st.integers(1, 1000))
@settings(max_examples=60, deadline=None)
def test_a_divisor_is_exact_or_right_to_far_more_than_twelve_places(quantity: Decimal, divisor: int) -> None:
    got = amount(charge("per_unit", unit_amount="7", unit_divisor=str(divisor)), quantity)
    assert abs(Fraction(got) - Fraction(quantity) * 7 / divisor) < Fraction(1, 10**100)


@given(
    values=st.lists(st.decimals("0", "1000", places=2), max_size=8),
    rate=st.integers(0, 10),
    free=st.integers(0, 2000),
    divisor=st.sampled_from([1, 4]),
    discount=st.sampled_from(["0", "10"]),
)
@settings(max_examples=80, deadline=None)
def test_a_free_amount_alone_is_decided_by_totals(
    values: list[Decimal], rate: int, free: int, divisor: int, discount: str
) -> None:
    """Given neither fixed parts nor limits; then which events use the free amount up makes no difference."""
    fields = {"rate_percent": str(rate), "free_amount": str(free), "unit_divisor": str(divisor)}
    one = charge("percentage", **fields, discount_percent=discount)
    assert not one.looks_at_each_event
    naive = {}
    for order in (values, values[::-1]):
        left, naive[order is values] = Fraction(free), Fraction(0)
        for value in order:
            covered = min(left, Fraction(value) / divisor)
            left -= covered
            naive[order is values] += (Fraction(value) / divisor - covered) * rate / 100
    assert naive.get(True) == naive.get(False, naive.get(True))
    expected = naive[True] * (100 - int(discount)) / 100
    assert Fraction(amount(one, sum(values, Decimal(0)), len(values))) == expected
    assert Fraction(amount_of_events(one, values)) == expected


@settings(deadline=None)
@given(events=st.integers(0, 12), free=st.integers(0, 6), fixed=st.integers(0, 300), maximum=st.integers(0, 200))
def test_without_a_share_only_the_number_of_events_counts(events: int, free: int, fixed: int, maximum: int) -> None:
    fields = {"fixed_amount": str(Decimal(fixed) / 100), "per_event_maximum": str(Decimal(maximum) / 100)}
    one = charge("percentage", rate_percent="0", free_events=free, **fields)
    assert not one.looks_at_each_event
    expected = max(events - free, 0) * Decimal(min(fixed, maximum)) / 100
    assert amount(one, Decimal(1234), events) == amount_of_events(one, [Decimal(7)] * events) == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"rate_percent": "1", "free_events": 1},
        {"rate_percent": "1", "free_amount": "5", "fixed_amount": "1"},
        {"rate_percent": "1", "free_amount": "5", "free_events": 1},
        {"rate_percent": "1", "free_amount": "5", "quantity_rounding": {"mode": "up"}},
        {"rate_percent": "0", "free_amount": "5", "fixed_amount": "1"},
        {"rate_percent": "1", "per_event_minimum": "0"},
    ],
)
def test_where_totals_are_not_enough(fields: Any) -> None:
    assert charge("percentage", **fields).looks_at_each_event
