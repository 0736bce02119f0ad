"""Our names in the ERP's words, and what of a posting has none: pure.

Accounts, customers, dimensions and tax codes are translated when a posting is made, and again while it is held; the
adapters only write down what stands there.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from config.entities import Entity
from config.erp_mappings import TAX_CATEGORY, Mappings, tax_code
from sinks.erp.port import Invoice, Posting, PostingLine

NAMED_MAX: Final = 5
"""Values that a reason names at most."""
MISSING_DIMENSION_MAPPING: Final = "missing_dimension_mapping"
MISSING_TAX_MAPPING: Final = "missing_tax_mapping"


@dataclass(frozen=True, slots=True)
class ErpNames:
    """Our names in the ERP's words, by the newest configuration; a customer may have no code."""

    accounts: Mapping[str, str]
    parties: Mapping[str, str] = field(default_factory=dict)
    mappings: Mappings = field(default_factory=Mappings)
    taxes: Mapping[str, str | None] | None = None
    """Tax category to the ERP's tax of invoice lines; None: there is no mapping, the adapter knows if it needs one."""


def taxes_of(entity: Entity) -> Mapping[str, str | None] | None:
    """Return the tax mapping of an entity: its own, else the older option of the Tryton adapter."""
    if entity.erp.mappings.taxes is not None or entity.erp.adapter != "tryton":
        return entity.erp.mappings.taxes
    taxes: dict[str, str | None] | None = entity.erp.options.get("taxes")
    return taxes or None


def coded(line: PostingLine, names: ErpNames) -> PostingLine:
    """Return the line with the ERP's codes of today; what has none is empty or None, and holds the posting."""
    mappings = names.mappings
    taxes = mappings.taxes
    given = dict(line.dimensions)
    return replace(
        line,
        account=names.accounts.get(line.account_role, ""),
        party=names.parties.get(line.customer) if line.customer else line.party,
        erp_dimensions=(
            tuple(mappings.dimension(name, value) for name, value in line.dimensions)
            if any(mappings.maps_dimension(name) for name in given)
            else None
        ),
        tax_code=tax_code(taxes, given[TAX_CATEGORY]) or None if taxes is not None and TAX_CATEGORY in given else None,
    )


def coded_invoice(invoice: Invoice, names: ErpNames) -> Invoice:
    """Return the invoice with the ERP's tax codes of today."""
    if names.taxes is None:
        return replace(invoice, tax_codes=None)
    return replace(invoice, tax_codes=tuple(tax_code(names.taxes, line.tax_category) for line in invoice.lines))


def unmapped(posting: Posting) -> tuple[str, str]:
    """Return the reason and the details of what is not mapped in a posting; two empty texts if nothing is."""
    roles = sorted({line.account_role for line in posting.lines if not line.account})
    if roles:
        return "missing_account", f"no account for {', '.join(roles)} in entity {posting.entity}"
    if customers := sorted({line.customer for line in posting.lines if line.customer and not line.party}):
        return "missing_customer", f"no erp.customer for {_few(customers)} in the configuration"
    values: dict[str, set[str]] = defaultdict(set)
    names_unknown = set()
    for line in posting.lines:
        for (name, value), (code, mapped) in zip(line.dimensions, line.erp_dimensions or (), strict=False):
            if mapped is None:
                values[name].add(value)
                if not code:
                    names_unknown.add(name)
    categories = values.pop(TAX_CATEGORY, set()) if TAX_CATEGORY in names_unknown else set()
    if posting.invoice is not None:
        codes = posting.invoice.tax_codes or ()
        pairs = zip(posting.invoice.lines, codes, strict=False)
        categories |= {line.tax_category for line, code in pairs if code is None}
    if values:
        return MISSING_DIMENSION_MAPPING, "; ".join(
            f"dimension {name} is not in erp.mappings.dimensions of entity {posting.entity}"
            if name in names_unknown
            else f"no ERP value for {name} = {_few(sorted(found))}"
            f" in erp.mappings.dimensions.{name}.values of entity {posting.entity}"
            for name, found in sorted(values.items())
        )
    if categories:
        where = f"in erp.mappings.taxes of entity {posting.entity}"
        return (
            MISSING_TAX_MAPPING,
            f"no ERP tax code for tax category {_few(sorted(categories))} {where} (null: no tax)",
        )
    return "", ""


def _few(names: list[str]) -> str:
    more = len(names) - NAMED_MAX
    return ", ".join(names[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
