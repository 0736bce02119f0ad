"""Whose data a token may see: its tenants, and the customers all of whose subjects are among them.

The tenant is an event's subject (design 2.4). A customer's documents and spend mix the usage of all its subjects, so a
token sees a customer only if it may see every subject the customer ever had.
"""

from collections.abc import Sequence

from config.revision import History
from console.problems import Problem
from sinks.ledger.tokens import Token


def tenants_of(token: Token, asked: Sequence[str]) -> list[str] | None:
    """Return the tenants to read: those asked for, else the token's; None for all.

    :raises Problem: 403 if one that was asked for is outside the token's.
    """
    for tenant in asked:
        check_tenant(token, tenant)
    return list(asked) or list(token.tenants) or None


def check_tenant(token: Token, tenant: str) -> None:
    """Make sure the token may see the tenant.

    :raises Problem: 403.
    """
    if token.tenants and tenant not in token.tenants:
        raise Problem("forbidden", f"the token may not see the tenant {tenant!r}")


def customers_of(token: Token, history: History) -> frozenset[str] | None:
    """Return the customers the token may see; None for all."""
    if not token.tenants:
        return None
    own = set(token.tenants)
    subjects: dict[str, set[str]] = {}
    for revision in history.revisions:
        for customer in revision.configuration.customers:
            known = subjects.setdefault(customer.id, set())
            known.update(subject.id for subject in customer.subjects)
    return frozenset(name for name, all_of_it in subjects.items() if all_of_it and all_of_it <= own)


def sees_customer(token: Token, history: History, customer: str) -> bool:
    """Tell whether the token may see the customer."""
    allowed = customers_of(token, history)
    return allowed is None or customer in allowed


def check_unscoped(token: Token) -> None:
    """Make sure the token may see everything: what is asked for cannot be cut to tenants.

    :raises Problem: 403.
    """
    if token.tenants:
        raise Problem("forbidden", "a token of single tenants may not see what concerns all")
