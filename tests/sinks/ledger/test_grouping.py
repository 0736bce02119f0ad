"""Grouping documents into postings."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from config.entities import Entity
from sinks.ledger.erp_codes import ErpNames
from sinks.ledger.grouping import Bucket, Drafted, bucket_of, default_date, draft, posting_key
from sinks.ledger.times import MS_PER_HOUR, to_ms
from tests.sinks.ledger.samples import ACCOUNTS, HOUR, entity, key


def model(timezone: str = "America/New_York", **posting: Any) -> Entity:
    return Entity.model_validate(entity(**posting) | {"timezone": timezone})


def hour(text: str) -> int:
    return to_ms(datetime.fromisoformat(text).astimezone(UTC)) // MS_PER_HOUR


def test_buckets_end_where_the_entitys_own_day_or_month_ends() -> None:
    at = hour("2025-11-25T03:00:00+00:00")  # still the 24th in New York
    assert bucket_of(model(), at) == Bucket("2025-11-25T03:00Z", at + 1)
    assert bucket_of(model(frequency="daily"), at) == Bucket("2025-11-24", hour("2025-11-25T05:00:00+00:00"))
    assert bucket_of(model(frequency="monthly"), at) == Bucket("2025-11", hour("2025-12-01T05:00:00+00:00"))
    kolkata = model("Asia/Kolkata", frequency="daily")  # midnight at 18:30Z: the hour begun before belongs to the day
    assert bucket_of(kolkata, hour("2025-11-24T18:00:00+00:00")) == Bucket(
        "2025-11-24", hour("2025-11-24T19:00:00+00:00")
    )
    berlin = model("Europe/Berlin", frequency="daily")  # the day of 25 hours
    assert bucket_of(berlin, hour("2025-10-26T12:00:00+00:00")).end_hour == hour("2025-10-26T23:00:00+00:00")


def test_a_posting_is_dated_inside_its_accounting_period() -> None:
    at = hour("2025-12-01T10:00:00+00:00")
    assert default_date(model(), at, "2025-11") == date(2025, 11, 30)
    assert default_date(model(), at, "2025-12") == date(2025, 12, 1)
    assert default_date(model(), at, "2026-01") == date(2026, 1, 1)


def test_keys_fit_every_erp_and_parts_are_not_joined_ambiguously() -> None:
    assert len(posting_key("a")) == 16
    assert set(posting_key("a", "b")) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
    assert len({posting_key("ab", "c"), posting_key("a", "bc"), posting_key("abc"), posting_key("a", "b", "c")}) == 4


NAMES = ErpNames(ACCOUNTS, {f"c{number}": f"CUST-{number}" for number in range(3)})
LINE = st.tuples(
    st.sampled_from(["unbilled_receivable", "usage_revenue", "shortfall_revenue"]),
    st.sampled_from(["debit", "credit"]),
    st.decimals("-1000", "1000", places=2),
    st.sampled_from(["input", "output"]),
)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.lists(LINE, min_size=1, max_size=4)), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
    st.sampled_from(["entity", "customer"]),
    st.sampled_from([(), ("charge",), ("customer", "charge")]),
)
def test_postings_hold_exactly_the_documents_whatever_their_order(
    made: list[tuple[int, list[tuple[str, str, Decimal, str]]]], chance: Any, grain: str, line_grain: tuple[str, ...]
) -> None:
    documents = [
        Drafted(
            key(number),
            f"c{customer}",
            HOUR,
            "",
            "journal",
            [dict(zip(("account_role", "side", "amount", "charge"), line, strict=True)) for line in lines],
        )
        for number, (customer, lines) in enumerate(made)
    ]
    configured = model(grain=grain, line_grain=line_grain)
    drafts = draft(configured, NAMES, "USD", "2025-11", documents)
    chance.shuffle(documents)
    assert draft(configured, NAMES, "USD", "2025-11", documents) == drafts
    assert len({one.posting.key for one in drafts}) == len(drafts)
    listed = [name for one in drafts for name in one.posting.document_keys]
    assert sorted(listed) == sorted(document.key for document in documents)
    wanted: dict[Any, Decimal] = {}
    for document in documents:
        for line in document.lines:
            found = tuple(document.customer if name == "customer" else line[name] for name in line_grain)
            place = (line["account_role"], line["side"], found)
            wanted[place] = wanted.get(place, Decimal(0)) + line["amount"]
    got: dict[Any, Decimal] = {}
    for one in drafts:
        for summed in one.posting.lines:
            values = dict(summed.dimensions) | {"customer": summed.customer}
            place = (summed.account_role, summed.side, tuple(values[name] for name in line_grain))
            got[place] = got.get(place, Decimal(0)) + summed.amount
    assert {place: total for place, total in got.items() if total} == {p: t for p, t in wanted.items() if t}
    for one in drafts:
        unmapped = [line for line in one.posting.lines if line.account_role == "shortfall_revenue"]
        assert (one.reason == "missing_account") == bool(unmapped)
        if one.reason:
            assert len(one.posting.document_keys) == 1
        if grain == "customer":
            assert one.posting.customer is not None
