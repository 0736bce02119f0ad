"""What of an entity's contracts is sent to its ERP in our words: the values that mappings have to know. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from config.checks import rows_of
from config.checks_contracts import merge, versions_used
from config.customers import Contract, Customer
from config.erp_mappings import TAX_CATEGORY
from config.plans import Plan


def values_used(entity: str, customers: Iterable[Customer], plans: Mapping[str, Plan]) -> dict[str, set[str]]:
    """Return the values by dimension that lines of the entity can have, as far as the configuration tells.

    A line has a dimension where its charge is for one value of it alone.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for customer in customers:
        for contract in customer.contracts:
            plan = plans.get(contract.plan)
            if contract.entity != entity or plan is None:
                continue
            found["contract"].add(contract.id)
            found["plan"].add(plan.id)
            for raw in _charges(contract, plan):
                _add(found, raw)
            found["charge"] |= {f"commitment:{one.id}" for one in contract.commitments}
    return found


def _charges(contract: Contract, plan: Plan) -> list[dict[str, Any]]:
    return [merge(raw, contract) for version in versions_used(contract, plan) for raw in version.charges]


def _add(found: dict[str, set[str]], raw: Mapping[str, Any]) -> None:
    if isinstance(raw.get("id"), str):
        found["charge"].add(raw["id"])
    for one in (raw, *rows_of(raw)):
        accounting = one.get("accounting")
        category = accounting.get(TAX_CATEGORY) if isinstance(accounting, Mapping) else None
        if isinstance(category, str) and category:
            found[TAX_CATEGORY].add(category)
        conditions = one.get("filter")
        for name, values in conditions.items() if isinstance(conditions, Mapping) else ():
            several = values if isinstance(values, list | tuple) else [values]
            if len(several) == 1:
                found[str(name)].add(str(several[0]))
