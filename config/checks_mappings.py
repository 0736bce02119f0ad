"""Checks of an entity's mappings to its ERP: what is mapped and never sent, and what would be held."""

from collections import Counter
from collections.abc import Iterator

from config.checks import Draft, Finding
from config.entities import Entity
from config.erp_mappings import OURS, TAX_CATEGORY, tax_code
from config.mapping_use import values_used
from config.yaml_source import Location

NAMED_MAX = 5


def mappings(draft: Draft, entity: Entity, base: Location) -> Iterator[Finding]:
    """Report mappings that contradict each other or the grain, and (as warnings) values in use that they lack."""
    found = entity.erp.mappings
    used: dict[str, set[str]] = {}
    if found.dimensions is not None or found.taxes is not None:  # customers may be many
        used = values_used(entity.id, draft.customers.values(), {plan.id: plan for plan in draft.plans.values()})
    where: Location = (*base, "mappings")
    yield from _dimensions(entity, used, where)
    yield from _taxes(entity, used, (*base, "options", "taxes"), where)
    known = {customer.id for customer in draft.customers.values()} if found.customers else set()
    for name in found.customers:
        if name not in known and not draft.is_broken("customers", name):
            message = f"there is no customer {name!r}"
            yield Finding((*where, "customers", name), message, "use the id of one of the customers")


def _dimensions(entity: Entity, used: dict[str, set[str]], where: Location) -> Iterator[Finding]:
    found, grain = entity.erp.mappings.dimensions, entity.posting.line_grain
    if found is None:
        return
    here: Location = (*where, "dimensions")
    codes = Counter(mapping.code or name for name, mapping in found.items())
    for name, mapping in found.items():
        if name in OURS:
            hint = "customers are mapped by `erp.customer` or `mappings.customers`" if name == OURS[0] else "remove it"
            yield Finding((*here, name), "is no dimension that can be mapped", hint)
        elif name not in grain:
            message = f"is mapped and never sent: posting.line_grain has {', '.join(grain) or 'no dimensions'}"
            yield Finding((*here, name), message, f"add {name} to posting.line_grain, or remove it", is_warning=True)
        if codes[mapping.code or name] > 1:
            message = (
                f"the ERP's dimension {mapping.code or name!r} stands for two of ours: one would replace the other"
            )
            yield Finding((*here, name, "code"), message, "give each a code of its own")
    for name in grain:
        if not entity.erp.mappings.maps_dimension(name):
            continue
        if name not in found and not (name == TAX_CATEGORY and entity.erp.mappings.taxes is not None):
            message = f"posting.line_grain has {name}, which is not mapped: every posting would be held"
            yield Finding(here, message, f"add `{name}: {{pass_through: true}}` if the ERP has our values")
        elif name in found:
            missing = sorted(value for value in used.get(name, ()) if found[name].value(value) is None)
            if missing:
                yield _held((*here, name, "values"), f"{name} = {_few(missing)}", "add them, a default or pass_through")


def _taxes(entity: Entity, used: dict[str, set[str]], option: Location, where: Location) -> Iterator[Finding]:
    taxes = entity.erp.mappings.taxes
    if taxes is None:
        return
    if entity.erp.options.get("taxes"):
        message = "taxes are mapped in erp.options.taxes and in erp.mappings.taxes"
        yield Finding(option, message, "keep erp.mappings.taxes alone")
    sends = entity.invoicing.enabled or TAX_CATEGORY in entity.posting.line_grain
    missing = sorted(one for one in used.get(TAX_CATEGORY, ()) if tax_code(taxes, one) is None)
    if missing and sends:
        yield _held((*where, "taxes"), f"tax category {_few(missing)}", "add them; null is no tax")


def _held(location: Location, what: str, hint: str) -> Finding:
    return Finding(location, f"has no ERP code for {what}: documents with it will be held", hint, is_warning=True)


def _few(names: list[str]) -> str:
    more = len(names) - NAMED_MAX
    return ", ".join(names[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
