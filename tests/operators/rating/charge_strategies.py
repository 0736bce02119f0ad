"""Random charges of every model with every modifier, for property tests."""

from typing import Any

from hypothesis import strategies as st

from operators.rating.charges import Charge, parse_charge

AMOUNTS = st.decimals("0", "50", places=4).map(str)
LIMITS = st.decimals("0", "500", places=2).map(str)
QUANTITIES = st.one_of(
    st.integers(0, 2000).map(str), st.decimals("-50", "2000", places=3).map(str), st.decimals("0", "1e9", places=12)
)
DIVISORS = st.sampled_from(["1", "1", "10", "1000", "3", "7", "0.3", "2678400"])
ROUNDINGS = st.fixed_dictionaries(
    {"mode": st.sampled_from(["up", "down", "half_up", "half_even"]), "digits": st.integers(-2, 3)}
)


@st.composite
def _tiers(draw: st.DrawFn, price: str) -> list[dict[str, Any]]:
    limits = sorted(draw(st.sets(st.integers(1, 1500), max_size=4)))
    steps: list[dict[str, Any]] = [{"up_to": str(limit)} for limit in limits] + [{"up_to": None}]
    return [step | {price: draw(AMOUNTS), "flat_amount": draw(AMOUNTS)} for step in steps]


def _model() -> st.SearchStrategy[dict[str, Any]]:
    def of(model: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
        return st.fixed_dictionaries({"model": st.just(model), **fields})

    percentage = {
        "rate_percent": AMOUNTS,
        "fixed_amount": AMOUNTS,
        "free_events": st.integers(0, 6),
        "free_amount": st.one_of(st.just("0"), LIMITS),
        "per_event_minimum": st.one_of(st.none(), AMOUNTS),
        "per_event_maximum": st.one_of(st.none(), AMOUNTS),
    }
    return st.one_of(
        of("per_unit", unit_amount=AMOUNTS),
        of("graduated", tiers=_tiers("unit_amount")),
        of("volume", tiers=_tiers("unit_amount")),
        of(
            "package",
            package_size=st.sampled_from(["1", "10", "2.5", "7"]),
            package_amount=AMOUNTS,
            free_units=LIMITS,
            package_rounding=st.sampled_from(["up", "down"]),
        ),
        of("percentage", **percentage),
        of("percentage", rate_percent=AMOUNTS, fixed_amount=AMOUNTS),
        of("graduated_percentage", tiers=_tiers("rate_percent")),
        of("flat", amount=AMOUNTS),
    )


@st.composite
def charges(draw: st.DrawFn) -> Charge:
    """Return any charge: each modifier is there half of the time."""
    modifiers: dict[str, st.SearchStrategy[Any]] = {
        "unit_divisor": DIVISORS,
        "included": LIMITS,
        "minimum": LIMITS,
        "maximum": LIMITS,
        "discount_percent": st.integers(0, 100).map(str),
        "discount_amount": LIMITS,
        "quantity_rounding": ROUNDINGS,
        "zero_usage": st.sampled_from(["skip", "first_tier_flat"]),
    }
    chosen = draw(st.fixed_dictionaries({}, optional=modifiers))
    return parse_charge({"id": "c", "meter": "m"} | draw(_model()) | chosen)
