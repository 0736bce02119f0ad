"""Revisions by examples: changed prices, ends and versions; the figures in the comments were worked out by hand."""

from decimal import Decimal
from typing import Any

import polars as pl

from config.revision import History
from tests.operators.rate_support import (
    DAY,
    FLAT,
    HOUR0,
    JANUARY,
    LEAST,
    PER_TOKEN,
    Use,
    contract,
    customer,
    revision,
    run,
    short,
    version,
)


def test_a_new_price_is_booked_in_the_first_hour_of_its_revision_and_told_apart() -> None:
    before = revision([version(PER_TOKEN)])
    after = revision([version(PER_TOKEN | {"unit_amount": "1"})], known_from_ms=(HOUR0 + 2) * 3_600_000)
    driver = run(History([before, after]), Use(0, 0, "4"), Use(180, 180, "4"))
    # 4 x 0.5 = 2; from hour 2 on the 4 are worth 4, so 2 more; then 4 x 1.
    assert short(driver.rows()) == [
        ("in", 0, 0, "usage", 4, 2),
        ("in", 2, 2, "price_change", 0, 2),
        ("in", 3, 3, "usage", 4, 4),
    ]
    assert driver.rows()["config_version"].to_list() == [before.version, after.version, after.version]


def test_a_new_price_reaches_closed_periods_and_their_minimum_in_the_open_month() -> None:
    before = revision([version(LEAST)], rules={"books_open_at": "2024-01-01T00:00:00Z"})
    dearer = LEAST | {"unit_amount": "1"}
    known_from = HOUR0 + (JANUARY + 10 * DAY) // 60
    after = revision(
        [version(dearer)], known_from_ms=known_from * 3_600_000, rules={"books_open_at": "2024-01-01T00:00:00Z"}
    )
    driver = run(History([before, after]), Use(0, 0, "24"), end=JANUARY + 12 * DAY)
    # 24 x 0.5 = 12 and 50 to the minimum of 62; then 24 x 1 = 24, so 12 less are missing.
    assert [(row[1], row[3], row[5]) for row in short(driver.rows())] == [
        (0, "usage", 12),
        (743, "true_up", 50),
        (743, "price_change", 12),
        (743, "true_up", -12),
    ]
    assert driver.rows()["accounting_period"].to_list() == ["2024-01", "2024-01", "2024-02", "2024-02"]


def test_a_minimum_that_a_revision_takes_away_is_credited_in_closed_periods() -> None:
    opened = {"books_open_at": "2024-01-01T00:00:00Z"}
    known_from_ms = (HOUR0 + (JANUARY + 10 * DAY) // 60) * 3_600_000
    modified = contract(overrides=[{"charge": "in", "set": {"minimum": "0"}}])
    before = revision([version(LEAST)], rules=opened)
    after = revision([version(LEAST)], [customer(contracts=[modified])], known_from_ms, rules=opened)
    driver = run(History([before, after]), Use(0, 0, "24"), end=JANUARY + 12 * DAY)
    # 24 x 0.5 = 12 and 50 to the minimum of 62, which nobody owes any more.
    assert [(row[1], row[3], row[5]) for row in short(driver.rows())] == [
        (0, "usage", 12),
        (743, "true_up", 50),
        (743, "true_up", -50),
    ]


def test_fees_of_closed_periods_after_a_contracts_new_end_are_credited() -> None:
    opened = {"books_open_at": "2024-01-01T00:00:00Z"}
    known_from_ms = (HOUR0 + 62 * DAY // 60) * 3_600_000
    ended = contract(to="2024-01-11T00:00:00Z")
    before = revision([version(LEAST, FLAT)], rules=opened)
    after = revision([version(LEAST, FLAT)], [customer(contracts=[ended])], known_from_ms, rules=opened)
    driver = run(History([before, after]), Use(0, 0, "24"), end=100 * DAY)
    # January: a fee of 31 and 12 + 50; February as much without usage. Then 10 of 31 days of January are left:
    # 31 - 10 back of the fee, 62 - 20 of the minimum (to which 8 are missing), and all of February.
    assert [(row[0], row[1] // 24, row[3], row[5]) for row in short(driver.rows())] == [
        ("in", 0, "usage", 12),
        ("base", 30, "fee", 31),
        ("in", 30, "true_up", 50),
        ("base", 59, "fee", 31),
        ("in", 59, "true_up", 62),
        ("base", 30, "fee", -21),
        ("base", 59, "fee", -31),
        ("in", 30, "true_up", -42),
        ("in", 59, "true_up", -62),
    ]


def test_a_version_with_a_past_date_owes_its_days_of_closed_periods() -> None:
    opened = {"books_open_at": "2024-01-01T00:00:00Z"}
    known_from_ms = (HOUR0 + (JANUARY + 10 * DAY) // 60) * 3_600_000
    held = [customer(contracts=[contract(plan_version="latest")])]
    first, second = version(LEAST, FLAT), version(LEAST, FLAT | {"amount": "62"}, effective="2024-01-11T00:00:00Z")
    history = History(
        [revision([first], held, rules=opened), revision([first, second], held, known_from_ms, rules=opened)]
    )
    driver = run(history, Use(0, 0, "24"), end=JANUARY + 12 * DAY)
    # The first version has 10 of 31 days, so 10 of its fee, and 20 of its minimum, to which 12 of usage leave 8
    # missing. The second has 21: 62 x 21 / 31 = 42 of its fee and of its minimum, without any usage.
    assert [(row[0], row[3], row[5]) for row in short(driver.rows())] == [
        ("in", "usage", 12),
        ("base", "fee", 31),
        ("in", "true_up", 50),
        ("base", "fee", -21),
        ("in", "true_up", -42),
        ("base", "fee", 42),
        ("in", "true_up", 42),
    ]


def test_a_period_that_another_version_settled_has_one_fee() -> None:
    opened = {"books_open_at": "2024-01-01T00:00:00Z"}
    versions = [version(PER_TOKEN, FLAT), version(PER_TOKEN, FLAT, effective="2023-06-01T00:00:00Z")]
    discount = [{"charge": "in", "set": {"discount_percent": "50"}}]
    held: list[dict[str, Any]] = [{"plan_version": 1}, {"plan_version": 2}, {"plan_version": 2, "overrides": discount}]
    hours = [0, HOUR0 + (JANUARY + 5 * DAY) // 60, HOUR0 + (JANUARY + 8 * DAY) // 60]
    history = History(
        [
            revision(versions, [customer(contracts=[contract(**fields)])], hour * 3_600_000, rules=opened)
            for fields, hour in zip(held, hours, strict=True)
        ]
    )
    driver = run(history, Use(0, 0, "24"), Use(5, JANUARY + 6 * DAY, "2"), end=JANUARY + 12 * DAY)
    rows = driver.rows().select("plan_version", "line_kind", "amount").rows()
    assert rows == [(1, "usage", 12), (1, "fee", 31), (2, "late_usage", 1), (2, "price_change", Decimal("-0.5"))]


def test_contracts_that_a_revision_leaves_alone_are_not_rated_again() -> None:
    other = {"id": "q", "versions": [version(PER_TOKEN)]}
    held = [customer("acme"), customer("beta", contracts=[contract(plan="q")])]
    before = revision([version(PER_TOKEN)], held, plans=[other])
    after = revision([version(PER_TOKEN | {"unit_amount": "1"})], held, (HOUR0 + 2) * 3_600_000, plans=[other])
    driver = run(History([before, after]), Use(0, 0, "4"), Use(0, 0, "4", tenant="beta"))
    changed = driver.rows().filter(pl.col("line_kind") == "price_change")
    assert changed["customer"].to_list() == ["acme"]
