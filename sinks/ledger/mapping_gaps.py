"""What is not mapped to the ERP, or mapped to what the ERP does not have, by what was last pulled from it. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from config.entities import Entity
from config.erp_mappings import TAX_CATEGORY, tax_code
from config.mapping_use import values_used
from config.revision import Revision
from sinks.ledger.erp_codes import taxes_of
from sinks.ledger.readiness import ErpData

NEEDS_TAXES = "tryton"
"""The adapter that makes invoices with taxes: a category without one is held."""
NOT_MAPPED = "is not mapped: what has it is held"


@dataclass(frozen=True, slots=True)
class Gap:
    """One of our names without a usable code in an entity's ERP."""

    entity: str
    kind: str
    """`account`, `customer`, `tax`, or `dimension`."""
    name: str
    """Ours: a role, a customer, a tax category, `dimension = value`."""
    code: str
    """The ERP's, by the configuration; empty if there is none."""
    problem: str


def gaps(revision: Revision, data: Mapping[str, ErpData]) -> list[Gap]:
    """Return the gaps of all entities, in their order. Nothing pulled yet, nothing can be missing in the ERP."""
    return [gap for entity in revision.configuration.entities for gap in _gaps(revision, entity, data.get(entity.id))]


def _gaps(revision: Revision, entity: Entity, data: ErpData | None) -> Iterator[Gap]:
    mappings = entity.erp.mappings
    used = values_used(entity.id, revision.configuration.customers, revision.plans)
    for role, code in sorted(entity.accounts.items()):
        yield from _one(entity, "account", role, code, data)
    for customer in revision.configuration.customers:
        if any(contract.entity == entity.id for contract in customer.contracts):
            party = mappings.customers.get(customer.id) or customer.erp.customer
            yield from _one(entity, "customer", customer.id, party, data, "party")
    taxes = taxes_of(entity)
    if taxes is None and entity.erp.adapter == NEEDS_TAXES:
        taxes = {}
    if taxes is not None and (entity.invoicing.enabled or TAX_CATEGORY in entity.posting.line_grain):
        for category in sorted({*taxes, *used.get(TAX_CATEGORY, ())}):
            tax = tax_code(taxes, category)
            if tax != "":
                yield from _one(entity, "tax", category, tax, data)
    for name in entity.posting.line_grain:
        for value in sorted(used.get(name, ())) if mappings.maps_dimension(name) and name != TAX_CATEGORY else ():
            if mappings.dimension(name, value)[1] is None:
                yield Gap(entity.id, "dimension", f"{name} = {value}", "", NOT_MAPPED)


def _one(
    entity: Entity, kind: str, name: str, code: str | None, data: ErpData | None, record: str = ""
) -> Iterator[Gap]:
    if not code:
        yield Gap(entity.id, kind, name, "", NOT_MAPPED)
    elif data is not None and (problem := data.lacks(record or kind, code)):
        yield Gap(entity.id, kind, name, code, problem)
