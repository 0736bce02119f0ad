"""Commitments by examples; the figures in the comments were worked out by hand."""

from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from config.customers import Commitment
from config.revision import History
from operators.document import Document, documents
from tests.operators.rate_support import HOUR0, Driver, Use, contract, customer, facts, minute, revision, short, version

DAY = 1440
JANUARY = 31 * DAY
IN = {"id": "in", "meter": "tokens", "model": "per_unit", "unit_amount": "0.5"}
CALLS = {"id": "calls", "meter": "calls", "model": "per_unit", "unit_amount": "1"}
PREPAID = {"id": "paid", "type": "prepaid", "amount": "100", "period": "P1M"}
POSTPAID = {"id": "least", "type": "postpaid", "amount": "100", "period": "P1M"}
RULES = {"books_open_at": "2024-01-01T00:00:00Z"}


def agreed(*commitments: dict[str, Any], charges: Any = (IN, CALLS), **fields: Any) -> History:
    held = customer(contracts=[contract(commitments=list(commitments), **fields)])
    return History([revision([version(*charges)], [held], rules=RULES)])


def run(history: History, *uses: Use, end: int = 3 * DAY) -> Driver:
    driver = Driver(history)
    driver.send(facts(list(uses)), end)
    return driver


def rows(driver: Driver) -> list[tuple[Any, ...]]:
    return [(row[0], row[1], row[3], row[5]) for row in short(driver.rows())]


def entries(found: list[Document]) -> list[tuple[str, str, str, Decimal]]:
    """Return (kind, debit role, credit role, amount) of every entry."""
    lines = [line for document in found for line in document.lines]
    pairs = zip(lines[::2], lines[1::2], strict=True)
    return [(one.kind, one.account_role, other.account_role, one.amount) for one, other in pairs]


def test_a_prepaid_balance_is_drawn_first_and_the_rest_is_billed() -> None:
    # 150 x 0.5 = 75 leave 25; 60 x 0.5 = 30: 25 of them are covered, 5 are billed.
    history = agreed(PREPAID)
    driver = run(history, Use(0, 0, "150"), Use(60, 60, "60"))
    assert rows(driver) == [
        ("in", 0, "usage", 0),
        ("in", 0, "drawdown", 75),
        ("in", 1, "usage", 5),
        ("in", 1, "drawdown", 25),
    ]
    # The usage rows keep what the charge comes to, whoever pays for it.
    positions = driver.rows().filter(line_kind="usage").select("amount_before", "amount_after").rows()
    assert positions == [(0, 75), (75, 105)]
    found = documents(driver.rows(), history)
    assert entries(found) == [
        ("usage", "unbilled_receivable", "usage_revenue", Decimal("0.00")),
        ("drawdown", "contract_liability", "usage_revenue", Decimal("75.00")),
        ("usage", "unbilled_receivable", "usage_revenue", Decimal("5.00")),
        ("drawdown", "contract_liability", "usage_revenue", Decimal("25.00")),
    ]
    assert [one.total for one in found] == [Decimal("75.00"), Decimal("30.00")]


def test_a_void_gives_the_balance_back() -> None:
    driver = run(agreed(PREPAID), Use(0, 0, "300"), Use(0, 70, "-120", -1))
    # 300 x 0.5 = 150: 100 covered, 50 billed. 120 less are 60 less: the 50 are not billed, and 10 go back.
    assert rows(driver) == [
        ("in", 0, "usage", 50),
        ("in", 0, "drawdown", 100),
        ("in", 0, "late_usage", 0),
        ("in", 0, "void", -50),
        ("in", 0, "drawdown", -10),
    ]


def test_a_tie_of_half_a_cent_is_drawn_whole_and_given_back_whole() -> None:
    charge = IN | {"unit_amount": "0.005"}
    history = agreed(PREPAID, charges=(charge,))
    driver = run(history, Use(0, 0, "1"), Use(0, 70, "-1", -1))
    # 0.005 is 0.01 in cents: the document takes 0.01 from the balance and bills nothing; the void undoes it.
    found = documents(driver.rows(), history)
    assert [(kind, amount) for kind, _, _, amount in entries(found)] == [
        ("usage", Decimal("0.00")),
        ("drawdown", Decimal("0.01")),
        ("void", Decimal("0.00")),
        ("drawdown", Decimal("0.01")),
    ]
    assert [one.total for one in found] == [Decimal("0.01"), Decimal("-0.01")]


def test_what_nobody_drew_is_forfeited_at_the_periods_end_and_late_usage_still_draws() -> None:
    history = agreed(PREPAID)
    late = JANUARY + 10 * 60
    driver = run(history, Use(0, 0, "150"), Use(5, late, "20"), end=JANUARY + 12 * 60)
    # 100 - 75 = 25 are left; the late 10 are drawn after all, so 10 less are forfeited.
    assert rows(driver)[2:] == [
        ("commitment:paid", 743, "breakage", 25),
        ("in", 0, "late_usage", 0),
        ("in", 0, "drawdown", 10),
        ("commitment:paid", 743, "breakage", -10),
    ]
    found = entries(documents(driver.rows(), history))
    assert found[2] == ("breakage", "contract_liability", "usage_revenue", Decimal("25.00"))
    assert ("breakage", "usage_revenue", "contract_liability", Decimal("10.00")) in found


def test_what_is_forfeited_has_an_account_of_its_own_where_the_entity_has_one() -> None:
    accounts = {"unbilled_receivable": "1150", "contract_liability": "2400", "shortfall_revenue": "4003"}
    held = customer(contracts=[contract(commitments=[PREPAID])])
    history = History([revision([version(IN)], [held], rules=RULES, entity={"accounts": accounts})])
    driver = run(history, end=JANUARY + 180)
    found = entries(documents(driver.rows(), history))
    assert found == [("breakage", "contract_liability", "shortfall_revenue", Decimal("100.00"))]


def test_a_balance_expires_for_usage_from_then_on() -> None:
    driver = run(agreed(PREPAID | {"expires": "2024-01-02T00:00:00Z"}), Use(0, 0, "20"), Use(DAY, DAY, "20"))
    # The 90 that are left expire at hour 24; with the grace that is booked in hour 25.
    assert short(driver.rows()) == [
        ("in", 0, 0, "usage", 20, 0),
        ("in", 0, 0, "drawdown", 0, 10),
        ("in", 24, 24, "usage", 20, 10),
        ("commitment:paid", 23, 25, "breakage", 0, 90),
    ]


def test_the_lower_priority_number_is_drawn_first() -> None:
    first = PREPAID | {"id": "zz", "amount": "10", "priority": -1, "applies_to": ["in"]}
    driver = run(agreed(PREPAID, first), Use(0, 0, "30"), Use(0, 0, "8", 8, "calls"), end=JANUARY + 180)
    # 15 of tokens: 10 from `zz`, 5 from `paid`; 8 of calls from `paid`, which has 100 - 5 - 8 = 87 left.
    assert sorted(rows(driver)) == [
        ("calls", 0, "drawdown", 8),
        ("calls", 0, "usage", 0),
        ("commitment:paid", 743, "breakage", 87),
        ("in", 0, "drawdown", 15),
        ("in", 0, "usage", 0),
    ]


def test_a_postpaid_shortfall_is_due_once_and_shrinks_by_late_usage() -> None:
    least = IN | {"minimum": "30"}
    history = agreed(POSTPAID | {"applies_to": ["in"]}, charges=(least, CALLS))
    driver = run(history, Use(0, 0, "20"), Use(0, 0, "50", 50, "calls"), end=JANUARY + 300)
    driver.restart()
    late = JANUARY + 10 * 60
    driver.send(facts([Use(5, late, "60")]), late + 300)
    # 10 of usage and 20 to the charge's own minimum: 30 count, calls do not; 70 are missing. 30 more of usage: 40 of
    # usage in all, so the minimum asks for nothing and 60 are missing.
    assert rows(driver) == [
        ("calls", 0, "usage", 50),
        ("in", 0, "usage", 10),
        ("in", 743, "true_up", 20),
        ("commitment:least", 743, "true_up", 70),
        ("in", 0, "late_usage", 30),
        ("in", 743, "true_up", -20),
        ("commitment:least", 743, "true_up", -10),
    ]
    assert {row[2] for row in short(driver.rows())} == {0, 745, 754}
    found = entries(documents(driver.rows(), history))
    assert ("true_up", "unbilled_receivable", "shortfall_revenue", Decimal("70.00")) in found
    assert ("true_up", "shortfall_revenue", "unbilled_receivable", Decimal("10.00")) in found


@pytest.mark.parametrize(
    ("fields", "back"),
    [
        # 80 promised in place of 100
        ({"commitments": [POSTPAID | {"amount": "80"}]}, -20),
        # 100 x 12 / 31 = 38.71 for the days up to a new end: 61.29 back
        ({"commitments": [POSTPAID], "to": "2024-01-13T00:00:00Z"}, Decimal("-61.29")),
    ],
)
def test_what_a_revision_changes_of_a_commitment_is_booked_at_once(fields: dict[str, Any], back: Decimal) -> None:
    known_from_ms = (HOUR0 + (JANUARY + 10 * DAY) // 60) * 3_600_000
    after = revision([version(IN, CALLS)], [customer(contracts=[contract(**fields)])], known_from_ms, rules=RULES)
    driver = run(History([*agreed(POSTPAID).revisions, after]), end=JANUARY + 12 * DAY)
    assert rows(driver) == [("commitment:least", 743, "true_up", 100), ("commitment:least", 743, "true_up", back)]
    driver.restart()
    driver.send(facts([]), JANUARY + 20 * DAY)
    assert len(driver.rows()) == 2


def test_a_postpaid_commitment_is_due_without_any_usage() -> None:
    driver = run(agreed(POSTPAID), end=JANUARY + 180)
    assert short(driver.rows()) == [("commitment:least", 743, 745, "true_up", 0, 100)]


def test_a_year_that_the_contract_cuts_short_counts_by_days() -> None:
    # 2024 has 366 days, the contract holds for 60 of them: 366 x 60 / 366 = 60.
    yearly = POSTPAID | {"amount": "366", "period": "P1Y"}
    driver = run(agreed(yearly, to="2024-03-01T00:00:00Z"), end=61 * DAY + 180)
    assert rows(driver) == [("commitment:least", 60 * 24 - 1, "true_up", 60)]


def test_a_commitments_periods_begin_with_the_contract_not_with_the_month() -> None:
    starts = {"from": "2024-01-15T08:00:00Z"}
    border = minute("2024-02-15T00:00:00+00:00")
    driver = run(agreed(POSTPAID, **starts), Use(20 * DAY, 20 * DAY, "40"), Use(border, border, "60"), end=border + 180)
    # Until 15 February 20 of 100 were used; what comes from then on counts for the next period.
    assert rows(driver)[-1] == ("commitment:least", border // 60 - 1, "true_up", 80)


def test_a_ratable_shortfall_is_revenue_day_by_day_and_due_at_the_end() -> None:
    history = agreed(POSTPAID | {"amount": "310", "recognition": "ratable"})
    driver = run(history, Use(0, 0, "24"), Use(DAY, DAY, "16"), end=3 * DAY)
    # After one day 10 are promised and 12 used; after two 20 are promised and 20 used; after three 30 are promised.
    recognised = driver.rows().filter(line_kind="recognition")
    assert recognised.select("usage_hour", "amount", "revenue_amount").rows() == []
    driver.send(facts([]), 4 * DAY)
    recognised = driver.rows().filter(line_kind="recognition")
    assert recognised.select("usage_hour", "amount", "revenue_amount").rows() == [(HOUR0 + 71, 0, 10)]
    driver.send(facts([]), JANUARY + 180)
    # 310 - 20 = 290 are due at the end, all of it revenue by then: the last day's row brought it.
    last = driver.rows().tail(1)
    assert last.select("line_kind", "amount", "revenue_amount").rows() == [("true_up", 290, 0)]
    assert driver.rows().filter(charge="commitment:least")["revenue_amount"].sum() == 290


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"period": "1Y"}, "pattern"),
        ({"period": "P0M"}, "pattern"),
        ({"amount": "-1"}, "greater than or equal"),
        ({"type": "postpaid", "expires": "2025-01-01T00:00:00Z"}, "only a prepaid"),
        ({"recognition": "ratable"}, "as it is drawn down"),
    ],
)
def test_what_a_commitment_may_not_say(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Commitment.model_validate(PREPAID | fields)
