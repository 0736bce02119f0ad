"""Cross checks of rules, and of what rating can do with a charge: see `config.checks`."""

from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from typing import Any, Final

from config.checks import Draft, Finding
from config.checks_contracts import merge, versions_used
from config.yaml_source import Location
from operators.rate_chains import has_period_end
from operators.rating.charges import Charge, parse_charge
from operators.rating.schema import Matrix

_FREE_PARTS: Final = ("free_events", "free_amount")
_FREE: Final = (
    "is not available here: which events it covers depends on their order, which a late event or a void would change"
    " after the fact"
)
_FREE_HINT: Final = (
    "use free_amount with neither fixed_amount, limits, free_events nor quantity_rounding, or free_events with"
    " rate_percent 0: there the order does not matter"
)
_LIMITED: Final = "is not available here: it needs the value of each event, and the books hold sums"
_LIMITED_HINT: Final = (
    "give a meter `per_event: {rate_percent, fixed_amount, minimum, maximum}`, which adds up what each event comes"
    " to, and price that meter per_unit at 1"
)
_LIMITS: Final = ("per_event_minimum", "per_event_maximum")
_COMBINATIONS_MAX: Final = 10_000
"""A matrix row for more combinations of values than this is not looked at as to whether it is ever used."""


def per_event(charge: Charge, base: Location) -> Iterator[Finding]:
    """Refuse what needs the events of a period in order, or each event's value: the books hold sums and counts."""
    if isinstance(charge, Matrix):
        for place, row in enumerate(charge.rows):
            yield from per_event(row, (*base, "rows", place))
    if not charge.looks_at_each_event:
        return
    for name in _FREE_PARTS:
        if getattr(charge, name, None):
            yield Finding((*base, name), _FREE, _FREE_HINT)
    for name in _LIMITS:
        if getattr(charge, name, None) is not None:
            yield Finding((*base, name), _LIMITED, _LIMITED_HINT)


def unreachable_rows(charge: Charge, base: Location) -> Iterator[Finding]:
    """Warn of matrix rows all of whose combinations of values have a price in rows above."""
    taken: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for place, row in enumerate(charge.rows if isinstance(charge, Matrix) else ()):
        names = tuple(sorted(row.when))
        if prod(len(values) for values in row.when.values()) > _COMBINATIONS_MAX:
            continue
        for above, priced in taken.items():
            if set(above) <= set(names) and priced.issuperset(product(*(row.when[name] for name in above))):
                message = "is never used: rows above it price all that it is for"
                yield Finding((*base, "rows", place), message, "move it up, or remove it", is_warning=True)
                break
        taken.setdefault(names, set()).update(product(*(row.when[name] for name in names)))


def books_open(draft: Draft) -> Iterator[Finding]:
    """Warn without `books_open_at` where a period's end makes an amount: then usage decides which ends count."""
    if draft.rules is None or draft.rules.books_open_at is not None:
        return
    found = next(_period_ends(draft), None)
    if found is not None:
        yield Finding(
            ("rules", "books_open_at"),
            f"is missing: {found} falls due at the end of a billing period, and the first one is the period of the"
            " first usage that arrives",
            "write the time from which on periods are billed, such as 2026-01-01T00:00:00Z",
            is_warning=True,
        )


def horizon(draft: Draft) -> Iterator[Finding]:
    """Warn where an event may be forgotten while it can still be sent again."""
    rules = draft.rules
    if rules is not None and rules.dedupe_horizon_days < rules.too_old_days:
        yield Finding(
            ("rules", "dedupe_horizon_days"),
            f"{rules.dedupe_horizon_days} days are less than too_old_days, {rules.too_old_days}: an event that is sent"
            " again after the horizon, its time still allowed, counts twice",
            "make the horizon as long, or too_old_days shorter",
            is_warning=True,
        )


def _period_ends(draft: Draft) -> Iterator[str]:
    """Name the charges that fall due at a period's end, as plans have them or as contracts change them."""
    plans = {plan.id: plan for plan in draft.plans.values()}
    for plan in draft.plans.values():
        for version in plan.versions:
            yield from (f"{_what(raw)} of plan {plan.id}" for raw in version.charges if _ends(raw))
    for customer in draft.customers.values():
        for contract in customer.contracts:
            yield from (f"commitment {one.id} of contract {contract.id}" for one in contract.commitments)
            plan_used = plans.get(contract.plan)
            if plan_used is None or not contract.overrides:
                continue
            for version in versions_used(contract, plan_used):
                merged = (merge(raw, contract) for raw in version.charges)
                yield from (f"{_what(raw)} of contract {contract.id}" for raw in merged if _ends(raw))


def _ends(raw: Mapping[str, Any]) -> bool:
    try:
        charge = parse_charge(dict(raw))
        return has_period_end(charge) or _is_ratable(charge)
    except ValueError:
        return False  # reported where the charge itself is checked


def _is_ratable(charge: Charge) -> bool:
    return any(row.is_ratable for row in charge.rows) if isinstance(charge, Matrix) else charge.is_ratable


def _what(raw: Mapping[str, Any]) -> str:
    kind = "the minimum or the fee of zero usage"
    if raw.get("model") == "flat":
        kind = "the flat fee"
    elif (raw.get("accounting") or {}).get("recognition") == "ratable":
        kind = "the ratable revenue"
    return f"{kind} of charge {raw.get('id')!r}"
