"""ISO 4217 exponents."""

import pytest

from core.currencies import EXPONENTS, exponent, is_known


def test_exponents_that_are_not_two() -> None:
    """Every exception of the published list, and nothing else."""
    none = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
    three = "BHD IQD JOD KWD LYD OMR TND"
    expected = dict.fromkeys(none.split(), 0) | dict.fromkeys(three.split(), 3) | {"CLF": 4, "UYW": 4}
    assert {code: places for code, places in EXPONENTS.items() if places != 2} == expected


def test_common_currencies_are_there() -> None:
    # The members of the G20 and the euro's neighbours, written down independently of the table.
    codes = "USD EUR GBP JPY CNY INR BRL CAD AUD MXN KRW IDR TRY SAR ZAR ARS RUB CHF SEK NOK DKK PLN CZK HUF RON"
    assert all(is_known(code) for code in codes.split())
    assert len(EXPONENTS) > 170
    assert all(len(code) == 3 and code.isupper() for code in EXPONENTS)


@pytest.mark.parametrize("code", ["XXX", "XAU", "usd", "", "EURO", "DEM"])
def test_what_cannot_be_billed_in(code: str) -> None:
    assert not is_known(code)
    with pytest.raises(ValueError, match="ISO 4217"):
        exponent(code)


def test_exponent() -> None:
    assert (exponent("USD"), exponent("JPY"), exponent("KWD")) == (2, 0, 3)
