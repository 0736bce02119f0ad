from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.posting_rules import DEFAULTS
from config.revision import History, Revision
from core.errors import InvariantViolation
from operators.document import NOT_POSTED_ZERO, Document, documents
from operators.document_lines import _KINDS
from operators.posting_rules import Roles, roles
from tests.operators.rate_support import Driver, Use, contract, customer, facts, revision, version
from tests.operators.test_rate_properties import CHARGES, END, MONTH, seal_all, uses

PER_TOKEN = {"id": "in", "meter": "tokens", "model": "per_unit", "unit_amount": "0.004", "unit": "token"}


def documents_of(history: History, *some: Use, end: int = 3 * 1440) -> list[Document]:
    driver = Driver(history)
    driver.send(facts(list(some)), end)
    return documents(driver.rows(), history)


def one_price(currency: str = "USD", **fields: Any) -> History:
    return History([revision([version(PER_TOKEN | fields, currency=currency)])])


def test_cents_come_from_the_rounded_cumulative() -> None:
    # 0.004 then 0.008: the first line is 0.00, the second 0.01; two roundings of 0.004 would lose it.
    first, second = documents_of(one_price(), Use(0, 0, "1"), Use(60, 60, "1"))
    assert (first.total, first.status) == (Decimal("0.00"), NOT_POSTED_ZERO)
    assert [line.quantity for line in first.lines] == [1, 1]
    assert second.total == Decimal("0.01")
    line = second.lines[0]
    assert (line.cumulative_before, line.cumulative_after) == (Decimal("0.004"), Decimal("0.008"))
    assert (line.rounded_before, line.rounded_after) == (Decimal("0.00"), Decimal("0.01"))
    assert line.amount_exact == Decimal("0.004")


@pytest.mark.parametrize(("currency", "total"), [("USD", "0.13"), ("JPY", "0"), ("KWD", "0.125"), ("EUR", "0.13")])
def test_exponents_and_ties_away_from_zero(currency: str, total: str) -> None:
    (document,) = documents_of(one_price(currency, unit_amount="0.125"), Use(0, 0, "1"))
    assert str(document.total) == total


def test_a_document_is_a_balanced_journal_with_its_identity_in_the_key() -> None:
    history = one_price(unit_amount="1.25", filter={"model": "a"}, accounting={"tax_category": "saas"})
    (document,) = documents_of(history, Use(0, 0, "3", 2, dimensions='{"model":"a"}'))
    assert len(document.key) == 16
    assert set(document.key) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
    assert (document.kind, document.reason_code, document.posting_date) == ("accrual", "", "2024-01-01")
    assert document.debit_total == document.credit_total == Decimal("3.75")
    assert document.config_version == history.latest.version
    debit, credit = document.lines
    assert (debit.side, debit.account_role) == ("debit", "unbilled_receivable")
    assert (credit.side, credit.account_role) == ("credit", "usage_revenue")
    assert (debit.unit, debit.events, debit.dimensions) == ("token", 2, {"model": "a"})
    assert (debit.tax_category, debit.service_from) == ("saas", "2024-01-01T00:00:00Z")
    assert debit.service_to == "2024-01-01T01:00:00Z"


def test_a_credit_swaps_the_sides() -> None:
    _, document = documents_of(one_price(unit_amount="1"), Use(0, 0, "3"), Use(0, 70, "-2", -1))
    assert document.total == Decimal("-2.00")
    assert [(line.kind, line.account_role, line.side, line.amount) for line in document.lines] == [
        ("void", "usage_revenue", "debit", Decimal("2.00")),
        ("void", "unbilled_receivable", "credit", Decimal("2.00")),
    ]


def test_late_usage_is_a_correction_only_after_the_cutoff() -> None:
    late, closed = MONTH + 1440, MONTH + 6 * 1440
    found = documents_of(one_price(unit_amount="1"), Use(0, 0, "1"), Use(0, late, "1"), Use(0, closed, "1"), end=END)
    assert [(one.kind, one.accounting_period, one.original_period) for one in found] == [
        ("accrual", "2024-01", "2024-01"),
        ("accrual", "2024-01", "2024-01"),
        ("correction", "2024-02", "2024-01"),
    ]
    assert [one.reason_code for one in found] == ["", "", "late_usage"]
    assert [one.posting_date for one in found] == ["2024-01-01", "2024-01-31", "2024-02-07"]


def test_consecutive_late_hours_are_one_line() -> None:
    (document,) = documents_of(one_price(unit_amount="1"), *(Use(hour * 60, 600, "1") for hour in range(5)))
    debit = document.lines[0]
    assert (debit.kind, debit.amount, debit.quantity) == ("late_usage", Decimal("5.00"), Decimal(5))
    assert (debit.service_from, debit.service_to) == ("2024-01-01T00:00:00Z", "2024-01-01T05:00:00Z")
    assert len(document.lines) == 2


def test_unrated_and_provisional_rows_make_no_document() -> None:
    history = one_price()
    driver = Driver(history)
    driver.send(facts([Use(0, 0, "1", tenant="nobody")]), 100)
    driver.send(facts([Use(100, 100, "1000")], sealed=0), 110)
    assert not driver.rows("unrated").is_empty()
    assert not driver.rows("provisional").is_empty()
    assert documents(driver.rows("provisional", "unrated"), history) == []


def test_a_contract_asset_takes_the_place_of_unbilled() -> None:
    held = customer(contracts=[contract(unbilled_kind="contract_asset")])
    history = History([revision([version(PER_TOKEN | {"unit_amount": "1"})], [held])])
    (document,) = documents_of(history, Use(0, 0, "1"))
    assert document.lines[0].account_role == "contract_asset"


def test_no_rule_credits_anything_but_one_kind_of_revenue() -> None:
    plain = Roles("unbilled_receivable", "contract_asset")
    assert roles("fee", plain) == ("unbilled_receivable", "subscription_revenue")
    charge = Roles("contract_asset", "contract_asset", "subscription_revenue")
    assert roles("usage", charge) == ("contract_asset", "subscription_revenue")
    assert roles("true_up", charge) == ("contract_asset", "shortfall_revenue")
    assert set(_KINDS) <= set(DEFAULTS)
    with pytest.raises(InvariantViolation, match="no posting rule"):
        roles("surprise", plain)


ACCOUNTS = {role: role for role in ("unbilled_receivable", "contract_asset", "usage_revenue", "late_revenue")}


def ruled(known_from_hour: int = 0, **rules: Any) -> Revision:
    entity = {"accounts": ACCOUNTS, "posting_rules": rules}
    known_from_ms = 1_704_067_200_000 + known_from_hour * 3_600_000 if known_from_hour else 0
    return revision([version(PER_TOKEN | {"unit_amount": "1"})], known_from_ms=known_from_ms, entity=entity)


def booked(found: list[Document]) -> list[list[tuple[str, str, str, str]]]:
    return [[(one.kind, one.side, one.account_role, one.text) for one in document.lines] for document in found]


def test_an_entity_books_by_rules_of_its_own_and_by_their_text() -> None:
    rules: dict[str, Any] = {
        "usage": {"debit": "contract_asset"},
        "late_usage": {"credit": "late_revenue", "text": "used before the month was closed"},
    }
    found = documents_of(History([ruled(**rules)]), Use(0, 0, "1"), Use(0, 70, "2"))
    assert booked(found) == [
        [("usage", "debit", "contract_asset", ""), ("usage", "credit", "usage_revenue", "")],
        [
            ("late_usage", "debit", "contract_asset", "used before the month was closed"),
            ("late_usage", "credit", "late_revenue", "used before the month was closed"),
        ],
    ]
    # A line without a text is written as it was before rules had any: digests of stored documents stay.
    assert [["text" in line for line in orjson.loads(one.to_json())["lines"]] for one in found] == [
        [False] * 2,
        [True] * 2,
    ]
    assert [Document.from_json(one.to_json()) for one in found] == found


def test_new_rules_hold_from_their_revision_on_and_change_no_document_made_before() -> None:
    uses_ = (Use(0, 0, "1"), Use(120, 120, "1"))
    before, after = ruled(), ruled(known_from_hour=2, usage={"credit": "late_revenue", "text": "new"})
    old, new = documents_of(History([before]), *uses_), documents_of(History([before, after]), *uses_)
    assert [one.config_version for one in new] == [before.version, after.version]
    assert new[0].to_json() == old[0].to_json()
    assert new[1].key == old[1].key
    assert [line.account_role for line in new[1].lines] == ["unbilled_receivable", "late_revenue"]


def test_json_is_canonical_and_reads_back() -> None:
    (document,) = documents_of(one_price(), Use(0, 0, "1000"))
    text = document.to_json()
    plain = orjson.loads(text)
    assert orjson.dumps(plain, option=orjson.OPT_SORT_KEYS) == text
    assert plain["total"] == "4.00"
    again = Document.from_json(text)
    assert again == document
    assert again.to_json() == text
    assert again.digest == document.digest


@given(some=uses(), currency=st.sampled_from(["USD", "JPY", "KWD"]))
@settings(max_examples=20, deadline=None)
def test_documents_add_up_to_the_rounded_total_per_charge_and_period(some: list[Use], currency: str) -> None:
    history = History(
        [revision([version(*CHARGES, currency=currency)], rules={"books_open_at": "2024-01-01T00:00:00Z"})]
    )
    driver = Driver(history)
    seal_all(driver, facts(some), END)
    rows = driver.rows()
    found = documents(rows, history)
    places = {"USD": 2, "JPY": 0, "KWD": 3}[currency]
    sums: dict[tuple[str, str], Decimal] = {}
    for document in found:
        assert document.debit_total == document.credit_total
        for line in document.lines:
            if line.account_role == "unbilled_receivable":
                signed = line.amount if line.side == "debit" else -line.amount
                sums[line.charge, line.period_start] = sums.get((line.charge, line.period_start), Decimal(0)) + signed
    exact: dict[tuple[str, str], Decimal] = {}
    for row in rows.filter(status="sealed").iter_rows(named=True):
        start = "2024-01-01" if row["period_start_us"] // 60_000_000 < 28_401_120 + MONTH else "2024-02-01"
        if row["period_start_us"] // 60_000_000 >= 28_401_120 + 60 * 1440:
            start = "2024-03-01"
        key = (row["charge"], f"{start}T00:00:00Z")
        exact[key] = exact.get(key, Decimal(0)) + row["amount"]
    rounded = {key: value.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_UP) for key, value in exact.items()}
    assert {key: value for key, value in sums.items() if value} == {k: v for k, v in rounded.items() if v}
    assert len({document.key for document in found}) == len(found)
    # Whatever rows come together: hour by hour gives the same documents.
    by_hour = [
        one
        for hour in sorted(rows["booked_hour"].unique())
        for one in documents(rows.filter(booked_hour=hour), history)
    ]
    assert sorted(one.digest for one in by_hour) == sorted(one.digest for one in found)
