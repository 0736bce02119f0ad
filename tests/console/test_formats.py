"""How values are written: exact, grouped, and never less than was meant."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console import formats

AMOUNTS = st.decimals(min_value=Decimal("-1e20"), max_value=Decimal("1e20"), places=12)


def read(text: str) -> Decimal:
    """Read a written number back."""
    return Decimal(text.replace(",", "").replace("\N{MINUS SIGN}", "-").split(" ")[0])


@given(AMOUNTS)
def test_no_digit_is_lost(value: Decimal) -> None:
    assert read(formats.quantity(value)) == value
    assert read(formats.money(value, "USD")) == value
    assert read(formats.signed(value, "USD").lstrip("+")) == value


@given(AMOUNTS)
def test_money_has_at_least_the_minor_unit(value: Decimal) -> None:
    number = formats.money(value, "KWD").split(" ")[0]
    assert len(number.partition(".")[2]) >= 3
    assert "." not in formats.money(value.to_integral_value(), "JPY")


@pytest.mark.parametrize(
    ("value", "currency", "text"),
    [
        ("1234.5", "USD", "1,234.50 USD"),
        ("-0.000000001", "EUR", "\N{MINUS SIGN}0.000000001 EUR"),
        ("0", "JPY", "0 JPY"),
        ("100", "USD", "100.00 USD"),
        ("1E+3", "USD", "1,000.00 USD"),
        ("2.50", "", "2.50"),
        (None, "USD", "\N{EN DASH}"),
    ],
)
def test_money(value: str | None, currency: str, text: str) -> None:
    assert formats.money(None if value is None else Decimal(value), currency) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (timedelta(milliseconds=850), "850 ms"),
        (timedelta(seconds=61), "1 min 1 s"),
        (timedelta(hours=3, seconds=1), "3 h"),
        (timedelta(days=3, hours=4, minutes=5), "3 d 4 h"),
        (timedelta(seconds=-90), "\N{MINUS SIGN}1 min 30 s"),
        (None, "\N{EN DASH}"),
    ],
)
def test_durations(value: timedelta | None, text: str) -> None:
    assert formats.duration(value) == text


def test_times_show_their_zone() -> None:
    now = datetime(2026, 10, 5, 14, 3, 9, tzinfo=UTC)
    berlin = now.astimezone(tz=datetime.fromisoformat("2026-10-05T16:03:09+02:00").tzinfo)
    assert formats.when(berlin) == "2026-10-05 14:03:09 UTC"
    assert formats.iso(berlin) == "2026-10-05T14:03:09Z"
    assert formats.ago(now - timedelta(minutes=3), now) == "3 min ago"
    assert formats.ago(now + timedelta(minutes=3), now) == "in 3 min"
    assert formats.ago(now - timedelta(milliseconds=999), now) == "just now"
    assert formats.ago(now - timedelta(seconds=1), now) == "1 s ago"


def test_a_part_that_is_not_nothing_never_shows_as_zero() -> None:
    assert formats.share(1, 1_000_000) == "< 0.1 %"
    assert formats.share(1, 3) == "33.3 %"
    assert formats.share(-1, 3) == "\N{MINUS SIGN}33.3 %"
    assert formats.share(-1, 1_000_000) == "> \N{MINUS SIGN}0.1 %"
    assert formats.share(1, 0) == "\N{EN DASH}"
