"""Corrected prices: what is booked comes to them, from the corrected period on, and no sealed row changes."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.journal import next_revision, settled
from config.price_corrections import CorrectedVersion, PriceCorrection, in_force, make
from config.revision import History, Revision
from core.errors import ConfigError
from operators.document import documents
from tests.operators.rate_support import DAY, HOUR0, JANUARY, LEAST, PER_TOKEN, Use, revision, run, short, version

OPENED = {"books_open_at": "2024-01-01T00:00:00Z"}
GRADUATED: dict[str, Any] = {
    "id": "in",
    "meter": "tokens",
    "model": "graduated",
    "tiers": [{"up_to": "10", "unit_amount": "2"}, {"up_to": None, "unit_amount": "1"}],
}
CHEAPER: dict[str, Any] = GRADUATED | {
    "tiers": [{"up_to": "5", "unit_amount": "3"}, {"up_to": None, "unit_amount": "0.7"}]
}


def _correction(
    *charges: dict[str, Any], begins: str = "2024-01-01", number: int = 1, over: str = ""
) -> PriceCorrection:
    when = datetime.fromisoformat(begins).replace(tzinfo=UTC)
    versions = [CorrectedVersion(version=number, charges=charges)]
    return make("p", when, versions, over=over, approved_by="ann", reason="typed wrong")


def _with(before: Revision, known_from_hour: int, *corrections: PriceCorrection) -> Revision:
    changed = before.configuration.model_copy(update={"price_corrections": corrections})
    return Revision(changed, known_from_hour * 3_600_000)


def test_a_correction_books_the_difference_in_its_first_hour_and_prices_what_comes_later() -> None:
    before = revision([version(PER_TOKEN)])
    after = _with(before, HOUR0 + 2, _correction(PER_TOKEN | {"unit_amount": "1"}))
    driver = run(History([before, after]), Use(0, 0, "4"), Use(30, 200, "2"), Use(240, 240, "4"))
    # 4 x 0.5 = 2 becomes 4; two late ones at 1, then four at 1.
    assert short(driver.rows()) == [
        ("in", 0, 0, "usage", 4, 2),
        ("in", 2, 2, "price_change", 0, 2),
        ("in", 0, 3, "late_usage", 2, 2),
        ("in", 4, 4, "usage", 4, 4),
    ]
    assert driver.rows()["config_version"].unique(maintain_order=True).to_list() == [before.version, after.version]


def test_periods_that_began_before_keep_their_prices_and_closed_ones_are_corrected_in_the_open_month() -> None:
    before = revision([version(LEAST)], rules=OPENED)
    known = HOUR0 + (JANUARY + 40 * DAY) // 60
    corrected = _correction(LEAST | {"unit_amount": "1"}, begins="2024-02-01")
    driver = run(
        History([before, _with(before, known, corrected)]),
        Use(0, 0, "24"),
        Use(JANUARY + DAY, JANUARY + DAY, "24"),
        end=JANUARY + 42 * DAY,
    )
    rows = driver.rows().filter(pl.col("booked_hour") == known)
    # 24 x 0.5 = 12 and 50 to the minimum of 62; 24 x 1 leaves 12 less to it: both in March, for February alone.
    assert [(row[3], row[5]) for row in short(rows)] == [("price_change", 12), ("true_up", -12)]
    assert rows["accounting_period"].to_list() == ["2024-03", "2024-03"]
    assert rows["original_period"].to_list() == ["2024-02", "2024-02"]


def test_its_documents_name_the_correction_and_why() -> None:
    before = revision([version(PER_TOKEN)])
    corrected = _correction(PER_TOKEN | {"unit_amount": "1"})
    known = HOUR0 + (JANUARY + 10 * DAY) // 60
    history = History([before, _with(before, known, corrected)])
    driver = run(history, Use(0, 0, "4"), Use(JANUARY + 11 * DAY, JANUARY + 11 * DAY, "1"), end=JANUARY + 12 * DAY)
    first, correction, last = documents(driver.rows(), history)
    assert (first.kind, first.reason_code, first.approval) == ("accrual", "", "")
    assert (correction.kind, correction.reason_code, correction.approval) == ("correction", "price_error", corrected.id)
    assert (correction.original_period, correction.accounting_period, int(correction.total)) == (
        "2024-01",
        "2024-02",
        2,
    )
    assert (last.approval, int(last.total)) == ("", 1)


def test_a_period_can_be_corrected_until_rating_forgets_it_and_no_longer_is_refused() -> None:
    before = revision([version(PER_TOKEN)], rules=OPENED)
    corrected = _correction(PER_TOKEN | {"unit_amount": "1"})
    last = HOUR0 + JANUARY // 60 + (35 + 39) * 24
    for known, booked in ((last, True), (last + 1, False)):
        said = settled(before.configuration, "p", corrected.from_, known * 3_600_000)
        assert (said == "") == booked
        assert booked or said == "that of acme/c1 from 2024-01-01 to 2024-02-01"
    # In the last hour in which it is allowed, whatever the time of the day, it is booked.
    for known in range(last - 23, last + 1):
        driver = run(History([before, _with(before, known, corrected)]), Use(0, 0, "4"), end=(known - HOUR0 + 2) * 60)
        assert [row[3] for row in short(driver.rows())] == ["usage", "price_change"]


def test_the_journal_carries_corrections_on_and_refuses_one_that_is_too_late() -> None:
    first = revision([version(PER_TOKEN)], rules=OPENED)
    files = first.configuration
    corrected = _correction(PER_TOKEN | {"unit_amount": "1"})
    early_ms = (HOUR0 + 40 * 24) * 3_600_000
    second = next_revision([first], files, early_ms - 1, 0, [corrected])
    assert second is not None
    assert (second.known_from_ms, second.configuration.price_corrections) == (early_ms, (corrected,))
    # The files know nothing of it, and it stays; approved again it is not journaled again.
    assert next_revision([first, second], files, early_ms * 2, 0, [corrected]) is None
    stored = Revision.parse(second.text, second.known_from_ms)
    assert next_revision([first, stored], files, early_ms * 2, 0, [corrected]) is None
    with pytest.raises(ConfigError, match=r"too late: the billing period that of acme/c1 .* --withdraw"):
        next_revision([first], files, early_ms * 2, 0, [corrected])


def test_a_later_revision_does_not_claim_an_earlier_correction() -> None:
    before = revision([version(PER_TOKEN)])
    one = _correction(PER_TOKEN | {"unit_amount": "1"})
    other = _correction(PER_TOKEN | {"unit_amount": "0.5"}, over=one.id)
    history = History([before, _with(before, HOUR0 + 2, one), _with(before, HOUR0 + 4, one, other)])
    driver = run(history, Use(0, 0, "4"), Use(300, 300, "2"))
    made = documents(driver.rows(), history)
    assert [(document.booked_hour - HOUR0, int(document.total), document.approval) for document in made] == [
        (0, 2, ""),
        (2, 2, one.id),
        (4, -2, other.id),
        (5, 1, ""),
    ]


def test_the_newest_correction_of_a_version_and_period_is_in_force() -> None:
    january, march = _correction(PER_TOKEN), _correction(PER_TOKEN, begins="2024-03-01")
    found = in_force([january, march], "p", 1, datetime(2024, 3, 1, tzinfo=UTC))
    assert found is not None
    assert found[0] is march
    found = in_force([january, march], "p", 1, datetime(2024, 2, 1, tzinfo=UTC))
    assert found is not None
    assert found[0] is january
    assert in_force([january, march], "p", 2, datetime(2024, 4, 1, tzinfo=UTC)) is None
    assert in_force([january, march], "q", 1, datetime(2024, 4, 1, tzinfo=UTC)) is None
    assert in_force([january, march], "p", 1, datetime(2023, 12, 31, tzinfo=UTC)) is None
    assert january.id == _correction(PER_TOKEN).id != _correction(PER_TOKEN, over="x").id


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 70 * 24), st.integers(0, 30), st.integers(1, 20)), min_size=1, max_size=8),
    st.integers(1, 70 * 24),
    st.sampled_from(["2024-01-01", "2024-02-01", "2024-01-15"]),
)
def test_everything_booked_adds_up_to_the_prices_of_its_period(
    uses: list[tuple[int, int, int]], known: int, begins: str
) -> None:
    before = revision([version(GRADUATED)], rules=OPENED)
    after = _with(before, HOUR0 + known, _correction(CHEAPER, begins=begins))
    made = [Use(hour * 60, (hour + late) * 60, str(quantity)) for hour, late, quantity in uses]
    end = 110 * DAY
    booked = _by_period(run(History([before, after]), *made, end=end).rows())
    plain = _by_period(run(History([before]), *made, end=end).rows())
    corrected = _by_period(run(History([revision([version(CHEAPER)], rules=OPENED)]), *made, end=end).rows())
    border = {"2024-01-01": 0, "2024-02-01": JANUARY, "2024-01-15": JANUARY}[begins]
    for period, total in booked.items():
        assert total == (corrected if (period // 60_000_000 - HOUR0 * 60) >= border else plain)[period]


def _by_period(rows: pl.DataFrame) -> dict[int, Decimal]:
    return dict(rows.group_by("period_start_us").agg(pl.col("amount").sum()).iter_rows())


def test_without_corrections_the_text_of_a_configuration_is_what_it_was() -> None:
    before = revision([version(PER_TOKEN)])
    assert "price_corrections" not in before.text
    after = _with(before, HOUR0, _correction(PER_TOKEN))
    assert Revision.parse(after.text, after.known_from_ms).configuration == after.configuration
