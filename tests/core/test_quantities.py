from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import quantities
from core.quantities import UNIT, exactly


@pytest.mark.parametrize(
    ("text", "scaled"),
    [
        ("0", 0),
        ("-0", 0),
        ("5", 5 * UNIT),
        ("-5", -5 * UNIT),
        ("007", 7 * UNIT),
        ("0.000000000001", 1),
        ("0.0000000000005", 0),
        ("0.00000000000050000000000000000000001", 1),
        ("0.0000000000015", 2),
        ("0.0000000000025", 2),
        ("-0.0000000000015", -2),
        ("1e3", 1000 * UNIT),
        ("1E-12", 1),
        ("1.5e+2", 150 * UNIT),
        ("1e-400", 0),
        ("1e-99999999999999999999", 0),
        ("-0e99999999999999999999", 0),
        ("0e5", 0),
        ("999999999999999999.999999999999", 10**30 - 1),
        ("999999999999999999.9999999999994", 10**30 - 1),
        ("0." + "1" * 250, 111111111111),
    ],
)
def test_text_is_read_exactly_and_rounded_half_even(text: str, scaled: int) -> None:
    assert quantities.scaled_of_text(text) == scaled


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "+5", " 5", "5 ", "5\n", "1_0", "0x10", ".5", "5.", "1e", "1e+", "e5", "--5", "nan", "NaN", "inf",
        "Infinity", "1,5", "\u0665",
        "1000000000000000000", "-1000000000000000000", "999999999999999999.9999999999995", "1e18",
        "1e99999999999999999999", "9" * 300, "0." + "1" * 255,
    ],
)  # fmt: skip
def test_what_is_not_a_quantity(text: str) -> None:
    assert quantities.scaled_of_text(text) is None


@pytest.mark.parametrize(
    ("literal", "scaled"),
    [
        ("9007199254740993", 9007199254740993 * UNIT),  # exact, although no double holds it
        ("9007199254740993.0", 9007199254740992 * UNIT),
        ("0.1000000000000000055511151231257827", UNIT // 10),
        ("123456789.123456789123", 123456789123456790000),  # its double's shortest text is 123456789.12345679
        ("999999999999999999", 999999999999999999 * UNIT),
        ("1000000000000000000", None),
        ("-0", 0),
        ("-0.0", 0),
        ("1e17", 10**17 * UNIT),
        ("1e18", None),
        ("1e400", None),
        ("-1e400", None),
        ("1e-400", 0),
        ("1" * 5000, None),
    ],
)
def test_json_numbers(literal: str, scaled: int | None) -> None:
    assert quantities.scaled_of_json_number(literal) == scaled


@settings(max_examples=60, deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**17), max_value=10**17))
def test_text_agrees_with_decimal(value: Decimal) -> None:
    with localcontext(prec=200):
        expected = int(value.quantize(Decimal("1e-12"), ROUND_HALF_EVEN).scaleb(12))
        assert quantities.scaled_of_text(format(value, "f")) == expected
        assert quantities.decimal_of_scaled(expected) == value.quantize(Decimal("1e-12"), ROUND_HALF_EVEN)


@settings(max_examples=60, deadline=None)
@given(st.floats(min_value=-1e17, max_value=1e17))
def test_doubles_go_by_their_shortest_text(value: float) -> None:
    assert quantities.scaled_of_double(value) == quantities.scaled_of_text(repr(value))


@pytest.mark.parametrize(
    ("literal", "text"),
    [
        ("5", "5"),
        ("-0", "0"),
        ("-0.0", "0.0"),
        ("1.10", "1.1"),
        ("1E5", "100000.0"),
        ("1e-7", "1e-07"),
        ("1e22", "1e+22"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("1e400", "inf"),
    ],
)
def test_canonical_number_text(literal: str, text: str) -> None:
    assert quantities.number_text(literal) == text


def test_not_finite_decimals_are_refused() -> None:
    assert [quantities.scaled_of_decimal(Decimal(text)) for text in ("NaN", "Infinity", "-Infinity", "sNaN")] == [
        None
    ] * 4


def test_sums_beyond_the_default_precision_are_exact() -> None:
    """Given numbers that fit Decimal(38, 12) but not 28 digits; then nothing of them is lost."""
    large, small = Decimal("99999999999999999999999999.999999999998"), Decimal("0.000000000001")
    exact = Decimal("99999999999999999999999999.999999999999")
    assert sum([large, small]) != exact
    assert exactly(sum)([large, small]) == exact
