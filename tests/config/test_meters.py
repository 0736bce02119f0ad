from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from config.meters import Meter, PerEvent
from operators.rating.charges import amount_of_events, parse_charge

PLAIN = {"id": "m", "event_type": "t", "value": "$.v", "aggregation": "sum"}


@pytest.mark.parametrize(
    ("terms", "value", "expected"),
    [
        # 2.9 % of 100 and 0.30
        ({"rate_percent": "2.9", "fixed_amount": "0.30"}, "100", "3.2"),
        # 1 % of 10 is raised to 1, 1 % of 1000 is cut to 5
        ({"rate_percent": "1", "minimum": "1", "maximum": "5"}, "10", "1"),
        ({"rate_percent": "1", "minimum": "1", "maximum": "5"}, "1000", "5"),
        # a minimum above the maximum wins
        ({"rate_percent": "1", "minimum": "7", "maximum": "5"}, "1000", "7"),
        # half of the last place goes to the even side
        ({"rate_percent": "50"}, "0.000000000001", "0"),
        ({"rate_percent": "50"}, "0.000000000003", "0.000000000002"),
        ({"fixed_amount": "0.1"}, "5", "0.1"),
    ],
)
def test_an_event_comes_to(terms: dict[str, Any], value: str, expected: str) -> None:
    assert PerEvent.model_validate(terms).amount(Decimal(value)) == Decimal(expected)


CENTS = st.integers(-10_000, 10_000).map(lambda cents: str(Decimal(cents) / 100))
LIMIT = st.one_of(st.none(), st.integers(0, 10_000).map(lambda cents: str(Decimal(cents) / 100)))


@settings(deadline=None)
@given(
    st.decimals(0, 10**15, places=6),
    st.integers(0, 10_000).map(lambda number: str(Decimal(number) / 100)),
    CENTS,
    LIMIT,
    LIMIT,
)
def test_an_event_comes_to_what_the_charge_says(
    value: Decimal, rate: str, fixed: str, minimum: str | None, maximum: str | None
) -> None:
    terms = PerEvent.model_validate(
        {"rate_percent": rate, "fixed_amount": fixed, "minimum": minimum, "maximum": maximum}
    )
    plain = {"id": "c", "meter": "m", "model": "percentage", "rate_percent": rate, "fixed_amount": fixed}
    limits = {"per_event_minimum": minimum, "per_event_maximum": maximum}
    assert terms.amount(value) == amount_of_events(parse_charge(plain | limits), [value])


def test_meter_without_terms_takes_the_value_as_it_is() -> None:
    assert Meter.model_validate(PLAIN).brings(Decimal(7)) == 7
    meter = Meter.model_validate(PLAIN | {"per_event": {"rate_percent": "10"}})
    assert meter.brings(Decimal(7)) == Decimal("0.7")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"aggregation": "max", "per_event": {"rate_percent": "1"}}, "per_event is for sum"),
        ({"per_event": {"rate_percent": "1000"}}, "10\\^19 or more"),
        ({"per_event": {"rate_percent": "1e9999"}}, "10\\^19 or more"),
        ({"per_event": {"fixed_amount": "-1e19"}}, "10\\^19 or more"),
        ({"level_expiry": "P1D"}, "level_expiry is for weighted_sum"),
        ({"aggregation": "count"}, "count takes no value"),
        ({"aggregation": "sum", "value": None}, "sum needs `value`"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Meter.model_validate(PLAIN | changes)


def test_a_maximum_allows_any_rate() -> None:
    terms = PerEvent.model_validate({"rate_percent": "1000000", "maximum": "5", "minimum": "0"})
    assert terms.amount(Decimal(10) ** 17) == 5
