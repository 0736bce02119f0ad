"""Evaluations a second of a graduated charge with three tiers: `python -m bench.charges`."""

from decimal import Decimal
from time import perf_counter

from bench.figures import Figure, figure
from operators.rating.charges import amount, parse_charge

CHARGE = parse_charge(
    {
        "id": "tokens",
        "meter": "input_tokens",
        "model": "graduated",
        "tiers": [
            {"up_to": "1000000", "unit_amount": "0.000003"},
            {"up_to": "50000000", "unit_amount": "0.0000025"},
            {"up_to": None, "unit_amount": "0.000002"},
        ],
    }
)


def measure(*, quick: bool) -> list[Figure]:
    """Return evaluations a second; quantities spread over all three tiers."""
    evaluations = 5_000 if quick else 50_000
    quantities = [Decimal(number * 1_999_993 % 100_000_000) + Decimal("0.125") for number in range(evaluations)]
    rates = []
    for _ in range(3):
        began_s = perf_counter()
        for quantity in quantities:
            amount(CHARGE, quantity, final=False)
        rates.append(evaluations / (perf_counter() - began_s))
    return [figure("charges", "graduated, three tiers", rates, "evaluations/s")]


if __name__ == "__main__":
    for one in measure(quick=False):
        print(f"{one.case}: {one.value:,.0f} {one.unit}")
