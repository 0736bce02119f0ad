"""Every rated row is explained by its quantities and prices, and the explanation ties with what is stored."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import polars as pl
from hypothesis import given, settings

from config.revision import History, Revision
from operators.rate_explain import Row, RowExplanation, explain_rows
from operators.rate_terms import EPOCH, moment
from tests.operators.rate_support import HOUR0, Driver, Use, contract, customer, facts, revision, version
from tests.operators.test_rate_whatif import CHARGES, CUSTOMERS, DAY, REVISION, RULES, VERSIONS, uses

END = 130 * DAY


def stored(frame: pl.DataFrame) -> list[Row]:
    """Return rated rows as the table has them."""
    return [
        row
        | {
            "period_start": EPOCH + timedelta(microseconds=row["period_start_us"]),
            "usage_hour": moment(row["usage_hour"] * 60),
            "booked_hour": moment(row["booked_hour"] * 60),
        }
        for row in frame.iter_rows(named=True)
    ]


def booked(history: History, given_uses: list[Use]) -> pl.DataFrame:
    driver = Driver(history)
    driver.send(facts(given_uses), END)
    return driver.rows("sealed")


def explained(history: History, frame: pl.DataFrame) -> list[RowExplanation]:
    by_version: dict[str, Revision] = {one.version: one for one in history.revisions}
    return explain_rows(stored(frame), by_version.get, lambda _row: True)


def of_commitment(found: RowExplanation) -> bool:
    """Tell whether the line follows from a commitment: no price explains it, and it says so."""
    of_it = found.row["line_kind"] == "drawdown" or found.row["charge"].startswith("commitment:")
    return of_it and "follows from a commitment" in found.notes[0]


@given(given_uses=uses())
@settings(max_examples=20, deadline=None)
def test_every_row_ties(given_uses: list[Use]) -> None:
    history = History([REVISION])
    found = [one for one in explained(history, booked(history, given_uses)) if not of_commitment(one)]
    assert [one.row for one in found if not one.ties] == []
    assert all(one.step is not None or one.final is not None for one in found)
    assert not [note for one in found for note in one.notes if "missing" in note]


@given(given_uses=uses())
@settings(max_examples=10, deadline=None)
def test_rows_tie_over_a_change_of_the_configuration(given_uses: list[Use]) -> None:
    changed = revision(
        [version(CHARGES[0] | {"discount_percent": "10"}, *CHARGES[1:]), VERSIONS[1]],
        CUSTOMERS,
        (HOUR0 + 20 * 24) * 3_600_000,
        rules=RULES,
    )
    history = History([REVISION, changed])
    found = explained(history, booked(history, given_uses))
    assert [one.row for one in found if not one.ties and not of_commitment(one)] == []


def small(*charges: dict[str, Any], **rules: str) -> History:
    return History([revision([version(*charges)], [customer("acme", contracts=[contract()])], rules=dict(rules))])


GRADUATED = {
    "id": "input",
    "meter": "tokens",
    "model": "graduated",
    "tiers": [{"up_to": "100", "unit_amount": "0.10"}, {"unit_amount": "0.01"}],
}


def test_the_quantity_to_date_is_that_of_all_rows_before() -> None:
    history = small(GRADUATED)
    first, second = explained(history, booked(history, [Use(1, 1, "80"), Use(DAY, DAY, "40")]))
    assert first.step is not None
    assert second.step is not None
    assert (first.step.before.quantity, first.step.after.quantity) == (Decimal(0), Decimal(80))
    # 80 to 120: 100 x 0.10 + 20 x 0.01 - 80 x 0.10 = 2.2
    assert (second.step.before.quantity, second.step.after.quantity) == (Decimal(80), Decimal(120))
    assert (second.expected, second.ties) == (Decimal("2.2"), True)


def test_a_missing_row_is_noticed() -> None:
    history = small(GRADUATED)
    frame = booked(history, [Use(1, 1, "80"), Use(DAY, DAY, "40")])
    (only,) = explained(history, frame.filter(pl.col("booked_hour") > HOUR0))
    assert not only.ties
    assert only.notes == ("the row before it ends at 0.000000000000: rows of this charge and period are missing",)


def test_a_row_that_was_altered_does_not_tie() -> None:
    history = small(GRADUATED)
    frame = booked(history, [Use(1, 1, "80")]).with_columns((pl.col("quantity") + 1).alias("quantity"))
    (only,) = explained(history, frame)
    assert (only.expected, only.ties) == (Decimal("8.1"), False)


def test_a_cheaper_tier_is_told_on_both_lines() -> None:
    tiers = [{"up_to": "100", "unit_amount": "0.10"}, {"unit_amount": "0.05"}]
    history = small({"id": "input", "meter": "tokens", "model": "volume", "tiers": tiers})
    usage, drop = explained(history, booked(history, [Use(1, 1, "100"), Use(DAY, DAY, "1")]))[1:]
    # 101 x 0.05 - 100 x 0.10 = -4.95
    assert (usage.row["line_kind"], usage.expected) == ("usage", Decimal(0))
    assert usage.notes == (
        "the cheaper tier changes the amount by -4.950000000000, booked in this hour's tier_repricing line",
    )
    assert (drop.row["line_kind"], drop.expected, drop.ties) == ("tier_repricing", Decimal("-4.95"), True)


def test_a_period_end_is_the_whole_charge_less_what_was_booked() -> None:
    history = small(GRADUATED | {"minimum": "20"}, books_open_at="2024-01-01T00:00:00Z")
    rows = explained(history, booked(history, [Use(1, 1, "80"), Use(1, 40 * DAY, "40")]))
    january = [one for one in rows if one.row["period_start"].month == 1]
    # 8 booked, 20 - 8 = 12; the late 40 units bring 2.2 more, and the true-up shrinks by as much
    assert [(one.row["line_kind"], one.expected) for one in january] == [
        ("usage", Decimal(8)),
        ("true_up", Decimal(12)),
        ("late_usage", Decimal("2.2")),
        ("true_up", Decimal("-2.2")),
    ]
    assert all(one.ties for one in january)
    assert january[1].final is not None
    assert january[1].final.exact == 20


def test_what_cannot_be_explained_says_why() -> None:
    history = small(GRADUATED)
    frame = booked(history, [Use(1, 1, "80")])
    (unknown,) = explain_rows(stored(frame), lambda _version: None, lambda _row: True)
    assert not unknown.ties
    assert unknown.notes == (f"configuration {history.latest.version} is not in the ledger's journal",)
    (drawn,) = explained(history, frame.with_columns(pl.lit("prepaid").alias("charge"), pl.lit("x").alias("line_kind")))
    assert drawn.notes == ("a line of kind x is not made by a charge of the plan",)
    (gone,) = explained(history, frame.with_columns(pl.lit("c9").alias("contract")))
    assert "has no contract 'c9'" in gone.notes[0]
