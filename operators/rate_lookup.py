"""Finds the charge that a plan, or a contract's form of it, has under an id. Pure; serves `quote` and `explain`."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

from config.customers import Contract
from config.periods import billing_period
from config.revision import Revision
from core.errors import InvalidRequest
from operators.rate_prices import Pricings
from operators.rate_terms import ALWAYS, first_minute, moment, version_spans
from operators.rating.schema import DEFAULT_ROW, Simple


@dataclass(frozen=True, slots=True)
class Priced:
    """A charge and where it stands."""

    plan: str
    plan_version: int
    """1-based."""
    effective_from: datetime
    currency: str
    charge: Simple
    customer: str = ""
    contract: str = ""


def find_contract(revision: Revision, name: str) -> tuple[str, Contract]:
    """Return the customer's id and the contract called `contract` or `customer/contract`.

    :raises InvalidRequest: there is none, or several customers have one of that id.
    """
    customer_id, _, contract_id = name.rpartition("/")
    found = [
        (customer.id, contract)
        for customer in revision.configuration.customers
        for contract in customer.contracts
        if contract.id == contract_id and customer_id in {"", customer.id}
    ]
    if not found:
        known = (contract.id for customer in revision.configuration.customers for contract in customer.contracts)
        _unknown("contract", name, known)
    if len(found) > 1:
        choices = ", ".join(f"{customer}/{contract.id}" for customer, contract in found)
        message = f"several customers have a contract {contract_id}: write one of {choices}"
        raise InvalidRequest(message)
    return found[0]


def find_charge(
    revision: Revision,
    charge: str,
    *,
    at: datetime,
    plan: str = "",
    plan_version: int | None = None,
    contract: str = "",
) -> Priced:
    """Return the charge of a plan, or with `contract` as the contract has it, its overrides laid over.

    A row of a matrix is called `charge/row`, as the books do; the matrix alone stands for its default row.
    Without `plan_version` it is the one in force for usage at the aware time `at`: the contract's own if it pins
    one, else the newest that is effective by then.

    :raises InvalidRequest: plan, version, contract or charge is unknown; the message lists what is known.
    """
    customer = ""
    if contract:
        customer, agreed = find_contract(revision, contract)
        if plan and plan != agreed.plan:
            message = f"contract {contract} has plan {agreed.plan}, not {plan}: leave --plan out, or --contract"
            raise InvalidRequest(message)
        plan = agreed.plan
    elif not plan:
        message = "which plan? Give --plan, or --contract for a contract's own prices"
        raise InvalidRequest(message)
    if plan not in revision.plans:
        _unknown("plan", plan, revision.plans)
    versions = revision.plans[plan].versions
    if not contract:
        agreed = _plain_contract(plan, at)
    number = _version_at(revision, agreed, at) if plan_version is None else plan_version
    if not 1 <= number <= len(versions):
        _unknown(f"version of plan {plan}", str(number), map(str, range(1, len(versions) + 1)))
    version = versions[number - 1]
    start, _ = billing_period(agreed.billing_period, agreed.from_, at)
    prices = {one.name: one.charge for one in Pricings(revision).of(agreed, number, start).prices}
    found = prices.get(charge) or prices.get(f"{charge}/{DEFAULT_ROW}")
    if found is None:
        _unknown(f"charge of plan {plan} version {number}", charge, prices)
    return Priced(
        plan, number, version.effective_from, version.currency, found, customer, agreed.id if contract else ""
    )


def _plain_contract(plan: str, at: datetime) -> Contract:
    """Return a contract that has the plan as it is, following its versions."""
    return Contract.model_validate({"id": "quote", "plan": plan, "plan_version": "latest", "entity": "any", "from": at})


def _version_at(revision: Revision, contract: Contract, at: datetime) -> int:
    spans = version_spans(revision, contract)
    minute = first_minute(at)
    in_force = next((span.version for span in spans if span.begins <= minute < span.ends), None)
    if in_force is None:
        first = min((span.begins for span in spans), default=ALWAYS)
        message = (
            f"plan {contract.plan} has no version in force at {at:%Y-%m-%dT%H:%MZ}; its first begins at"
            f" {moment(first):%Y-%m-%dT%H:%MZ}: choose one with --plan-version, or a later --at"
        )
        raise InvalidRequest(message)
    return in_force


def _unknown(kind: str, name: str, known: Iterable[str]) -> NoReturn:
    names = sorted(set(known))
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    message = f"there is no {kind} {name!r}: known are {shown or 'none'}"
    raise InvalidRequest(message)
