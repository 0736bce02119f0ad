"""Cumulative charges: what one charge of one contract has come to in one billing period (design, idea 4).

A chain's amount to date is `usage + extra`: what the usage comes to while the period runs, and what its end added
(a flat fee, or what is missing to the minimum). Each part is kept quantized to 12 places (half-even), and rows
are differences of the sum, so they telescope without a remainder.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction
from typing import Any, Final, NamedTuple

from operators.rate_prices import Price
from operators.rate_resolve import LATE, USAGE, VOID
from operators.rate_terms import Terms
from operators.rating.charges import Charge, amount
from operators.rating.schema import Flat, Matrix, Simple, Volume

Q12: Final = Decimal(1).scaleb(-12)
ZERO: Final = Decimal(0).quantize(Q12)

LINE_KINDS: Final = {USAGE: "usage", LATE: "late_usage", VOID: "void"}
REPRICING: Final = "tier_repricing"
PRICE_CHANGE: Final = "price_change"
FEE: Final = "fee"
TRUE_UP: Final = "true_up"
RECOGNITION: Final = "recognition"
DRAWDOWN: Final = "drawdown"
BREAKAGE: Final = "breakage"

Merge = str
"""`sum`, `max`, `min` or `latest`: how a series' values come together over a period."""


def quantized(value: Decimal) -> Decimal:
    """Return the value with 12 places, half-even."""
    with localcontext() as context:
        context.prec = 160
        return value.quantize(Q12, rounding=ROUND_HALF_EVEN)


class ChainKey(NamedTuple):
    """What is rated together: one charge of one contract in one billing period."""

    customer: str
    contract: str
    plan: str
    plan_version: int
    charge: str
    price_row: str
    period_start_us: int


class Touch(NamedTuple):
    """Usage of one hour and kind for one chain. `series` is set where the meter's values do not add up."""

    usage_hour: int
    accounting_period: str
    original_period: str
    kind: int
    quantity: Decimal
    events: int
    version: int
    series: tuple["SeriesValue", ...] = ()


class SeriesValue(NamedTuple):
    """One series' merged value in a touch. The order of two `latest` values is (value_time_us, booked_minute)."""

    name: str
    value: Decimal
    value_time_us: int
    booked_minute: int


class Step(NamedTuple):
    """One step of a chain: what becomes a rated row."""

    usage_hour: int
    accounting_period: str
    original_period: str
    line_kind: str
    quantity: Decimal
    events: int
    before: Decimal
    after: Decimal
    version: int
    revenue_before: Decimal = ZERO
    revenue_after: Decimal = ZERO
    covered: Decimal = ZERO
    """The part of the difference that a prepaid commitment covers: it is booked by a `drawdown` step."""

    @property
    def amount(self) -> Decimal:
        """Return what this step books: its difference without the covered part."""
        return self.after - self.before - self.covered

    @property
    def revenue(self) -> Decimal:
        """Return the revenue that goes with the amount."""
        return self.revenue_after - self.revenue_before - self.covered

    @property
    def place(self) -> tuple[int, str, str]:
        """Return the usage hour, the accounting period and the usage's own period."""
        return self.usage_hour, self.accounting_period, self.original_period


@dataclass(slots=True)
class Chain:
    """The cumulative state of a chain."""

    quantity: Decimal = ZERO
    events: int = 0
    usage: Decimal = ZERO
    extra: Decimal = ZERO
    period_end_us: int = 0
    series: dict[str, tuple[Decimal, int, int]] | None = None
    """Per series (value, value_time_us, booked_minute), for meters whose values do not add up."""
    revenue: Decimal = ZERO
    """Revenue to date; for ratable charges, until when the elapsed time was counted."""
    recognised_us: int = 0
    drawn: Decimal = ZERO
    """How much of the amount prepaid commitments cover, to date."""

    def copy(self) -> "Chain":
        """Return an independent copy."""
        series = None if self.series is None else dict(self.series)
        return replace(self, series=series)

    @property
    def total(self) -> Decimal:
        """Return the amount booked to date."""
        return self.usage + self.extra

    def plain(self) -> list[Any]:
        """Return the state as plain values."""
        series = self.series and [
            [name, str(value), time_us, minute] for name, (value, time_us, minute) in self.series.items()
        ]
        amounts = [str(self.quantity), self.events, str(self.usage), str(self.extra)]
        return [*amounts, self.period_end_us, series, str(self.revenue), self.recognised_us, str(self.drawn)]

    @classmethod
    def from_plain(cls, plain: list[Any]) -> "Chain":
        """Read the state back."""
        quantity, events, usage, extra, period_end_us, series, revenue, recognised_us, drawn = plain
        values = None if series is None else {name: (Decimal(v), t, minute) for name, v, t, minute in series}
        return cls(
            quantity=Decimal(quantity),
            events=events,
            usage=Decimal(usage),
            extra=Decimal(extra),
            period_end_us=period_end_us,
            series=values,
            revenue=Decimal(revenue),
            recognised_us=recognised_us,
            drawn=Decimal(drawn),
        )


def key_of(terms: Terms, price: Price) -> ChainKey:
    """Return the chain that usage under these terms and price belongs to."""
    return ChainKey(
        terms.customer,
        terms.contract.id,
        terms.plan,
        terms.plan_version,
        price.charge.id,
        price.price_row,
        terms.period_start_us,
    )


def usage_amount(charge: Simple, quantity: Decimal, events: int) -> Decimal:
    """Return what the usage comes to while the period runs; a flat fee is due at its end only."""
    if isinstance(charge, Flat):
        return ZERO
    return quantized(amount(charge, quantity, events, final=False))


def extra_amount(charge: Simple, chain: Chain, share: Fraction) -> Decimal:
    """Return what the period's end adds to the usage to date: nothing if the contract has no share of the period."""
    final = quantized(amount(charge, chain.quantity, chain.events, final=share > 0, share=share))
    return final - chain.usage


def has_period_end(charge: Charge) -> bool:
    """Return whether the period's end can add anything."""
    if isinstance(charge, Matrix):
        return any(map(has_period_end, charge.rows))
    return isinstance(charge, Flat) or bool(charge.minimum) or charge.zero_usage != "skip"


def rate_usage(
    chain: Chain, charge: Simple, touches: Iterable[Touch], booked_hour: int, merge: Merge, *, final: bool = True
) -> list[Step]:
    """Book usage on the chain, oldest usage hour first; touches of one usage hour must come together, by kind.

    Each usage hour touched gets its plain row (`usage`, or `late_usage` before the booked hour), a zero one if
    there were only voids: it replaces the provisional row of the hour. A drop of the amount that no negative
    quantity explains comes from a cheaper tier of a volume price: the hour's rows keep their quantity, and the drop
    is one row of its own. Only `final` rows are told apart like that; a provisional one carries the whole difference.
    """
    steps: list[Step] = []
    hour: list[Touch] = []
    for touch in touches:
        if hour and hour[0][:2] != touch[:2]:
            steps += _rate_hour(chain, charge, hour, booked_hour, merge, final)
            hour = []
        hour.append(touch)
    if hour:
        steps += _rate_hour(chain, charge, hour, booked_hour, merge, final)
    return steps


def _rate_hour(
    chain: Chain, charge: Simple, touches: list[Touch], booked_hour: int, merge: Merge, final: bool
) -> list[Step]:
    plain = USAGE if touches[0].usage_hour == booked_hour else LATE
    if all(touch.kind == VOID for touch in touches):
        touches = [touches[0]._replace(kind=plain, quantity=ZERO, events=0, series=()), *touches]
    steps: list[Step] = []
    repriced = ZERO
    before = chain.total
    for touch in touches:
        quantity = _merged(chain, touch, merge)
        chain.quantity += quantity
        chain.events += touch.events
        usage = usage_amount(charge, chain.quantity, chain.events)
        difference = usage - chain.usage
        chain.usage = usage
        if final and difference < 0 and quantity >= 0 and touch.kind != VOID and isinstance(charge, Volume):
            repriced += difference
            difference = ZERO
        after = before + difference
        steps.append(
            Step(
                touch.usage_hour,
                touch.accounting_period,
                touch.original_period,
                LINE_KINDS[touch.kind],
                quantity,
                touch.events,
                before,
                after,
                touch.version,
            )
        )
        before = after
    if repriced:
        steps.append(Step(*steps[-1].place, REPRICING, ZERO, 0, before, before + repriced, touches[-1].version))
    return steps


def _merged(chain: Chain, touch: Touch, merge: Merge) -> Decimal:
    """Return by how much the period's quantity changes, and keep the series' values."""
    if merge == "sum":
        return touch.quantity
    change = ZERO
    if chain.series is None:
        chain.series = {}
    for name, value, time_us, minute in touch.series:
        known = chain.series.get(name)
        if known is None:
            chain.series[name] = (value, time_us, minute)
            change += value
            continue
        wins = {
            "max": value > known[0],
            "min": value < known[0],
            "latest": (time_us, minute) > known[1:],
        }[merge]
        if wins:
            chain.series[name] = (value, time_us, minute)
            change += value - known[0]
    return change


def rate_price_change(chain: Chain, charge: Simple, place: tuple[int, str, str]) -> Step | None:
    """Bring what usage came to under earlier prices to what it comes to now; return the step if that differs."""
    usage = usage_amount(charge, chain.quantity, chain.events)
    if usage == chain.usage:
        return None
    before, chain.usage = chain.total, usage
    return Step(*place, PRICE_CHANGE, ZERO, 0, before, chain.total, 1)


def rate_period_end(chain: Chain, charge: Simple, share: Fraction, place: tuple[int, str, str]) -> Step | None:
    """Bring the chain to its final amount, and return the step if that changes anything."""
    extra = extra_amount(charge, chain, share)
    if extra == chain.extra:
        return None
    before, chain.extra = chain.total, extra
    kind = FEE if isinstance(charge, Flat) else TRUE_UP
    return Step(*place, kind, ZERO, 0, before, chain.total, 1)
