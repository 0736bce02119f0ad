"""ISO 4217: how many decimal places each currency's minor unit has.

Active national currencies and fund codes with a minor unit. Codes without one
(metals, XDR, XSU, XUA, XTS, XXX and the bond units) cannot be billed in, so they are absent. Codes withdrawn since
2023 are kept, because books of that time use them.
"""

from typing import Final

_BY_EXPONENT: Final = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: (
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF"
        " CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL"
        " HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU"
        " MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR"
        " SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED"
        " VES WST XAD XCD XCG YER ZAR ZMW ZWG"
    ),
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
_WITHDRAWN: Final = "ANG BGN CUC HRK SLL ZWL"

EXPONENTS: Final[dict[str, int]] = {
    code: places for places, codes in _BY_EXPONENT.items() for code in codes.split()
} | dict.fromkeys(_WITHDRAWN.split(), 2)


def exponent(currency: str) -> int:
    """Return the number of decimal places of the currency's minor unit; raise ValueError for an unknown code."""
    places = EXPONENTS.get(currency)
    if places is None:
        message = f"unknown currency {currency!r}: use an ISO 4217 code such as USD"
        raise ValueError(message)
    return places


def is_known(currency: str) -> bool:
    """Tell whether the code is an ISO 4217 currency one can bill in."""
    return currency in EXPONENTS
