"""Posting rules: the defaults, what follows what, and which sets of rules are refused, against a naive oracle."""

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from config.account_roles import ROLES
from config.checks import check
from config.entities import Entity
from config.posting_rules import ACCRUALS, DEFAULTS, PREPAID, Rule, rules_of
from config.revision import Configuration
from config.schema import json_schema

ACCOUNTS: Final = {role: str(1000 + number) for number, role in enumerate((*ROLES, "late_revenue"))}
ACCRUED = ("usage", "late_usage", "void", "tier_repricing", "price_change", "fee", "true_up")


def entity(rules: dict[str, Any], accounts: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "id": "E",
        "functional_currency": "USD",
        "accounts": ACCOUNTS if accounts is None else accounts,
        "posting_rules": rules,
        "erp": {"company": "E"},
    }


def findings(rules: dict[str, Any], accounts: dict[str, str] | None = None) -> list[tuple[str, str]]:
    found = check(Configuration.model_validate({"entities": [entity(rules, accounts)]}))
    places = (".".join(map(str, one.location[2:])).removeprefix("posting_rules.") for one in found)
    return [(place, f"{one.message}. {one.hint}") for place, one in zip(places, found, strict=True)]


def test_the_defaults_are_those_of_the_design() -> None:
    assert {kind: (rule.debit, rule.credit) for kind, rule in DEFAULTS.items()} == {
        "usage": ("unbilled_receivable", "usage_revenue"),
        "late_usage": ("unbilled_receivable", "usage_revenue"),
        "void": ("unbilled_receivable", "usage_revenue"),
        "tier_repricing": ("unbilled_receivable", "usage_revenue"),
        "price_change": ("unbilled_receivable", "usage_revenue"),
        "fee": ("unbilled_receivable", "subscription_revenue"),
        "true_up": ("unbilled_receivable", "shortfall_revenue"),
        "drawdown": ("contract_liability", "usage_revenue"),
        "breakage": ("contract_liability", "shortfall_revenue"),
        "recognition": ("contract_asset", "usage_revenue"),
        "deferral": ("unbilled_receivable", "contract_liability"),
        "invoice": ("accounts_receivable", "unbilled_receivable"),
    }
    assert rules_of({}) == rules_of(Entity.model_validate(entity({"fee": {}})).posting_rules) == DEFAULTS
    assert findings({}) == []


def test_what_books_the_same_usage_follows_it() -> None:
    changed = Entity.model_validate(
        entity({"usage": {"debit": "contract_asset", "credit": "late_revenue"}, "void": {"credit": "usage_revenue"}})
    )
    rules = rules_of(changed.posting_rules)
    assert rules["late_usage"] == rules["price_change"] == Rule("contract_asset", "late_revenue")
    assert rules["void"] == Rule("contract_asset", "usage_revenue")
    assert rules["fee"] == Rule("contract_asset", "subscription_revenue")
    assert rules["drawdown"] == Rule("contract_liability", "late_revenue")
    assert rules["deferral"] == Rule("contract_asset", "contract_liability")
    assert rules["invoice"] == Rule("accounts_receivable", "contract_asset")
    assert findings({"usage": {"debit": "contract_asset", "credit": "late_revenue"}}) == []


@pytest.mark.parametrize(
    ("rules", "place", "text"),
    [
        ({"invoice": {"credit": "usage_revenue"}}, "invoice", "revenue is credited twice for the same usage"),
        ({"deferral": {"credit": "usage_revenue"}}, "deferral", "revenue is credited twice for the same usage"),
        ({"recognition": {"debit": "usage_revenue", "credit": "late_revenue"}}, "recognition", "credited twice"),
        ({"drawdown": {"debit": "usage_revenue", "credit": "late_revenue"}}, "drawdown", "takes revenue back"),
        ({"usage": {"credit": "contract_liability"}}, "usage", "debits and credits the same role"),
        ({"fee": {"credit": "contract_liability"}}, "fee", "the usage is never revenue"),
        ({"true_up": {"credit": "tax_payable"}}, "true_up", "the usage is never revenue"),
        ({"usage": {"debit": "accounts_receivable"}}, "usage", "debits and credits the same role"),
        (
            {"usage": {"debit": "accounts_receivable"}, "invoice": {"credit": "unbilled_receivable"}},
            "usage",
            "accounts_receivable is asked for twice: `usage` debits accounts_receivable and credits usage_revenue",
        ),
        (
            {"void": {"debit": "contract_asset"}},
            "void",
            "contract_asset is never cleared: `void` debits contract_asset and credits usage_revenue; `invoice` debits",
        ),
        ({"deferral": {"debit": "contract_asset"}}, "deferral", "contract_asset is never cleared"),
        ({"invoice": {"credit": "contract_asset"}}, "invoice", "is never cleared"),
        ({"invoice": {"debit": "contract_asset"}}, "invoice", "contract_asset is never cleared"),
        ({"drawdown": {"debit": "unbilled_receivable"}}, "drawdown", "is never cleared"),
        ({"invoice": {"credit": "tax_payable"}}, "invoice", "never cleared"),
        ({"usage": {"debit": "tax_payable"}}, "usage", "stands on unbilled_receivable or contract_asset"),
        ({"deferral": {"credit": "tax_payable"}}, "deferral", "stands on contract_liability, not tax_payable"),
        ({"recognition": {"debit": "contract_liability"}}, "recognition", "ahead of what is billable"),
        ({"fee": {"debit": "subscription_revenue"}}, "fee", "debits and credits the same role"),
        ({"breakage": {"credit": "expired_revenue"}}, "breakage.credit", "has no account for expired_revenue"),
    ],
)
def test_a_set_of_rules_that_loses_or_doubles_an_amount_is_refused(
    rules: dict[str, Any], place: str, text: str
) -> None:
    found = findings(rules)
    assert text in dict(found)[place]


def test_one_cause_is_told_once() -> None:
    assert len(findings({"invoice": {"credit": "usage_revenue"}})) == 1
    # The invoice is to blame, not what else was changed on the same routes.
    both = findings({"invoice": {"credit": "usage_revenue"}, "true_up": {"credit": "late_revenue"}})
    assert [place for place, _ in both] == ["invoice"]
    two = findings({"void": {"debit": "contract_asset"}, "deferral": {"debit": "contract_asset"}})
    assert sorted(place for place, _ in two) == ["deferral", "void"]


@pytest.mark.parametrize(
    ("plain", "text"),
    [
        (entity({"usages": {}}), "Input should be 'usage', 'late_usage'"),
        (entity({"usage": {"credit": "sales"}}), "unknown account role: use one of"),
        (entity({"usage": {"credit": "deferred_revenue"}}), "its role is contract_liability"),
        (entity({"usage": {"credit": "Own_revenue"}}), "unknown account role"),
        (entity({"usage": {"text": "two\nlines"}}), "pattern"),
        (entity({"usage": {"amount": "1"}}), "Extra inputs"),
        (entity({}, {"cash": "1000"}), "unknown account role"),
        (entity({}, {"unbilled_revenue": "1000"}), "its role is unbilled_receivable or contract_asset"),
    ],
)
def test_unknown_kinds_roles_and_fields_are_refused(plain: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        Entity.model_validate(plain)


def test_an_own_revenue_account_may_not_be_on_the_balance_sheet() -> None:
    assert findings({}, ACCOUNTS | {"contract_asset": ACCOUNTS["late_revenue"]})[0][0] == "accounts.contract_asset"


def test_the_schema_knows_kinds_and_roles() -> None:
    entity_schema = json_schema()["$defs"]["Entity"]["properties"]["posting_rules"]
    assert set(entity_schema["propertyNames"]["enum"]) == set(DEFAULTS)


SIDES = st.sampled_from([None, *ROLES, "late_revenue"])
KINDS = st.sampled_from(sorted(DEFAULTS))


def _sound(rules: dict[str, Rule] | Any) -> bool:
    """Tell by a closed form, route by route on paper, whether every amount is revenue once and cleared."""
    unbilled = rules["usage"].debit
    revenue = (*ACCRUED, "drawdown", "breakage", "recognition")
    return (
        unbilled in ("unbilled_receivable", "contract_asset")
        and all(rules[kind].debit == unbilled for kind in ACCRUED)
        and all(rules[kind].credit.endswith("_revenue") for kind in revenue)
        and rules["invoice"] == Rule("accounts_receivable", unbilled)
        and rules["deferral"] == Rule(unbilled, "contract_liability")
        and rules["recognition"].debit in ("unbilled_receivable", "contract_asset")
        and all(rules[kind].debit == "contract_liability" for kind in ("drawdown", "breakage"))
    )


@given(st.dictionaries(KINDS, st.fixed_dictionaries({"debit": SIDES, "credit": SIDES}), max_size=3))
def test_a_set_is_refused_if_and_only_if_it_is_unsound(rules: dict[str, dict[str, str | None]]) -> None:
    assert (ACCRUALS, PREPAID) == (ACCRUED, ("drawdown", "breakage"))
    made = Entity.model_validate(entity(rules))
    assert bool(findings(rules)) is not _sound(rules_of(made.posting_rules))


@given(
    st.sampled_from([*ACCRUED, "drawdown", "breakage"]), st.sampled_from(ROLES), st.sampled_from(["debit", "credit"])
)
def test_no_single_change_is_refused_without_naming_its_kind(kind: str, role: str, side: str) -> None:
    assert all(place.split(".")[0] == kind for place, _ in findings({kind: {side: role}}))
