"""Cross checks of customers' subjects and contracts: see `config.checks`."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

from config.account_roles import UNBILLED
from config.checks import Draft, Finding, charge, filters_meet, known, repeated, rows_of
from config.customers import Contract, Customer, SubjectAssignment
from config.entities import Entity
from config.plans import Plan, PlanVersion
from config.posting_rules import Rule, rules_of
from config.yaml_source import Location
from core.currencies import exponent, is_known
from operators.cents import cents

_BEGINNING: Final = datetime.min.replace(tzinfo=UTC)
_END: Final = datetime.max.replace(tzinfo=UTC)
_TIERED: Final = ("graduated", "volume", "package", "percentage", "graduated_percentage")


def subjects(draft: Draft) -> Iterator[Finding]:
    """Check that a subject belongs to one customer at a time. An open end lasts to the next assignment."""
    held: dict[str, list[tuple[datetime, str, SubjectAssignment, Location]]] = defaultdict(list)
    for index, customer in draft.customers.items():
        if not customer.subjects:
            message = "has no subject: no usage can reach it"
            yield Finding(("customers", index, "subjects"), message, "add a subject", is_warning=True)
        for place, assignment in enumerate(customer.subjects):
            base: Location = ("customers", index, "subjects", place)
            start = assignment.from_ or _BEGINNING
            if assignment.to is not None and assignment.to <= start:
                yield Finding((*base, "to"), "must be after `from`", "swap them, or remove one")
            held[assignment.id].append((start, customer.id, assignment, base))
    for name, assignments in held.items():
        ordered = sorted(assignments, key=lambda item: item[0])
        for before, after in pairwise(ordered):
            ends = before[2].to
            if after[0] == before[0] or (ends is not None and ends > after[0]):
                owners = (
                    f"customers {before[1]} and {after[1]}" if before[1] != after[1] else f"customer {after[1]} twice"
                )
                yield Finding(
                    after[3],
                    f"the subject {name!r} belongs to {owners} at the same time",
                    "give each assignment its own `from`",
                )


def contracts(draft: Draft) -> Iterator[Finding]:
    """Check every contract against plans, entities and the customer's other contracts."""
    plans = {plan.id: plan for plan in draft.plans.values()}
    entities = {entity.id: entity for entity in draft.entities.values()}
    for index, customer in draft.customers.items():
        base: Location = ("customers", index, "contracts")
        yield from repeated(base, {place: contract.id for place, contract in enumerate(customer.contracts)})
        for place, contract in enumerate(customer.contracts):
            yield from _contract(draft, contract, (*base, place), plans, entities)
        yield from _overlaps(customer, base, plans)


def _contract(
    draft: Draft,
    contract: Contract,
    base: Location,
    plans: Mapping[str, Plan],
    entities: Mapping[str, Entity],
) -> Iterator[Finding]:
    if contract.to is not None and contract.to <= contract.from_:
        yield Finding((*base, "to"), "must be after `from`", "swap them, or remove `to`")
    entity = entities.get(contract.entity)
    if entity is None and not draft.is_broken("entities", contract.entity):
        yield Finding((*base, "entity"), f"unknown entity {contract.entity!r}", known(draft.entities))
    plan = plans.get(contract.plan)
    if plan is None:
        if not draft.is_broken("plans", contract.plan):
            yield Finding((*base, "plan"), f"unknown plan {contract.plan!r}", known(draft.plans))
        return
    yield from _plan_version(contract, plan, base)
    versions = versions_used(contract, plan)
    yield from _charge_references(draft, contract, versions, base)
    for version in versions:
        merged = [merge(raw, contract) for raw in version.charges]
        if entity is not None:
            yield from _roles(contract, entity, merged, base)
        yield from _recognition(contract, merged, base)


def _plan_version(contract: Contract, plan: Plan, base: Location) -> Iterator[Finding]:
    count = len(plan.versions)
    wanted = contract.plan_version
    if isinstance(wanted, int) and not 1 <= wanted <= count:
        yield Finding(
            (*base, "plan_version"),
            f"the plan {plan.id} has no version {wanted}",
            f"write 1 to {count}, or latest",
        )
    elif not isinstance(wanted, int) and contract.from_ < plan.versions[0].effective_from:
        yield Finding(
            (*base, "from"),
            f"no version of the plan {plan.id} is in force at the contract's start",
            f"its first is effective from {plan.versions[0].effective_from:%Y-%m-%dT%H:%M:%SZ}",
        )


def versions_used(contract: Contract, plan: Plan) -> list[PlanVersion]:
    """Return the plan versions the contract can be rated with."""
    if contract.plan_version == "latest":
        end = contract.to or _END
        return [version for version in plan.versions if version.effective_from < end]
    if isinstance(contract.plan_version, int):
        inside = 1 <= contract.plan_version <= len(plan.versions)
        return [plan.versions[contract.plan_version - 1]] if inside else []
    before = [version for version in plan.versions if version.effective_from <= contract.from_]
    return before[-1:]


def merge(raw: Mapping[str, Any], contract: Contract) -> dict[str, Any]:
    """Return the charge with the contract's overrides, merged by top-level field."""
    merged = dict(raw)
    for override in contract.overrides:
        if override.charge == raw.get("id"):
            merged |= override.set
    return merged


def _charge_references(
    draft: Draft, contract: Contract, versions: list[PlanVersion], base: Location
) -> Iterator[Finding]:
    charges = {str(raw.get("id")): raw for version in versions for raw in version.charges}
    hint = f"its charges are: {', '.join(charges) or 'none'}"
    for place, override in enumerate(contract.overrides):
        here: Location = (*base, "overrides", place)
        raw = charges.get(override.charge)
        if raw is None:
            if versions:
                message = f"the plan {contract.plan} has no charge {override.charge!r}"
                yield Finding((*here, "charge"), message, hint)
            continue
        if "id" in override.set:
            yield Finding((*here, "set", "id"), "a charge keeps its id", "remove it")
        broken = {(found.location, found.message) for found in charge(draft, raw, ())}
        for found in charge(draft, merge(raw, contract), ()):
            if (found.location, found.message) not in broken:
                yield Finding((*here, "set", *found.location), found.message, found.hint)
    yield from repeated((*base, "commitments"), {i: item.id for i, item in enumerate(contract.commitments)})
    currency = versions[0].currency if versions else ""
    for place, commitment in enumerate(contract.commitments):
        if is_known(currency) and commitment.amount != cents(commitment.amount, currency):
            yield Finding(
                (*base, "commitments", place, "amount"),
                f"{commitment.amount} is not an amount that can be paid in {currency}",
                f"round it to {exponent(currency)} decimals",
            )
        for position, name in enumerate(commitment.applies_to):
            if versions and name not in charges:
                where: Location = (*base, "commitments", place, "applies_to", position)
                yield Finding(where, f"the plan {contract.plan} has no charge {name!r}", hint)


def roles_needed(contract: Contract, charges: list[dict[str, Any]], rules: Mapping[str, Rule]) -> dict[str, str]:
    """Return the account roles that posting this contract's charges needs, each with the reason."""
    debit = rules["usage"].debit
    needed: dict[str, str] = {contract.unbilled_kind if debit == UNBILLED else debit: "usage not invoiced yet"}
    for raw in (one for whole in charges for one in (whole, *_with_id(whole))):
        accounting = raw.get("accounting")
        accounting = accounting if isinstance(accounting, Mapping) else {}
        name = raw.get("id")
        default = rules["fee" if raw.get("model") == "flat" else "usage"].credit
        needed.setdefault(str(accounting.get("revenue_role") or default), f"charge {name}")
        if raw.get("minimum") not in (None, 0, "0"):
            needed.setdefault(rules["true_up"].credit, f"the minimum of charge {name}")
        if raw.get("zero_usage") == "first_tier_flat":
            needed.setdefault(rules["true_up"].credit, f"the fee of charge {name} without usage")
        if accounting.get("recognition") == "ratable":
            needed.setdefault(rules["deferral"].credit, f"ratable recognition of charge {name}")
    for commitment in contract.commitments:
        role = rules["drawdown"].debit if commitment.type == "prepaid" else rules["true_up"].credit
        needed.setdefault(role, f"commitment {commitment.id}")
    return needed


def _with_id(matrix: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a matrix with what they have from it."""
    shared = {name: matrix[name] for name in ("id", "accounting") if name in matrix}
    return [shared | dict(row) for row in rows_of(matrix)]


def _roles(contract: Contract, entity: Entity, charges: list[dict[str, Any]], base: Location) -> Iterator[Finding]:
    for role, reason in roles_needed(contract, charges, rules_of(entity.posting_rules)).items():
        if role not in entity.accounts:
            yield Finding(
                (*base, "entity"),
                f"the entity {entity.id} has no account for {role}, needed for {reason}",
                f"add `{role}` to the entity's accounts",
            )


def _recognition(contract: Contract, charges: list[dict[str, Any]], base: Location) -> Iterator[Finding]:
    """Require a stated recognition where tiers run over more than a month: the months would differ in price."""
    period = contract.billing_period
    days = {"day": 1, "week": 7, "month": 28, "year": 366}[period.unit] * period.count
    if (period.unit == "month" and period.count == 1) or (period.unit in ("day", "week") and days <= 31):
        return
    for raw in charges:
        if any(_is_tiered(one) and not _states(one) for one in _with_id(raw) or [raw]):
            yield Finding(
                (*base, "billing_period"),
                f"charge {raw.get('id')!r} has tiers over more than a month and states no recognition",
                "add `accounting: {recognition: as_billable or ratable}` to the charge or an override",
            )


def _is_tiered(raw: Mapping[str, Any]) -> bool:
    return raw.get("model") in _TIERED or raw.get("included") is not None


def _states(raw: Mapping[str, Any]) -> bool:
    accounting = raw.get("accounting")
    return isinstance(accounting, Mapping) and accounting.get("recognition") is not None


def _overlaps(customer: Customer, base: Location, plans: Mapping[str, Plan]) -> Iterator[Finding]:
    """Report two contracts that would both price the same usage."""
    for place, contract in enumerate(customer.contracts):
        for other in customer.contracts[:place]:
            if contract.from_ >= (other.to or _END) or other.from_ >= (contract.to or _END):
                continue
            shared = _shared_meters(_charges(contract, plans), _charges(other, plans))
            if shared:
                yield Finding(
                    (*base, place),
                    f"overlaps with contract {other.id} in time, and both price: {', '.join(shared)}",
                    "end one with `to`, or give their charges filters that exclude each other",
                )


def _charges(contract: Contract, plans: Mapping[str, Plan]) -> list[dict[str, Any]]:
    plan = plans.get(contract.plan)
    versions = versions_used(contract, plan) if plan is not None else []
    return [merge(raw, contract) for version in versions for raw in version.charges]


def _shared_meters(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> list[str]:
    return sorted(
        {
            str(one["meter"])
            for one in first
            for other in second
            if one.get("meter") is not None and one["meter"] == other.get("meter") and filters_meet(one, other)
        }
    )
