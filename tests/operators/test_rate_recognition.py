"""Ratable recognition by examples; the figures in the comments were worked out by hand."""

from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.account_roles import CONTRACT_LIABILITY
from config.posting_rules import PostingRule, rules_of
from config.revision import History
from operators.document import Document, documents
from operators.posting_rules import RECOGNITION, Roles, entries
from tests.operators.rate_support import HOUR0, Driver, Use, contract, customer, facts, minute, revision, version

DAY = 1440
JANUARY = 31 * DAY
FEE = {"id": "fee", "model": "flat", "amount": "31"}
SEATS = {
    "id": "seats",
    "meter": "level",
    "model": "per_unit",
    "unit_amount": "31",
    "accounting": {"recognition": "ratable", "revenue_role": "subscription_revenue"},
}
RULES = {"books_open_at": "2024-01-01T00:00:00Z"}
ACCOUNTS = {
    "accounts": {"unbilled_receivable": "1150", "contract_asset": "1160", "contract_liability": "2400"},
}


def agreed(*charges: dict[str, Any], entity: dict[str, Any] | None = None, **fields: Any) -> History:
    held = customer(contracts=[contract(**fields)])
    return History([revision([version(*charges)], [held], rules=RULES, entity=ACCOUNTS | (entity or {}))])


def run(history: History, *uses: Use, end: int) -> Driver:
    driver = Driver(history)
    driver.send(facts(list(uses)), end)
    return driver


def moved(driver: Driver) -> list[tuple[Any, ...]]:
    """Return (usage hour, kind, amount, revenue), hours from the first one."""
    columns = ("usage_hour", "line_kind", "amount", "revenue_amount")
    return [(hour - HOUR0, *rest) for hour, *rest in driver.rows("sealed").select(columns).iter_rows()]


def balances(found: list[Document]) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = {}
    for document in found:
        assert document.debit_total == document.credit_total
        for line in document.lines:
            signed = line.amount if line.side == "debit" else -line.amount
            sums[line.account_role] = sums.get(line.account_role, Decimal(0)) + signed
    return {role: amount for role, amount in sums.items() if amount}


def test_a_flat_fee_is_revenue_day_by_day_and_billable_at_the_periods_end() -> None:
    history = agreed(FEE)
    driver = run(history, end=2 * DAY + 120)
    assert moved(driver) == [(23, "recognition", 0, 1), (47, "recognition", 0, 1)]
    assert balances(documents(driver.rows(), history)) == {"contract_asset": 2, "subscription_revenue": -2}
    driver.restart()
    driver.send(facts([]), JANUARY + 180)
    assert moved(driver)[-1] == (743, "fee", 31, 0)
    assert len(moved(driver)) == 32
    found = documents(driver.rows(), history)
    assert balances(found) == {"unbilled_receivable": 31, "subscription_revenue": -31}
    assert [(line.kind, line.account_role, line.amount) for line in found[-1].lines] == [
        ("fee", "unbilled_receivable", Decimal("31.00")),
        ("recognition", "contract_asset", Decimal("31.00")),
    ]
    assert sum(document.total for document in found) == 31


def test_revenue_of_days_behind_a_contracts_new_end_goes_back() -> None:
    known_from_ms = (HOUR0 + 62 * 24) * 3_600_000
    ended = [customer(contracts=[contract(to="2024-01-11T00:00:00Z")])]
    after = revision([version(FEE)], ended, known_from_ms, rules=RULES, entity=ACCOUNTS)
    driver = run(History([*agreed(FEE).revisions, after]), end=64 * DAY)
    by_month = driver.rows().group_by("period_start_us").agg(pl.col("amount", "revenue_amount").sum())
    # January has 10 of its 31 days left, February was billed and recognised, and two days of March were revenue.
    assert by_month.sort("period_start_us").select("amount", "revenue_amount").rows() == [(10, 10), (0, 0), (0, 0)]


def test_fees_of_periods_before_a_contracts_new_start_go_back() -> None:
    known_from_ms = (HOUR0 + 62 * 24) * 3_600_000
    begun = [customer(contracts=[contract(**{"from": "2024-02-15T00:00:00Z"})])]
    after = revision([version(FEE)], begun, known_from_ms, rules=RULES, entity=ACCOUNTS)
    driver = run(History([*agreed(FEE).revisions, after]), end=62 * DAY + 120)
    by_month = driver.rows().group_by("period_start_us").agg(pl.col("amount", "revenue_amount").sum())
    # 31 x 15 / 29 of February are left, and two days of March are revenue that is not billable yet.
    left = Decimal("16.034482758621")
    assert by_month.sort("period_start_us").select("amount", "revenue_amount").rows() == [(0, 0), (left, left), (0, 2)]


def test_without_an_account_for_contract_assets_the_receivable_takes_their_place() -> None:
    history = agreed(FEE, entity={"accounts": {"unbilled_receivable": "1150"}})
    driver = run(history, end=JANUARY + 180)
    found = documents(driver.rows(), history)
    assert balances(found[:5]) == {"unbilled_receivable": 5, "subscription_revenue": -5}
    assert balances(found) == {"unbilled_receivable": 31, "subscription_revenue": -31}


def test_seats_are_billable_at_once_and_revenue_by_the_time_that_passed() -> None:
    history = agreed(SEATS)
    day_16 = 15 * DAY
    driver = run(history, Use(day_16, day_16, "2", meter="level"), end=day_16 + 120)
    # 62 are billable. Of 744 hours 361 are over when hour 360 is: 62 x 361 / 744.
    assert moved(driver) == [(360, "usage", 62, Decimal("30.083333333333"))]
    found = documents(driver.rows(), history)
    assert balances(found) == {
        "unbilled_receivable": 62,
        "subscription_revenue": Decimal("-30.08"),
        "contract_liability": Decimal("-31.92"),
    }
    driver.send(facts([]), day_16 + DAY + 120)
    # One day is 2 of 62; 22 hours and 59 minutes more bring the row at midnight: 62 x 384 / 744 = 32.
    assert moved(driver)[1:] == [(383, "recognition", 0, Decimal("1.916666666667"))]
    driver.send(facts([]), JANUARY + 180)
    assert balances(documents(driver.rows(), history)) == {"unbilled_receivable": 62, "subscription_revenue": -62}


def test_a_year_is_recognised_in_its_own_months() -> None:
    yearly = {"unit": "year", "count": 1, "anchor": "2024-01-01"}
    driver = run(agreed(FEE | {"amount": "366"}, billing_period=yearly), end=366 * DAY + 180)
    months = driver.rows().group_by("accounting_period").agg("revenue_amount").sort("accounting_period")
    # One a day, whatever the month; billable at the end of December.
    assert [sum(values) for values in months["revenue_amount"]] == [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    billed = driver.rows().filter(line_kind="fee")
    assert billed.select("accounting_period", "amount").rows() == [("2024-12", 366)]


def test_late_usage_of_an_open_earlier_month_takes_revenue_up_to_that_months_end() -> None:
    yearly = {"unit": "year", "count": 1, "anchor": "2024-01-01"}
    seats = SEATS | {"unit_amount": "366"}
    booked = JANUARY + 2 * DAY
    driver = run(
        agreed(seats, billing_period=yearly),
        Use(0, 0, "1", meter="level"),
        Use(60, booked, "2", meter="level"),
        end=booked + 120,
    )
    late = driver.rows().filter(usage_hour=HOUR0 + 1)
    # One more seat: 366 billable, of which 31 days belong to January, still open on 3 February.
    assert late.select("accounting_period", "amount", "revenue_amount").rows() == [("2024-01", 366, 31)]
    rest = driver.rows().filter(booked_hour=booked // 60 + HOUR0, accounting_period="2024-02")
    # Two days of February, which the first seat had booked up to midnight, for the second one.
    assert rest.select("line_kind", "amount", "revenue_amount").rows() == [("recognition", 0, 2)]


def test_a_contract_that_begins_and_ends_within_a_month_is_recognised_over_its_own_days() -> None:
    part: dict[str, Any] = {"from": "2024-01-11T00:00:00Z", "to": "2024-01-21T00:00:00Z"}
    driver = run(agreed(FEE, **part), end=JANUARY + 180)
    # 10 of 31 days owe 10; one each day from the 11th to the 20th.
    assert moved(driver) == [((10 + day) * 24 + 23, "recognition", 0, 1) for day in range(10)] + [(743, "fee", 10, 0)]


def test_days_end_in_the_entitys_own_time_zone_and_the_period_in_its_own() -> None:
    driver = run(agreed(FEE, entity={"timezone": "America/New_York"}), end=JANUARY + 180)
    hours = driver.rows()["usage_hour"].to_list()
    assert hours[0] - HOUR0 == 4
    # New York's 31 January goes on until 5:00, the billing period does not.
    assert moved(driver)[-2:] == [(743, "recognition", 0, Decimal("0.791666666667")), (743, "fee", 31, 0)]
    assert driver.rows().tail(2)["accounting_period"].to_list() == ["2024-01", "2024-01"]


def test_a_contract_known_late_catches_up_by_month() -> None:
    known_from = HOUR0 + minute("2024-03-04T00:00:00+00:00") // 60
    before = revision([version(FEE)], [customer(contracts=[])], rules=RULES)
    after = revision([version(FEE)], [customer()], known_from * 3_600_000, rules=RULES)
    driver = Driver(History([before, after]))
    driver.send(facts([]), minute("2024-03-04T12:00:00+00:00"))
    rows = driver.rows().filter(booked_hour=known_from)
    # January's cut-off is over, February's is not; three days of March at 1 a day.
    assert rows.select("accounting_period", "original_period", "line_kind", "amount", "revenue_amount").rows() == [
        ("2024-02", "2024-01", "recognition", 0, 31),
        ("2024-02", "2024-01", "fee", 31, 0),
        ("2024-02", "2024-02", "recognition", 0, 31),
        ("2024-02", "2024-02", "fee", 31, 0),
        ("2024-03", "2024-03", "recognition", 0, 3),
    ]


def switched(first: str, then: str) -> Driver:
    """Return two seats of 16 January under one recognition and, from the 17th on, under another one."""
    seats = [SEATS | {"accounting": {"recognition": name}} for name in (first, then)]
    day_16 = 15 * DAY
    known_from = HOUR0 + 16 * 24
    before = revision([version(seats[0])], rules=RULES, entity=ACCOUNTS)
    changed = customer(
        contracts=[contract(overrides=[{"charge": "seats", "set": {"accounting": seats[1]["accounting"]}}])]
    )
    after = revision([version(seats[0])], [changed], known_from * 3_600_000, rules=RULES, entity=ACCOUNTS)
    return run(History([before, after]), Use(day_16, day_16, "2", meter="level"), end=JANUARY + 180)


def test_revenue_that_a_revision_makes_ratable_is_deferred_from_then_on() -> None:
    driver = switched("as_billable", "ratable")
    # 62 at once; by the end of the 16th 62 x 16 / 31 = 32 are earned, so 30 go back, and come again by the day.
    assert moved(driver)[:3] == [(360, "usage", 62, 62), (383, "recognition", 0, -30), (407, "recognition", 0, 2)]
    found = documents(driver.rows(), driver.history)
    assert balances(found[:2]) == {"unbilled_receivable": 62, "usage_revenue": -32, "contract_liability": -30}
    assert balances(found) == {"unbilled_receivable": 62, "usage_revenue": -62}


def test_revenue_that_a_revision_no_longer_spreads_is_booked_in_its_first_hour() -> None:
    driver = switched("ratable", "as_billable")
    # 62 x 384 / 744 = 32 up to the end of the 16th; the other 30 in hour 384.
    assert moved(driver)[2:] == [(384, "recognition", 0, 30)]
    found = documents(driver.rows(), driver.history)
    assert balances(found) == {"unbilled_receivable": 62, "usage_revenue": -62}


NOTHING = Decimal(0)
AMOUNTS = st.integers(-500, 500).map(lambda number: Decimal(number).scaleb(-2))


@given(AMOUNTS, AMOUNTS, AMOUNTS, st.sampled_from(["usage", "fee", "true_up", "recognition"]))
def test_entries_move_amount_and_revenue_and_hold_one_deferral(
    amount: Decimal, revenue: Decimal, deferred: Decimal, kind: str
) -> None:
    if kind == "recognition":
        amount = Decimal(0)
    found = entries(kind, amount, revenue, deferred, roles_of=Roles("unbilled_receivable", "contract_asset", "income"))
    sums: dict[str, Decimal] = {}
    for entry in found:
        sums[entry.debit] = sums.get(entry.debit, Decimal(0)) + entry.amount
        sums[entry.credit] = sums.get(entry.credit, Decimal(0)) - entry.amount
    assert sum(entry.amount for entry in found if entry.kind == kind and kind != RECOGNITION) == amount
    assert sums.pop("unbilled_receivable", Decimal(0)) == amount
    after = deferred + amount - revenue
    assert -sums.pop(CONTRACT_LIABILITY, Decimal(0)) == max(after, NOTHING) - max(deferred, NOTHING)
    assert sums.pop("contract_asset", Decimal(0)) == max(-after, NOTHING) - max(-deferred, NOTHING)
    assert -sum(sums.values(), Decimal(0)) == revenue


ACCRUED = ("usage", "late_usage", "void", "tier_repricing", "price_change", "fee", "true_up")
OWN = st.sampled_from([None, "usage_revenue", "late_revenue"])
UNBILLED_ROLES = ("unbilled_receivable", "contract_asset")


@given(
    unbilled=st.sampled_from(UNBILLED_ROLES),
    ahead=st.sampled_from(UNBILLED_ROLES),
    credits_=st.dictionaries(st.sampled_from([*ACCRUED, "recognition"]), OWN),
    bookings=st.lists(st.tuples(st.sampled_from(ACCRUED), AMOUNTS, AMOUNTS), max_size=6),
)
def test_by_any_sound_rules_invoiced_usage_is_cleared_and_revenue_once(
    unbilled: str, ahead: str, credits_: dict[Any, str | None], bookings: list[tuple[str, Decimal, Decimal]]
) -> None:
    rules = rules_of(
        {kind: PostingRule(credit=credit) for kind, credit in credits_.items()}
        | {"usage": PostingRule(debit=unbilled, credit=credits_.get("usage")),
           "recognition": PostingRule(debit=ahead, credit=credits_.get("recognition"))}
    )  # fmt: skip
    roles_of = Roles("unbilled_receivable", ahead, rules=rules)
    sums: dict[str, Decimal] = {}
    deferred = NOTHING
    charged = sum((amount for _, amount, _ in bookings), NOTHING)
    for kind, amount, revenue in bookings:
        for entry in entries(kind, amount, revenue, deferred, roles_of=roles_of):
            sums[entry.debit] = sums.get(entry.debit, NOTHING) + entry.amount
            sums[entry.credit] = sums.get(entry.credit, NOTHING) - entry.amount
        deferred += amount - revenue
    invoice = rules["invoice"]
    sums[invoice.debit] = sums.get(invoice.debit, NOTHING) + charged
    sums[invoice.credit] = sums.get(invoice.credit, NOTHING) - charged
    assert sums.pop("accounts_receivable") == charged
    earned = -sum((sums.pop(role) for role in list(sums) if role.endswith("_revenue")), NOTHING)
    assert earned == sum((revenue for _, _, revenue in bookings), NOTHING)
    # What is left is what is billed and not earned yet, or the other way round: never both, and nothing else.
    left = {role: amount for role, amount in sums.items() if amount}
    expected = {CONTRACT_LIABILITY: -deferred} if deferred > 0 else {ahead: -deferred} if deferred < 0 else {}
    assert left == expected


@pytest.mark.parametrize(("model", "stated", "ratable"), [("flat", None, True), ("flat", "as_billable", False)])
def test_a_flat_fee_is_ratable_unless_it_says_otherwise(model: str, stated: str | None, ratable: bool) -> None:
    from operators.rating.charges import parse_charge  # noqa: PLC0415

    charge = parse_charge({"id": "x", "model": model, "amount": "1", "accounting": {"recognition": stated}})
    assert charge.is_ratable is ratable
