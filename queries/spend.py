"""What a customer has spent in the running billing period, what it will come to, and where it stands in its tiers.

To date: sums of rated rows, provisional ones of open hours included. Forecast: what adds up as time passes (events,
sums, levels over time) goes on at the same rate to the period's end, other quantities stay, and the charge is priced as
at its end.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction
from typing import Any, Final

from config.periods import billing_period
from config.revision import Revision
from core.errors import InvalidRequest
from core.frames import USAGE_KINDS
from operators.rate_periods import commitment_period
from operators.rate_terms import ContractTimeline, Terms, first_minute, index_of
from operators.rating.charges import amount
from operators.rating.explain import explain
from operators.rating.explain_numbers import decimal_of
from operators.rating.explain_text import to_plain
from operators.rating.schema import Simple
from queries.stores import EPOCH, Row, Stores

_ZERO: Final = Decimal(0)
_PLACES: Final = Decimal(1).scaleb(-12)
_PRECISION: Final = 130
_MICROSECOND: Final = timedelta(microseconds=1)
_SPARE: Final = timedelta(days=1)
_GROWING: Final = ("count", "sum", "weighted_sum")
"""Aggregations whose quantity adds up as time passes; a maximum, a last value or a number of users does not."""


@dataclass(frozen=True, slots=True)
class TierPosition:
    """In which tier a quantity stands. Quantities are in priced units; `up_to` and `left` are None in the last one."""

    tier: int
    tiers: int
    quantity: Decimal
    over: Decimal
    up_to: Decimal | None
    left: Decimal | None
    price: Decimal
    next_price: Decimal | None


@dataclass(frozen=True, slots=True)
class ChargeSpend:
    """One charge (or one row of a matrix, or a commitment) of a contract in its period.

    `forecast_*` is None where the charge is not one of the terms in force now: it comes to no more than it has.
    """

    charge: str
    price_row: str
    meter: str
    model: str
    plan_version: int
    quantity: Decimal
    unit: str
    events: int
    amount: Decimal
    revenue: Decimal
    provisional: bool
    forecast_quantity: Decimal | None
    forecast_amount: Decimal | None
    tier: TierPosition | None
    explanation: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ContractSpend:
    """A contract's billing period: what it has come to, exact, and the forecast of its end."""

    customer: str
    contract: str
    entity: str
    plan: str
    currency: str
    period_start: datetime
    period_end: datetime
    elapsed_percent: Decimal
    amount: Decimal
    forecast_amount: Decimal
    charges: list[ChargeSpend]


def spend(
    stores: Stores,
    customer: str,
    at: datetime,
    *,
    now: datetime | None = None,
    as_of: datetime | None = None,
    explained: bool = False,
) -> list[ContractSpend]:
    """Return the spend of a customer's contracts in the billing periods that hold `at`; contracts by their ids.

    `now`: up to when there is usage, `at` if not given. `as_of`: only what was booked before that time, under the
    configuration known then.

    :raises InvalidRequest: no such customer was configured then.
    """
    return spend_of(stores, [customer], at, now=now, as_of=as_of, explained=explained)


def spend_of(
    stores: Stores,
    customers: Sequence[str],
    at: datetime,
    *,
    now: datetime | None = None,
    as_of: datetime | None = None,
    explained: bool = False,
) -> list[ContractSpend]:
    """Return the same of several customers, in their order, with one look at the rated rows.

    :raises InvalidRequest: one of them was not configured then.
    """
    revision = stores.history.at(int((as_of or at).timestamp() * 1000)) if as_of else stores.history.latest
    running = []
    for customer in customers:
        if customer not in revision.customers:
            message = f"there is no customer {customer[:64]!r}"
            raise InvalidRequest(message)
        for contract in sorted(revision.customers[customer].contracts, key=lambda one: one.id):
            if contract.from_ <= at and (contract.to is None or at < contract.to):
                running.append(index_of(revision).timelines[customer, contract.id])
    to_date = _to_date(stores, running, at, as_of)
    return [
        _contract(revision, timeline, to_date[timeline.customer, timeline.contract.id], at, as_of, now or at,
                  explained=explained)
        for timeline in running
    ]  # fmt: skip


def _contract(
    revision: Revision,
    timeline: ContractTimeline,
    to_date: dict[tuple[str, str], Row],
    at: datetime,
    as_of: datetime | None,
    now: datetime,
    *,
    explained: bool,
) -> ContractSpend:
    contract = timeline.contract
    start, end = billing_period(contract.billing_period, contract.from_, at)
    terms = timeline.at(first_minute(at.replace(second=0, microsecond=0)))[2]
    elapsed = _elapsed(timeline, terms, start, end, min(now, as_of or now))
    growing = frozenset(name for name, meter in revision.meters.items() if meter.aggregation in _GROWING)
    charges = list(_charges(timeline, terms, to_date, elapsed, (start, end), growing, explained=explained))
    with localcontext() as context:
        context.prec = _PRECISION
        total = sum((one.amount for one in charges), _ZERO)
        forecast = sum((one.amount if one.forecast_amount is None else one.forecast_amount for one in charges), _ZERO)
    return ContractSpend(
        customer=timeline.customer,
        contract=contract.id,
        entity=contract.entity,
        plan=contract.plan,
        currency=timeline.currency if terms is None else terms.currency,
        period_start=start,
        period_end=end,
        elapsed_percent=_rounded(decimal_of(elapsed * 100)).quantize(Decimal("0.01")),
        amount=total,
        forecast_amount=forecast,
        charges=charges,
    )


def _to_date(
    stores: Stores, timelines: Sequence[ContractTimeline], at: datetime, as_of: datetime | None
) -> dict[tuple[str, str], dict[tuple[str, str], Row]]:
    """Return by customer and contract the sums of their rated rows, per charge and price row.

    Of the billing periods that hold `at`, and of the commitments' own periods.
    """
    found: dict[tuple[str, str], dict[tuple[str, str], Row]] = {}
    periods = []
    for timeline in timelines:
        contract = timeline.contract
        found[timeline.customer, contract.id] = {}
        begins = [billing_period(contract.billing_period, contract.from_, at)[0]]
        begins += [commitment_period(timeline, one, at)[0] for one in contract.commitments]
        periods += [(timeline.customer, contract.id, begin) for begin in begins]
    if not periods:
        return found
    kinds = ", ".join(f"'{kind}'" for kind in USAGE_KINDS)
    rows = stores.rows(
        "SELECT customer, contract, charge, price_row, any(r.meter) AS metered, max(r.plan_version) AS version,"  # noqa: S608
        f" sumIf(r.quantity, line_kind IN ({kinds})) AS q, sumIf(r.events, line_kind IN ({kinds})) AS n,"
        " sum(r.amount) AS total, sum(r.revenue_amount) AS revenue, countIf(status = 'provisional') AS open_rows"
        " FROM @rated_usage_current AS r WHERE customer IN {customers:Array(String)}"
        " AND (customer, contract, toUnixTimestamp64Micro(period_start))"
        " IN {periods:Array(Tuple(String, String, Int64))}"
        # Nothing of a period is booked before it begins: this bounds the months that are read.
        " AND booked_hour >= {booked_from:DateTime}"
        " AND status IN ('sealed', 'provisional') AND booked_hour < {as_of:DateTime}"
        " GROUP BY customer, contract, charge, price_row ORDER BY customer, contract, charge, price_row",
        {
            "customers": sorted({customer for customer, _, _ in periods}),
            "periods": [(customer, contract, (begin - EPOCH) // _MICROSECOND) for customer, contract, begin in periods],
            "booked_from": max(EPOCH, min(begin for _, _, begin in periods) - _SPARE),
            "as_of": as_of or datetime(2100, 1, 1, tzinfo=UTC),
        },
    )
    for row in rows:
        found[row["customer"], row["contract"]][row["charge"], row["price_row"]] = row
    return found


def _elapsed(
    timeline: ContractTimeline, terms: Terms | None, start: datetime, end: datetime, now: datetime
) -> Fraction:
    """Return the part of the covered period that has passed: from 0 to 1."""
    covered = None if terms is None else timeline.covered(start, end, terms.plan_version)
    begins, ends = covered or (start, end)
    passed = Fraction((now - begins) // _MICROSECOND, (ends - begins) // _MICROSECOND)
    return min(max(passed, Fraction(0)), Fraction(1))


def _charges(
    timeline: ContractTimeline,
    terms: Terms | None,
    to_date: dict[tuple[str, str], Row],
    elapsed: Fraction,
    period: tuple[datetime, datetime],
    growing: frozenset[str],
    *,
    explained: bool,
) -> Iterator[ChargeSpend]:
    rest = dict(to_date)
    for price in terms.pricing.prices if terms is not None else ():
        row = rest.pop((price.charge.id, price.price_row), None)
        if row is None and price.price_row:
            continue  # a row of a matrix that nobody used
        share = timeline.share(*period, terms.plan_version) if terms is not None else Fraction(1)
        version = terms.plan_version if terms is not None else 1
        rate = elapsed if price.charge.meter in growing else Fraction(1)
        yield _priced(price.charge, price.price_row, version, row, rate, share, explained=explained)
    for (charge, price_row), row in rest.items():
        yield ChargeSpend(
            charge, price_row, row["metered"], "", int(row["version"]), row["q"], "", int(row["n"]), row["total"],
            row["revenue"], bool(row["open_rows"]), None, None, None,
        )  # fmt: skip


def _priced(
    charge: Simple,
    price_row: str,
    version: int,
    row: Row | None,
    rate: Fraction,
    share: Fraction,
    *,
    explained: bool,
) -> ChargeSpend:
    quantity, events = (row["q"], int(row["n"])) if row is not None else (_ZERO, 0)
    explanation = explain(charge, quantity, events, final=False, share=share)
    priced = explanation.quantity_lines[-1].quantity if explanation.quantity_lines else None
    forecast, forecast_events = quantity, events
    if rate:
        forecast = _rounded(decimal_of(Fraction(quantity) / rate))
        forecast_events = max(0, round(events / rate))
    return ChargeSpend(
        charge=charge.id,
        price_row=price_row,
        meter=charge.meter or "",
        model=charge.model,
        plan_version=version,
        quantity=quantity,
        unit=charge.unit,
        events=events,
        amount=row["total"] if row is not None else _ZERO,
        revenue=row["revenue"] if row is not None else _ZERO,
        provisional=bool(row["open_rows"]) if row is not None else False,
        forecast_quantity=forecast,
        forecast_amount=_rounded(amount(charge, forecast, forecast_events, final=True, share=share)),
        tier=tier_position(charge, Fraction(quantity) if priced is None else priced),
        explanation=to_plain(explanation) if explained else None,
    )


def tier_position(charge: Simple, quantity: Fraction) -> TierPosition | None:
    """Return where a quantity in priced units stands in the charge's tiers; None if it has none."""
    tiers: tuple[Any, ...] = getattr(charge, "tiers", ())
    if not tiers:
        return None
    place = next((at for at, tier in enumerate(tiers) if tier.up_to is None or quantity <= Fraction(tier.up_to)), 0)
    tier, following = tiers[place], tiers[place + 1] if place + 1 < len(tiers) else None
    up_to = None if tier.up_to is None else Decimal(tier.up_to)
    return TierPosition(
        tier=place + 1,
        tiers=len(tiers),
        quantity=_rounded(decimal_of(quantity)),
        over=Decimal(tiers[place - 1].up_to) if place else _ZERO,
        up_to=up_to,
        left=None if up_to is None else _rounded(decimal_of(Fraction(up_to) - quantity)),
        price=_price(tier),
        next_price=None if following is None else _price(following),
    )


def _price(tier: Any) -> Decimal:
    return Decimal(tier.unit_amount if hasattr(tier, "unit_amount") else tier.rate_percent)


def _rounded(value: Decimal) -> Decimal:
    with localcontext() as context:
        context.prec = _PRECISION
        return value.quantize(_PLACES, ROUND_HALF_EVEN)
