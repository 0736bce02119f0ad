"""Whose data a token may see."""

from datetime import UTC, datetime

import pytest

from config.revision import Configuration, History, Revision
from console import scope
from console.problems import Problem
from sinks.ledger.tokens import Token


def _token(*tenants: str) -> Token:
    return Token("id", "name", "viewer", tenants, "me", datetime(2026, 11, 24, tzinfo=UTC))


def _history(*revisions: dict[str, list[str]]) -> History:
    return History(
        [
            Revision(
                Configuration.model_validate(
                    {"customers": [{"id": name, "subjects": subjects} for name, subjects in customers.items()]}
                ),
                number * 3_600_000,
            )
            for number, customers in enumerate(revisions)
        ]
    )


def test_a_token_without_tenants_sees_all() -> None:
    history = _history({"acme": ["a"], "globex": ["b"]})
    assert scope.customers_of(_token(), history) is None
    assert scope.tenants_of(_token(), []) is None
    assert scope.tenants_of(_token(), ["x"]) == ["x"]
    scope.check_unscoped(_token())


def test_a_customer_is_seen_by_who_may_see_all_its_subjects_ever() -> None:
    history = _history({"acme": ["a", "a-eu"], "globex": ["b"]}, {"acme": ["a"], "globex": ["b"], "new": ["c"]})
    assert scope.customers_of(_token("a"), history) == frozenset()
    assert scope.customers_of(_token("a", "a-eu", "zzz"), history) == frozenset({"acme"})
    assert scope.customers_of(_token("b", "c"), history) == frozenset({"globex", "new"})
    assert scope.sees_customer(_token("b"), history, "globex")
    assert not scope.sees_customer(_token("b"), history, "acme")
    assert not scope.sees_customer(_token("b"), history, "unknown")


def test_other_tenants_are_refused() -> None:
    assert scope.tenants_of(_token("a", "b"), []) == ["a", "b"]
    assert scope.tenants_of(_token("a", "b"), ["b"]) == ["b"]
    with pytest.raises(Problem, match="may not see the tenant 'c'"):
        scope.tenants_of(_token("a", "b"), ["b", "c"])
    with pytest.raises(Problem, match="concerns all"):
        scope.check_unscoped(_token("a"))
