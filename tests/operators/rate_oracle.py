"""A naive rating of usage, written from the design in plain Python: no frames, no shortcuts, no shared code.

It knows one customer, one contract in UTC months, additive meters, per_unit, graduated, volume and flat charges,
minimums, accounting cut-offs, and periods that end. Times are minutes since 1970.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class OracleFact:
    meter: str
    dimensions: tuple[tuple[str, str], ...]
    usage_minute: int
    booked_minute: int
    value: Decimal
    events: int


def cost(charge: dict[str, Any], quantity: Fraction, final: bool) -> Fraction:
    """Return the price of a period's quantity."""
    model = charge["model"]
    total = Fraction(0)
    if model == "flat":
        total = Fraction(charge["amount"]) if final else Fraction(0)
    elif model == "per_unit":
        total = quantity * Fraction(charge["unit_amount"])
    elif quantity > 0:
        lower = Fraction(0)
        for tier in charge["tiers"]:
            limit = tier["up_to"]
            inside = limit is None or quantity <= Fraction(limit)
            if model == "volume" and inside:
                total = quantity * Fraction(tier["unit_amount"]) + Fraction(tier.get("flat_amount", "0"))
                break
            if model == "graduated":
                upper = quantity if inside else Fraction(limit)
                total += (upper - lower) * Fraction(tier["unit_amount"]) + Fraction(tier.get("flat_amount", "0"))
                lower = upper
                if inside:
                    break
    elif quantity < 0:
        total = quantity * Fraction(charge["tiers"][0]["unit_amount"])
    if final and "minimum" in charge:
        total = max(total, Fraction(charge["minimum"]))
    return total


def q12(value: Fraction) -> Fraction:
    """Round to 12 places, half-even."""
    return Fraction(round(value * 10**12), 10**12)


def month_of(minute: int) -> tuple[int, int]:
    when = EPOCH + timedelta(minutes=minute)
    return when.year, when.month


def month_start(month: tuple[int, int]) -> int:
    return int((datetime(*month, 1, tzinfo=UTC) - EPOCH) / timedelta(minutes=1))


def next_month(month: tuple[int, int]) -> tuple[int, int]:
    return (month[0] + 1, 1) if month[1] == 12 else (month[0], month[1] + 1)


def accounting(minute: int, booked_hour: int, cutoff_days: int) -> str:
    month = month_of(minute)
    while month_start(next_month(month)) + cutoff_days * 1440 <= booked_hour * 60:
        month = next_month(month)
    return f"{month[0]:04d}-{month[1]:02d}"


Row = dict[str, Any]


class Oracle:
    """Rates every booked hour up to a last one, each hour in turn."""

    def __init__(self, charges: list[dict[str, Any]], begins: int, cutoff_days: int = 5) -> None:
        self.charges = charges
        self.first_month = month_of(begins)
        self.cutoff_days = cutoff_days
        self.quantity: dict[tuple[str, tuple[int, int]], Fraction] = {}
        self.booked: dict[tuple[str, tuple[int, int]], Fraction] = {}
        self.usage: dict[tuple[str, tuple[int, int]], Fraction] = {}
        self.closed: set[tuple[int, int]] = set()
        self.rows: list[Row] = []

    def run(self, facts: list[OracleFact], first_hour: int, last_hour: int) -> list[Row]:
        for hour in range(first_hour, last_hour + 1):
            self._hour(hour, [fact for fact in facts if fact.booked_minute // 60 == hour])
        return self.rows

    def _hour(self, hour: int, facts: list[OracleFact]) -> None:
        month = self.first_month
        newly = []
        while month_start(next_month(month)) + 1 <= hour * 60:  # the grace is one minute
            if month not in self.closed:
                newly.append(month)
            month = next_month(month)
        for charge in sorted(self.charges, key=lambda one: one["id"]):
            touched: dict[tuple[int, int], list[OracleFact]] = {}
            for fact in facts:
                matches = all(dict(fact.dimensions).get(k) in v for k, v in charge.get("filter", {}).items())
                if fact.meter == charge.get("meter") and matches:
                    touched.setdefault(month_of(fact.usage_minute), []).append(fact)
            for period in sorted({*touched, *newly}):
                self._chain(charge, period, hour, touched.get(period, []))
                if period in newly or period in self.closed:
                    self._end(charge, period, hour)
        self.closed.update(newly)

    def _chain(self, charge: dict[str, Any], period: tuple[int, int], hour: int, facts: list[OracleFact]) -> None:
        key = (charge["id"], period)
        for usage_hour in sorted({fact.usage_minute // 60 for fact in facts}):
            here = [fact for fact in facts if fact.usage_minute // 60 == usage_hour]
            plain = "usage" if usage_hour == hour else "late_usage"
            voids = [fact for fact in here if fact.events < 0 or (fact.events == 0 and fact.value < 0)]
            repriced = Fraction(0)
            for kind, part in ((plain, [fact for fact in here if fact not in voids]), ("void", voids)):
                if kind == "void" and not part:
                    continue
                quantity = sum((Fraction(fact.value) for fact in part), Fraction(0))
                before = self.usage.get(key, Fraction(0))
                self.quantity[key] = self.quantity.get(key, Fraction(0)) + quantity
                self.usage[key] = q12(cost(charge, self.quantity[key], False))
                difference = self.usage[key] - before
                if kind == plain and difference < 0 and quantity >= 0:
                    repriced, difference = difference, Fraction(0)
                events = sum(fact.events for fact in part)
                self._book(key, usage_hour, hour, kind, quantity, events, difference)
            if repriced:
                self._book(key, usage_hour, hour, "tier_repricing", Fraction(0), 0, repriced)

    def _end(self, charge: dict[str, Any], period: tuple[int, int], hour: int) -> None:
        key = (charge["id"], period)
        final = q12(cost(charge, self.quantity.get(key, Fraction(0)), True))
        difference = final - self.booked.get(key, Fraction(0))
        if difference:
            kind = "fee" if charge["model"] == "flat" else "true_up"
            last = (month_start(next_month(period)) - 1) // 60
            self._book(key, last, hour, kind, Fraction(0), 0, difference)

    def _book(
        self,
        key: tuple[str, tuple[int, int]],
        usage_hour: int,
        hour: int,
        kind: str,
        quantity: Fraction,
        events: int,
        amount: Fraction,
    ) -> None:
        before = self.booked.get(key, Fraction(0))
        self.booked[key] = before + amount
        self.rows.append(
            {
                "charge": key[0],
                "period": month_start(key[1]),
                "usage_hour": usage_hour,
                "booked_hour": hour,
                "accounting_period": accounting(usage_hour * 60, hour, self.cutoff_days),
                "line_kind": kind,
                "quantity": quantity,
                "events": events,
                "amount": amount,
                "before": before,
                "after": before + amount,
            }
        )
