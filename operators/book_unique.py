"""`unique_count`: each value counts once per series and billing period, in the fact that saw it first.

First means: the lowest booked minute, then the lowest usage minute. That is decided when a booked minute seals, in
the order of the minutes, against an exact set of the values of earlier ones; so it depends on the events alone.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
from xxhash import xxh3_128_digest

from config.customers import BillingPeriod, Contract, Customer
from config.periods import billing_period
from config.revision import History, Revision
from config.subjects import SubjectIndex
from core.frames import FACT_KEY, SERIES
from operators.book_time import MS_PER_MINUTE, US_PER_MINUTE

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTES_PER_DAY: Final = 1440
_DAYS_MAX: Final = {"day": 1, "week": 7, "month": 31, "year": 366}
_CACHE_MAX: Final = 100_000
_PLACE: Final = [*SERIES, "usage_minute", "booked_minute"]

_CALENDAR_MONTH: Final = BillingPeriod(timezone="UTC")

Period = tuple[int, int]
"""First minute, and the minute after the last."""
U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]


class UniqueSet(Protocol):
    """The exact set of counted values; `operators.dedupe_log.IdLog` is one."""

    def find(
        self, hi: U64, lo: U64, horizon_from_minute: int | npt.NDArray[Any]
    ) -> tuple[npt.NDArray[np.bool_], U64, U32]:
        """Look digests up: whether each was added from that minute on, its payload, and the minute it was added."""
        ...

    def append(self, hi: U64, lo: U64, content: U64, arrival_minute: U32) -> None:
        """Add digests."""
        ...

    def expire(self, before_minute: int) -> None:
        """Say that what was added before that minute is never asked for again."""
        ...

    def snapshot(self) -> dict[str, Any]:
        """Make everything added durable and return the plain value to resume from."""
        ...

    def committed(self) -> None:
        """Take the last snapshot as durable everywhere."""
        ...


class Periods:
    """Tells in which period a subject's usage counts; pure, with a bounded memory of recent answers."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._subjects: dict[int, SubjectIndex] = {}
        self._known: dict[tuple[str, int, int], Period] = {}
        spans_minutes = [_minutes_max(revision) for revision in history.revisions]
        self._spans_minutes = spans_minutes
        self._starts = [revision.known_from_ms // MS_PER_MINUTE for revision in history.revisions]

    def period(self, tenant: str, usage_minute: int, booked_minute: int) -> Period:
        """Return the period's first minute and the one after its last, as known at the booked minute.

        It is the customer's billing period; of several contracts in force at the usage the first in the list
        decides. Without a customer or a contract it is the calendar month in UTC.
        """
        revision = self._history.at(booked_minute * MS_PER_MINUTE)
        key = (tenant, usage_minute, revision.known_from_ms)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _CACHE_MAX:
                self._known.clear()
            found = self._known[key] = self._compute(revision, tenant, usage_minute)
        return found

    def horizon(self, booked_minute: int) -> int:
        """Return the minute before which nothing counts as seen for a fact of that booked minute.

        No event can ask for a period that began earlier: the longest period plus the time an event may come late.
        It never goes back, so what lies before it may be forgotten. It follows from the revisions known by then, not
        from those the process happens to know, nor from the files that still exist.
        """
        horizon = 0
        for number, (start, span) in enumerate(zip(self._starts, self._spans_minutes, strict=True)):
            if number > 0 and start > booked_minute:
                break
            following = self._starts[number + 1] if number + 1 < len(self._starts) else booked_minute
            horizon = max(horizon, min(following, booked_minute) - span)
        return horizon

    def _compute(self, revision: Revision, tenant: str, usage_minute: int) -> Period:
        when = _EPOCH + timedelta(minutes=usage_minute)
        customer = self._index(revision).customer_at(tenant, usage_minute * US_PER_MINUTE)
        contract = None if customer is None else _contract_at(customer, when)
        period = _CALENDAR_MONTH if contract is None else contract.billing_period
        start, end = billing_period(period, when if contract is None else contract.from_, when)
        return (start - _EPOCH) // timedelta(minutes=1), (end - _EPOCH) // timedelta(minutes=1)

    def _index(self, revision: Revision) -> SubjectIndex:
        index = self._subjects.get(revision.known_from_ms)
        if index is None:
            index = self._subjects[revision.known_from_ms] = SubjectIndex(revision)
        return index


def _contract_at(customer: Customer, when: datetime) -> Contract | None:
    for contract in customer.contracts:
        if contract.from_ <= when and (contract.to is None or when < contract.to):
            return contract
    return None


def _minutes_max(revision: Revision) -> int:
    """Return the longest period of any contract plus the time an event may come late, with two days to spare."""
    periods = [
        contract.billing_period for customer in revision.configuration.customers for contract in customer.contracts
    ]
    days = max([_DAYS_MAX["month"], *(_DAYS_MAX[period.unit] * period.count for period in periods)])
    return (days + revision.rules.too_old_days + 2) * _MINUTES_PER_DAY


def with_keys(rows: pl.DataFrame, periods: Periods) -> pl.DataFrame:
    """Fill in `key_hi` and `key_lo` where null: the digest of series, period and value."""
    missing = rows.filter(pl.col("key_hi").is_null())
    if missing.is_empty():
        return rows
    places = missing.select(_PLACE).unique()
    heads = [_head(periods, *place) for place in places.iter_rows()]
    table = places.with_columns(pl.Series("head", heads, dtype=pl.Binary))
    digests = [
        xxh3_128_digest(head + hi.to_bytes(8, "big") + lo.to_bytes(8, "big"))
        for head, hi, lo in missing.join(table, on=_PLACE, how="left", maintain_order="left")
        .select("head", "unique_hi", "unique_lo")
        .iter_rows()
    ]
    words = np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64).reshape(-1, 2)
    keyed = missing.with_columns(key_hi=pl.Series(words[:, 0]), key_lo=pl.Series(words[:, 1]))
    return pl.concat([rows.filter(pl.col("key_hi").is_not_null()), keyed])


def _head(periods: Periods, meter: str, tenant: str, dimensions: str, usage_minute: int, booked_minute: int) -> bytes:
    start, end = periods.period(tenant, usage_minute, booked_minute)
    texts = "".join(f"{len(text)}:{text}" for text in (meter, tenant, dimensions))
    return f"{texts}{start}:{end}:".encode()


def first_seen(keyed: pl.DataFrame, periods: Periods, seen: UniqueSet) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return how many values each fact saw first (fact key, `value` as count), and the rows that did.

    `keyed` holds rows of whole booked minutes with their keys.
    """
    firsts = keyed.sort("booked_minute", "usage_minute", "key_hi", "key_lo").unique(
        subset=["key_hi", "key_lo"], keep="first", maintain_order=True
    )
    minutes = firsts.get_column("booked_minute")
    horizons = {minute: periods.horizon(minute) for minute in minutes.unique().to_list()}
    known, _, _ = seen.find(
        firsts.get_column("key_hi").to_numpy(),
        firsts.get_column("key_lo").to_numpy(),
        minutes.replace_strict(horizons, return_dtype=pl.Int64).to_numpy(),
    )
    new = firsts.filter(~pl.Series(known))
    return new.group_by(FACT_KEY).agg(pl.len().alias("value")), new


def remember(new: pl.DataFrame, seen: UniqueSet) -> None:
    """Add what sealed minutes saw first to the exact set, day by day, in the order of the minutes."""
    days = new.get_column("booked_minute") // _MINUTES_PER_DAY
    for day in days.unique().sort().to_list():
        part = new.filter(days == day)
        seen.append(
            part.get_column("key_hi").to_numpy(),
            part.get_column("key_lo").to_numpy(),
            part.get_column("usage_minute").cast(pl.UInt64).to_numpy(),
            part.get_column("booked_minute").cast(pl.UInt32).to_numpy(),
        )
