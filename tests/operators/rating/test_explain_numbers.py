from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.rating.explain_numbers import decimal_of, plain, shown


@pytest.mark.parametrize(
    ("value", "person", "machine"),
    [
        ("12500.25", "12,500.25", "12500.25"),
        ("-0.5", "-0.5", "-0.5"),
        ("0", "0", "0"),
        ("1/3", "about 0.333333333333", "1/3"),
        ("-2/3", "about -0.666666666667", "-2/3"),
        ("-1/3000000000000000", "about 0.000000000000", "-1/3000000000000000"),
        ("1e-31", "about 0.000000000000", "0." + "0" * 30 + "1"),
        ("1e3", "1,000", "1000"),
    ],
)
def test_numbers_for_persons_and_machines(value: str, person: str, machine: str) -> None:
    assert shown(Fraction(value)) == person
    assert plain(Fraction(value)) == machine


@given(st.fractions(max_denominator=10**6))
def test_the_machine_form_reads_back_exactly(value: Fraction) -> None:
    assert Fraction(plain(value)) == value


def test_decimals_that_do_not_end_have_130_digits() -> None:
    assert decimal_of(Fraction(1, 8)) == Decimal("0.125")
    assert str(decimal_of(Fraction(1, 3))) == "0." + "3" * 130
