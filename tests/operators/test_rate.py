"""Rating by examples; the figures in the comments were worked out by hand."""

from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from prometheus_client import REGISTRY

from config.revision import History
from core.errors import InvariantViolation, StateMismatch
from core.frames import RATED_SCHEMA
from operators.items import Facts, Marker, RatedRows
from operators.rate import RateLogic, customer_shards
from tests.operators.rate_support import (
    DAY,
    FLAT,
    HOUR0,
    JANUARY,
    LEAST,
    PER_TOKEN,
    T0,
    Driver,
    Use,
    contract,
    customer,
    facts,
    minute,
    revision,
    run,
    shard_for,
    short,
    version,
)


def test_an_hour_is_rated_when_the_watermark_passes_its_end_plus_the_grace_and_not_before() -> None:
    driver = Driver(History([revision([version(PER_TOKEN)])]))
    driver.send(facts([Use(0, 0, "4")]), 60)
    assert driver.rows("sealed").is_empty()
    driver.send(facts([]), 61)
    assert short(driver.rows("sealed")) == [("in", 0, 0, "usage", 4, 2)]
    sealed = [item for item in driver.out if isinstance(item, RatedRows) and item.watermark_ms]
    assert [item.watermark_ms for item in sealed] == [(T0 + 61) * 60_000]
    assert isinstance(driver.out[-1], Marker)
    assert driver.out[-1] == Marker("customer-0", (T0 + 61) * 60_000)


def test_the_newest_sealed_hour_is_told_whether_or_not_anything_was_used_in_it() -> None:
    driver = Driver(History([revision([version(PER_TOKEN)])]))
    for passed, sealed_hours in ((60, 0), (61, 1), (119, 1), (181, 3), (240, 3), (241, 4)):
        driver.send(facts([]), passed)
        told = REGISTRY.get_sample_value("meterbridge_sealed_hour_timestamp_seconds", {"shard": "customer-0"})
        assert told == T0 * 60 + sealed_hours * 3600


def test_rows_carry_everything_the_stores_want() -> None:
    driver = run(History([revision([version(PER_TOKEN)])]), Use(0, 0, "4", 3))
    rows = driver.rows()
    assert rows.schema == pl.Schema(RATED_SCHEMA)
    (row,) = rows.iter_rows(named=True)
    assert row["entity"] == "US01"
    assert row["meter"] == "tokens"
    assert (row["plan"], row["plan_version"], row["currency"], row["events"]) == ("p", 1, "USD", 3)
    assert (row["accounting_period"], row["original_period"]) == ("2024-01", "2024-01")
    assert row["period_start_us"] == T0 * 60_000_000
    assert row["revenue_amount"] == row["amount"] == Decimal(2)


def test_late_usage_and_voids_are_rows_of_their_own() -> None:
    driver = run(
        History([revision([version(PER_TOKEN)])]),
        Use(0, 0, "4"),
        Use(1, 200, "6"),
        Use(0, 201, "-4", -1),
        Use(190, 190, "2"),
    )
    assert short(driver.rows()) == [
        ("in", 0, 0, "usage", 4, 2),
        ("in", 0, 3, "late_usage", 6, 3),
        ("in", 0, 3, "void", -4, -2),
        ("in", 3, 3, "usage", 2, 1),
    ]


def test_an_hour_with_voids_only_still_gets_its_plain_row() -> None:
    driver = run(History([revision([version(PER_TOKEN)])]), Use(0, 0, "4"), Use(0, 200, "-4", -1))
    assert short(driver.rows())[1:] == [("in", 0, 3, "late_usage", 0, 0), ("in", 0, 3, "void", -4, -2)]


def test_a_cheaper_volume_tier_makes_a_repricing_row() -> None:
    # 1,000 x 0.10 = 100.00; 1,001 x 0.05 = 50.05; so one more unit brings -49.95.
    volume = {
        "id": "v",
        "meter": "tokens",
        "model": "volume",
        "tiers": [{"up_to": "1000", "unit_amount": "0.10"}, {"unit_amount": "0.05"}],
    }
    driver = run(History([revision([version(volume)])]), Use(0, 0, "1000"), Use(60, 60, "1"))
    assert short(driver.rows()) == [
        ("v", 0, 0, "usage", 1000, 100),
        ("v", 1, 1, "usage", 1, 0),
        ("v", 1, 1, "tier_repricing", 0, Decimal("-49.95")),
    ]


def test_a_negative_price_is_a_credit_and_no_cheaper_tier() -> None:
    driver = run(History([revision([version(PER_TOKEN | {"unit_amount": "-0.5"})])]), Use(0, 0, "4"))
    assert short(driver.rows()) == [("in", 0, 0, "usage", 4, -2)]


def test_a_period_ends_with_fee_and_true_up_also_without_usage_and_once() -> None:
    history = History([revision([version(LEAST, FLAT)], rules={"books_open_at": "2024-01-15T00:00:00Z"})])
    driver = Driver(history)
    # The period ends at hour 744; with the grace the first hour that begins after it is 745, sealed at 746:01.
    driver.send(facts([]), 746 * 60)
    assert driver.rows().is_empty()
    driver.send(facts([]), 746 * 60 + 1)
    expected = [("base", 743, 745, "fee", 0, 31), ("in", 743, 745, "true_up", 0, 62)]
    assert short(driver.rows()) == expected
    driver.restart()
    driver.send(facts([]), 800 * 60)
    assert short(driver.rows()) == expected


def test_late_usage_after_the_end_shrinks_the_true_up_and_is_priced_once_above_it() -> None:
    history = History([revision([version(LEAST)])])
    driver = Driver(history)
    driver.send(facts([Use(0, 0, "24")]), JANUARY + 200)
    driver.restart()
    late = JANUARY + 10 * 60
    driver.send(facts([Use(5, late, "40"), Use(5, late + 60, "100")]), late + 200)
    # 24 x 0.5 = 12, so 50 are missing to 62. 40 more bring 20: 30 missing. 100 more bring 50: none missing.
    assert short(driver.rows()) == [
        ("in", 0, 0, "usage", 24, 12),
        ("in", 743, 745, "true_up", 0, 50),
        ("in", 0, 754, "late_usage", 40, 20),
        ("in", 743, 754, "true_up", 0, -20),
        ("in", 0, 755, "late_usage", 100, 50),
        ("in", 743, 755, "true_up", 0, -30),
    ]


def test_a_contract_in_force_for_a_part_of_the_month_owes_its_days() -> None:
    part = contract(**{"from": "2024-01-22T00:00:00Z", "to": "2024-02-11T00:00:00Z"})
    history = History(
        [
            revision(
                [version(LEAST, FLAT)],
                [customer(contracts=[part])],
                rules={"books_open_at": "2024-01-01T00:00:00Z"},
            )
        ]
    )
    driver = run(history, end=120 * DAY)
    # 10 of 31 days of January: 31 -> 10, 62 -> 20; 10 of 29 days of February: 310/29 and 620/29.
    assert [(row[0], row[5]) for row in short(driver.rows())] == [
        ("base", 10),
        ("in", 20),
        ("base", Decimal("10.689655172414")),
        ("in", Decimal("21.379310344828")),
    ]


def test_before_the_books_open_no_period_ends() -> None:
    history = History([revision([version(LEAST)], rules={"books_open_at": "2024-02-10T00:00:00Z"})])
    driver = run(history, Use(0, 0, "24"), end=62 * DAY)
    assert [(row[3], row[5]) for row in short(driver.rows())] == [("usage", 12), ("true_up", 62)]
    assert driver.rows("sealed")["accounting_period"].to_list() == ["2024-01", "2024-02"]


def test_usage_after_the_cutoff_goes_to_the_earliest_open_period() -> None:
    in_time, too_late = JANUARY + 5 * DAY - 60, JANUARY + 5 * DAY
    driver = run(
        History([revision([version(PER_TOKEN)])]),
        Use(0, 0, "1"),
        Use(0, in_time, "1"),
        Use(0, too_late, "1"),
        end=40 * DAY,
    )
    rows = driver.rows()
    assert rows["accounting_period"].to_list() == ["2024-01", "2024-01", "2024-02"]
    assert rows["original_period"].to_list() == ["2024-01"] * 3


def test_an_hour_is_split_where_a_half_hour_zones_month_begins() -> None:
    history = History(
        [
            revision(
                [version(PER_TOKEN)],
                [customer(contracts=[contract(billing_period={"timezone": "Asia/Kolkata"})])],
                entity={"timezone": "Asia/Kolkata"},
            )
        ]
    )
    border = minute("2024-01-31T18:30:00+00:00")
    driver = run(history, Use(border - 1, border - 1, "2"), Use(border, border, "4"), end=40 * DAY)
    rows = driver.rows()
    assert rows["accounting_period"].to_list() == ["2024-01", "2024-02"]
    assert rows["amount"].to_list() == [1, 2]
    assert rows["usage_hour"].n_unique() == 1
    assert rows["period_start_us"].to_list() == [
        (T0 + minute("2023-12-31T18:30:00+00:00")) * 60_000_000,
        (T0 + border) * 60_000_000,
    ]


def test_two_fiscal_months_of_one_hour_booked_after_both_closed_are_one_row() -> None:
    history = History([revision([version(PER_TOKEN)], entity={"timezone": "Asia/Kolkata"})])
    border = minute("2024-01-31T18:30:00+00:00")
    booked = border + 60 * DAY
    driver = run(history, Use(border - 1, booked, "2"), Use(border, booked, "4"), end=100 * DAY)
    assert [(row[3], row[4], row[5]) for row in short(driver.rows())] == [("late_usage", 6, 3)]
    assert driver.rows()["original_period"].to_list() == ["2024-01"]


def test_plan_versions_pinned_by_start_by_number_and_by_usage_time() -> None:
    versions = [
        version(PER_TOKEN),
        version(PER_TOKEN | {"unit_amount": "2"}, effective="2024-01-01T01:30:00Z"),
    ]
    uses = (Use(89, 89, "1"), Use(90, 90, "1"))
    for pinned, expected in ((None, ["1"]), (2, ["4"]), ("latest", ["0.5", "2"])):
        held = customer(contracts=[contract(plan_version=pinned)])
        rows = run(History([revision(versions, [held])]), *uses).rows()
        assert rows["amount"].to_list() == list(map(Decimal, expected)), pinned


def test_overrides_replace_fields_of_a_charge() -> None:
    held = customer(contracts=[contract(overrides=[{"charge": "in", "set": {"discount_percent": "10"}}])])
    rows = run(History([revision([version(PER_TOKEN)], [held])]), Use(0, 0, "4")).rows()
    assert rows["amount"].to_list() == [Decimal("1.8")]


def test_charges_take_the_series_their_filter_lets_through() -> None:
    dear = PER_TOKEN | {"id": "dear", "filter": {"model": ["a", "b"]}, "unit_amount": "3"}
    cheap = PER_TOKEN | {"id": "cheap", "filter": {"model": "c"}, "unit_amount": "1"}
    driver = run(
        History([revision([version(dear, cheap)])]),
        *(Use(0, 0, "1", dimensions=f'{{"model":"{model}"}}') for model in "abcd"),
    )
    assert short(driver.rows("sealed")) == [("cheap", 0, 0, "usage", 1, 1), ("dear", 0, 0, "usage", 2, 6)]
    assert driver.rows("unrated")["quantity"].to_list() == [1]


@pytest.mark.parametrize(
    ("meter", "expected"),
    [
        # max: 5, then 9 raises it by 4, the late 7 changes nothing
        ("peak", [("usage", 5), ("late_usage", 0), ("usage", 4)]),
        # latest: 5, then 9; the late 7 of an earlier time changes nothing
        ("level", [("usage", 5), ("late_usage", 0), ("usage", 4)]),
    ],
)
def test_meters_whose_values_do_not_add_up_merge_within_their_series(meter: str, expected: Any) -> None:
    charge = {"id": "x", "meter": meter, "model": "per_unit", "unit_amount": "1"}
    driver = run(
        History([revision([version(charge)])]),
        Use(10, 10, "5", meter=meter),
        Use(130, 130, "9", meter=meter),
        Use(20, 131, "7" if meter == "level" else "4", meter=meter),
    )
    # The late usage of the first hour comes first; for `latest` it is newer than minute 10: 7 - 5 = 2, then 9 - 7.
    if meter == "level":
        expected = [("usage", 5), ("late_usage", 2), ("usage", 2)]
    assert [(row[3], row[4]) for row in short(driver.rows())] == expected


def test_two_subjects_of_a_customer_share_the_tiers_and_series_add_up() -> None:
    held = customer(subjects=["a", {"id": "b", "from": "2024-01-01T00:30:00Z"}])
    charge = {"id": "x", "meter": "peak", "model": "per_unit", "unit_amount": "1"}
    driver = run(
        History([revision([version(charge)], [held])]),
        Use(0, 0, "5", meter="peak", tenant="a"),
        Use(29, 29, "2", meter="peak", tenant="b"),
        Use(30, 30, "3", meter="peak", tenant="b"),
    )
    assert short(driver.rows("sealed")) == [("x", 0, 0, "usage", 8, 8)]
    (lost,) = driver.rows("unrated").iter_rows(named=True)
    assert (lost["tenant"], lost["customer"], lost["quantity"], lost["meter"]) == ("b", "", 2, "peak")


@pytest.mark.parametrize("shards", [1, 3])
def test_usage_without_a_customer_is_unrated_and_rated_when_a_revision_names_one(shards: int) -> None:
    known_from = HOUR0 + 5
    before = revision([version(PER_TOKEN)], [customer("other")])
    after = revision([version(PER_TOKEN)], [customer("other"), customer("acme")], known_from * 3_600_000)
    driver = Driver(History([before, after]), shards)
    driver.send(facts([Use(0, 0, "4"), Use(60, 60, "2"), Use(1, 70, "6")]), 4 * 60)
    assert driver.rows("sealed").is_empty()
    assert short(driver.rows("unrated")) == [
        ("", 0, 0, "usage", 4, 0),
        ("", 0, 1, "late_usage", 6, 0),
        ("", 1, 1, "usage", 2, 0),
    ]
    assert [one["identity"] for one in driver.exceptions()] == ["subject:acme|tokens|2024-01"]
    driver.restart()
    driver.send(facts([]), 10 * 60)
    # Booked in the first hour of the revision, by usage hour; what was unrated is taken back.
    assert short(driver.rows("sealed")) == [
        ("in", 0, 5, "usage", 4, 2),
        ("in", 0, 5, "late_usage", 6, 3),
        ("in", 1, 5, "usage", 2, 1),
    ]
    assert driver.rows("unrated")["quantity"].sum() == 0
    assert driver.rows("unrated")["events"].sum() == 0
    driver.send(facts([Use(601, 601, "2")]), 12 * 60)
    assert short(driver.rows("sealed"))[3:] == [("in", 10, 10, "usage", 2, 1)]


def test_usage_of_a_customer_without_a_price_is_unrated_by_customer() -> None:
    calls = {"id": "calls", "meter": "calls", "model": "per_unit", "unit_amount": "1"}
    driver = run(
        History([revision([version(PER_TOKEN)], plans=[{"id": "q", "versions": [version(calls)]}])]),
        Use(0, 0, "3", meter="calls"),
        Use(60, 60, "3", meter="calls"),
        Use(0, 0, "9", meter="dashboard"),
        shards=2,
    )
    rows = driver.rows("unrated")
    assert rows["customer"].to_list() == ["acme", "acme"]
    assert rows["meter"].to_list() == ["calls", "calls"]
    # One exception for the customer, meter and month; a meter nobody prices serves dashboards only.
    assert [one["identity"] for one in driver.exceptions()] == ["customer:acme|calls|2024-01"]


def test_unrated_usage_of_a_customer_is_rated_for_another_one_on_another_shard() -> None:
    names = [name for name in map(str, range(1000, 1100)) if shard_for(name, 4) != shard_for("acme", 4)]
    before = revision([version(PER_TOKEN)], [customer("acme", contracts=[])])
    other = customer(names[0], subjects=["acme"])
    after = revision([version(PER_TOKEN)], [customer("acme", subjects=["x"]), other], (HOUR0 + 3) * 3_600_000)
    driver = run(History([before, after]), Use(0, 0, "4"), shards=4)
    assert driver.rows("sealed")["customer"].to_list() == [names[0]]
    assert driver.rows("unrated")["quantity"].to_list() == [4, -4]


def test_provisional_rows_follow_open_facts_and_are_replaced_by_sealed_ones() -> None:
    driver = Driver(History([revision([version(PER_TOKEN)])]))
    driver.send(facts([Use(0, 0, "4")], sealed=0), 0)
    driver.send(facts([Use(1, 1, "2")], sealed=0))
    driver.send(facts([]), 0)
    assert [row[5] for row in short(driver.rows("provisional"))] == [2]
    grown = facts([Use(0, 0, "6")], sealed=0).with_columns(pl.lit(2, pl.UInt64).alias("version"))
    driver.send(grown, 1)
    # (6 + 2) x 0.5
    assert [row[5] for row in short(driver.rows("provisional"))] == [2, 4]
    versions = driver.rows("provisional")["version"].to_list()
    assert versions == sorted(set(versions))
    driver.send(facts([]), 2)
    assert len(driver.rows("provisional")) == 2
    driver.send(facts([Use(0, 0, "6"), Use(1, 1, "2")]), 61)
    assert short(driver.rows("sealed")) == [("in", 0, 0, "usage", 8, 4)]


def test_a_marker_waits_for_all_senders() -> None:
    logic = RateLogic("customer-0", 0, 1, ["a", "b"], History([revision([version(PER_TOKEN)])]), None)
    assert logic.process([Facts(facts([Use(0, 0, "1")])), Marker("a", (T0 + 90) * 60_000)]) == []
    logic = RateLogic("customer-0", 0, 1, ["a", "b"], History([revision([version(PER_TOKEN)])]), logic.snapshot())
    out = logic.process([Marker("b", (T0 + 61) * 60_000)])
    assert [type(item).__name__ for item in out] == ["RatedRows", "Marker"]
    with pytest.raises(InvariantViolation, match="unknown sender"):
        logic.process([Marker("c", 0)])


def test_sealed_facts_after_their_hour_stop_the_flow() -> None:
    driver = run(History([revision([version(PER_TOKEN)])]), Use(0, 0, "1"))
    with pytest.raises(InvariantViolation, match="after it was rated"):
        driver.send(facts([Use(1, 1, "1")]), 6 * DAY)


def test_a_state_of_another_version_is_refused() -> None:
    with pytest.raises(StateMismatch, match="state version 99"):
        RateLogic("customer-0", 0, 1, ["a"], History([revision([version(PER_TOKEN)])]), {"version": 99})


def test_facts_go_to_the_shard_of_their_customer_and_unpriced_ones_to_all() -> None:
    one = revision([version(PER_TOKEN)], [customer("acme"), customer("beta")])
    frame = facts([Use(0, 0, "1", tenant=name) for name in ("acme", "beta", "nobody")])
    parts = dict(customer_shards(frame, one, 4))
    for shard in range(4):
        expected = {name for name in ("acme", "beta") if shard_for(name, 4) == shard} | {"nobody"}
        assert set(parts[shard]["tenant"]) == expected
    open_parts = dict(customer_shards(frame.with_columns(pl.lit(0, pl.UInt8).alias("sealed")), one, 4))
    assert {name for part in open_parts.values() for name in part["tenant"]} == {"acme", "beta"}


def test_old_chains_are_forgotten_and_snapshots_reuse_bytes() -> None:
    driver = Driver(History([revision([version(PER_TOKEN)])]))
    driver.send(facts([Use(0, 0, "1")]), JANUARY)
    first = driver.logics[0].snapshot()["rater"]["chains"]
    driver.send(facts([Use(JANUARY, JANUARY, "1")]), JANUARY + 200)
    second = driver.logics[0].snapshot()["rater"]["chains"]
    assert len(second) == 2
    assert second[min(second)] is first[min(first)]
    later = 120 * DAY
    driver.send(facts([Use(later, later, "1")]), later + 200)
    assert min(driver.logics[0].snapshot()["rater"]["chains"]) > min(second)
