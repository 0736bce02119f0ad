"""Cross checks of a configuration: what no single model can see. All findings at once, each with its place.

The checks run on the sound elements even when others are broken; a reference to a broken element is not
reported as unknown.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from config.account_roles import is_revenue
from config.customers import Customer
from config.entities import Entity
from config.meters import Meter
from config.plans import Plan, PlanVersion
from config.problems import plain_errors
from config.revision import Configuration, Rules
from config.yaml_source import Location
from core.currencies import is_known
from core.reasons import RESERVED_TYPES


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or (a warning) doubtful."""

    location: Location
    message: str
    hint: str = ""
    is_warning: bool = False


@dataclass(frozen=True)
class Draft:
    """The sound elements of each section by their index in the file, and all ids that were written."""

    meters: Mapping[int, Meter]
    plans: Mapping[int, Plan]
    entities: Mapping[int, Entity]
    customers: Mapping[int, Customer]
    ids: Mapping[str, frozenset[str]] = field(default_factory=dict)
    rules: Rules | None = None
    """None if they are not sound."""

    @classmethod
    def of(cls, configuration: Configuration) -> "Draft":
        """Return the draft of a configuration all of whose elements are sound."""
        return cls(
            dict(enumerate(configuration.meters)),
            dict(enumerate(configuration.plans)),
            dict(enumerate(configuration.entities)),
            dict(enumerate(configuration.customers)),
            rules=configuration.rules,
        )

    def is_broken(self, section: str, name: str) -> bool:
        """Tell whether an element of that id was written, though it may not be sound."""
        return name in self.ids.get(section, frozenset())

    def meter(self, name: object) -> Meter | None:
        """Return the sound meter of that id."""
        return next((meter for meter in self.meters.values() if meter.id == name), None)


def check(subject: Draft | Configuration) -> list[Finding]:
    """Return all findings, errors and warnings, in the order of the sections."""
    from config.checks_contracts import contracts, subjects  # noqa: PLC0415  # they use this module's types
    from config.checks_rating import books_open, horizon  # noqa: PLC0415

    draft = Draft.of(subject) if isinstance(subject, Configuration) else subject
    return [
        *_duplicates(draft),
        *_meters(draft),
        *_plans(draft),
        *_entities(draft),
        *_customers(draft),
        *subjects(draft),
        *contracts(draft),
        *books_open(draft),
        *horizon(draft),
    ]


def _duplicates(draft: Draft) -> Iterator[Finding]:
    sections: tuple[tuple[str, Mapping[int, Any]], ...] = (
        ("meters", draft.meters),
        ("plans", draft.plans),
        ("entities", draft.entities),
        ("customers", draft.customers),
    )
    for section, elements in sections:
        yield from repeated((section,), {index: element.id for index, element in elements.items()})


def repeated(base: Location, ids: Mapping[int, object]) -> Iterator[Finding]:
    """Report every id of a list that stands there before."""
    seen: set[str] = set()
    for index, name in ids.items():
        if not isinstance(name, str):
            continue  # reported by the element's own model
        if name in seen:
            yield Finding((*base, index, "id"), f"the id {name!r} is used twice", "ids are unique in their list")
        seen.add(name)


def _meters(draft: Draft) -> Iterator[Finding]:
    for index, meter in draft.meters.items():
        if meter.event_type.startswith(RESERVED_TYPES):
            hint = "events of these types steer meterbridge itself and are never metered"
            yield Finding(("meters", index, "event_type"), f"{meter.event_type!r} is a reserved type", hint)


def _plans(draft: Draft) -> Iterator[Finding]:
    for index, plan in draft.plans.items():
        base: Location = ("plans", index, "versions")
        previous: PlanVersion | None = None
        for place, version in enumerate(plan.versions):
            if previous is not None and version.effective_from <= previous.effective_from:
                yield Finding(
                    (*base, place, "effective_from"),
                    f"must be after that of the version before, {previous.effective_from:%Y-%m-%dT%H:%M:%SZ}",
                    "versions are only ever added, at the end",
                )
            previous = version
            yield from _plan_version(draft, version, (*base, place))


def _plan_version(draft: Draft, version: PlanVersion, base: Location) -> Iterator[Finding]:
    if not is_known(version.currency):
        yield Finding((*base, "currency"), f"unknown currency {version.currency!r}", "use an ISO 4217 code such as USD")
    charges = (*base, "charges")
    yield from repeated(charges, {place: raw.get("id") for place, raw in enumerate(version.charges)})
    for place, raw in enumerate(version.charges):
        yield from charge(draft, raw, (*charges, place))
    yield from _charged_twice(version, charges)


def broken_plan(draft: Draft, raw: object, base: Location) -> Iterator[Finding]:
    """Check the charges of a plan that is not sound for another reason, so that nothing waits for a second look."""
    versions = raw.get("versions") if isinstance(raw, Mapping) else None
    for place, version in enumerate(versions if isinstance(versions, list) else ()):
        charges = version.get("charges") if isinstance(version, Mapping) else None
        for number, written in enumerate(charges if isinstance(charges, list) else ()):
            if isinstance(written, Mapping):
                yield from charge(draft, written, (*base, "versions", place, "charges", number))


def charge(draft: Draft, raw: Mapping[str, Any], base: Location) -> Iterator[Finding]:
    """Check one charge: its own fields by the price engine, its meter and its filter."""
    yield from parse_findings(raw, base)
    name = raw.get("meter")
    if name is None:
        return
    meter = draft.meter(name)
    if meter is None:
        if not draft.is_broken("meters", str(name)):
            yield Finding((*base, "meter"), f"unknown meter {name!r}", known(draft.meters))
        return
    for location, conditions in _all_conditions(raw):
        for dimension in conditions if isinstance(conditions, Mapping) else ():
            if dimension not in meter.group_by:
                dimensions = ", ".join(meter.group_by) or "none"
                yield Finding(
                    (*base, *location, dimension),
                    f"the meter {meter.id} has no dimension {dimension!r}",
                    f"its dimensions are: {dimensions}; add it to the meter's group_by",
                )


def _all_conditions(raw: Mapping[str, Any]) -> Iterator[tuple[Location, Any]]:
    """Yield where a charge names dimensions, and what it says there."""
    yield ("filter",), raw.get("filter")
    for place, row in enumerate(rows_of(raw)):
        yield ("rows", place, "when"), row.get("when")


def rows_of(raw: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the rows of a raw matrix, as far as they are rows; none of any other charge."""
    rows = raw.get("rows")
    if raw.get("model") != "matrix" or not isinstance(rows, list | tuple):
        return []
    return [row if isinstance(row, Mapping) else {} for row in rows]


def parse_findings(raw: Mapping[str, Any], base: Location) -> Iterator[Finding]:
    """Let the price engine read a raw charge; word what it refuses, and what rating cannot do."""
    from config.checks_rating import per_event, unreachable_rows  # noqa: PLC0415
    from operators.rating.charges import parse_charge  # noqa: PLC0415  # it imports the models of this package

    try:
        parsed = parse_charge(dict(raw))
        yield from per_event(parsed, base)
        yield from unreachable_rows(parsed, base)
    except ValidationError as error:
        for location, message, hint in plain_errors(error):
            # Behind the charge, and behind a row, comes the name of its model, which is not a part of the file.
            inner = location[1:] if location and location[0] == raw.get("model") else location
            if inner[:1] == ("rows",) and inner[2:3] and inner[2] not in ("when", "row"):
                inner = (*inner[:2], *inner[3:])
            yield Finding((*base, *inner), message, hint)


def filters_meet(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Tell whether a series can pass the filters of both raw charges."""
    one, other = _conditions(first), _conditions(second)
    return all(one[dimension] & other[dimension] for dimension in one.keys() & other.keys())


def _conditions(raw: Mapping[str, Any]) -> dict[str, set[str]]:
    conditions = raw.get("filter")
    if not isinstance(conditions, Mapping):
        return {}
    return {
        str(dimension): {str(value) for value in values} if isinstance(values, list | tuple) else {str(values)}
        for dimension, values in conditions.items()
    }


def _charged_twice(version: PlanVersion, base: Location) -> Iterator[Finding]:
    """Warn where usage passes two charges: sometimes meant, more often a forgotten filter."""
    for place, raw in enumerate(version.charges):
        for other in version.charges[:place]:
            if raw.get("meter") is not None and raw.get("meter") == other.get("meter") and filters_meet(raw, other):
                yield Finding(
                    (*base, place),
                    f"charges {other.get('id')!r} and {raw.get('id')!r} both price some usage of {raw.get('meter')!r}",
                    "give them filters that exclude each other, unless both are meant",
                    is_warning=True,
                )


def _entities(draft: Draft) -> Iterator[Finding]:
    from config.checks_erp import erp  # noqa: PLC0415  # they use this module's types
    from config.checks_mappings import mappings  # noqa: PLC0415
    from config.checks_posting import posting_rules  # noqa: PLC0415

    for index, entity in draft.entities.items():
        base: Location = ("entities", index)
        yield from erp(entity.erp, (*base, "erp"))
        yield from posting_rules(entity, base)
        yield from mappings(draft, entity, (*base, "erp"))
        if not is_known(entity.functional_currency):
            message = f"unknown currency {entity.functional_currency!r}"
            yield Finding((*base, "functional_currency"), message, "use an ISO 4217 code such as USD")
        accounts = entity.accounts
        if entity.invoicing.enabled and "accounts_receivable" not in accounts:
            message = "invoicing is enabled, and there is no account for accounts_receivable"
            yield Finding((*base, "accounts"), message, "add `accounts_receivable` to the entity's accounts")
        revenue = {account: role for role, account in accounts.items() if is_revenue(role)}
        for role, account in accounts.items():
            if not account.strip():
                yield Finding((*base, "accounts", role), "the account is empty", "write its number or name")
            elif not is_revenue(role) and account in revenue:
                # An invoice credits the unbilled receivable; on a revenue account that is revenue again.
                yield Finding(
                    (*base, "accounts", role),
                    f"account {account!r} is also {revenue[account]}: accrual and invoice would credit revenue twice",
                    "use an account of the balance sheet",
                )


def _customers(draft: Draft) -> Iterator[Finding]:
    mapped = {entity.id: entity.erp.mappings.customers for entity in draft.entities.values()}
    for index, customer in draft.customers.items():
        billed_by = {contract.entity for contract in customer.contracts}
        everywhere = bool(billed_by) and all(customer.id in mapped.get(entity, {}) for entity in billed_by)
        if customer.erp.customer is None and not everywhere:
            yield Finding(
                ("customers", index),
                "has no erp.customer: the ERP cannot tell whose receivable it is",
                "add `erp: {customer: ...}`",
                is_warning=True,
            )


def known(elements: Mapping[int, Any]) -> str:
    """Return a hint that lists known ids, at most ten."""
    names = [element.id for element in elements.values()]
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"known: {', '.join(names[:10]) or 'none'}{more}"
