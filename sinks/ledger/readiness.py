"""Whether a contract can be invoiced: customer, currency, accounts and open period are all found. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from config.checks_contracts import merge, roles_needed, versions_used
from config.entities import Entity
from config.posting_rules import rules_of
from config.revision import Revision
from sinks.erp.port import Record


@dataclass(frozen=True, slots=True)
class ErpData:
    """What was pulled from an entity's ERP: by kind and code, whether it may be used."""

    active: Mapping[tuple[str, str], bool]
    authoritative: frozenset[str]

    @classmethod
    def of(cls, records: Iterable[Record], authoritative: Iterable[str]) -> "ErpData":
        """Return the data of records."""
        return cls({(one.kind, one.code): one.active for one in records}, frozenset(authoritative))

    def lacks(self, kind: str, code: str) -> str:
        """Return what is wrong with that code in the ERP, or an empty text."""
        if kind not in self.authoritative:
            return ""
        is_active = self.active.get((kind, code))
        if is_active is None:
            return f"the ERP has no {kind} {code}"
        state = "closed" if kind == "period" else "not active"
        return "" if is_active else f"{kind} {code} is {state} in the ERP"


@dataclass(frozen=True, slots=True)
class Readiness:
    """One contract and what is missing before it can be invoiced."""

    customer: str
    contract: str
    entity: str
    missing: tuple[str, ...]

    @property
    def is_ready(self) -> bool:
        """Tell whether nothing is missing."""
        return not self.missing


def readiness(revision: Revision, data: Mapping[str, ErpData], period: Mapping[str, str]) -> list[Readiness]:
    """Return the readiness of every contract; `period` is each entity's accounting period of today."""
    found = []
    for customer in revision.configuration.customers:
        for contract in customer.contracts:
            entity = revision.entities[contract.entity]
            plan = revision.plans[contract.plan]
            versions = versions_used(contract, plan)
            charges = [merge(raw, contract) for version in versions for raw in version.charges]
            roles = {
                **roles_needed(contract, charges, rules_of(entity.posting_rules)),
                "accounts_receivable": "invoices",
            }
            missing = [*_roles(entity, roles, data.get(entity.id))]
            if entity.id not in data:
                missing.append("nothing was pulled from the ERP yet: run `meterbridge erp pull`")
            else:
                known = data[entity.id]
                code = entity.erp.mappings.customers.get(customer.id) or customer.erp.customer
                checks = [
                    "the customer has no erp.customer" if not code else known.lacks("party", code),
                    *(known.lacks("currency", one) for one in sorted({version.currency for version in versions})),
                    known.lacks("period", period[entity.id]),
                ]
                missing += [text for text in checks if text]
            found.append(Readiness(customer.id, contract.id, entity.id, tuple(missing)))
    return found


def _roles(entity: Entity, roles: Mapping[str, str], data: ErpData | None) -> Iterable[str]:
    accounts = entity.accounts
    for role, reason in sorted(roles.items()):
        if not accounts.get(role):
            yield f"entity {entity.id} has no account for {role}, needed for {reason}"
        elif data is not None and (text := data.lacks("account", accounts[role])):
            yield f"{text}, needed for {reason}"
