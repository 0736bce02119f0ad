"""Under which terms a subject's usage is rated: customer, contract, plan version, billing and accounting period.

All of it follows from one configuration revision. Times are whole minutes since 1970-01-01T00:00Z, because usage
is known by the minute: a minute belongs to what was in force at its first moment.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import cached_property
from typing import Final
from zlib import crc32

from config.customers import Contract, Customer
from config.entities import Entity
from config.periods import AccountingPeriod, accounting_period, billing_period, covered_days
from config.revision import Revision
from operators.rate_prices import Pricing, Pricings

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE: Final = timedelta(minutes=1)
US_PER_MINUTE: Final = 60_000_000
FOREVER: Final = 1 << 40
ALWAYS: Final = -FOREVER
SHARDS_CACHED: Final = 16


def first_minute(when: datetime) -> int:
    """Return the first whole minute that begins at or after `when`."""
    return -((EPOCH - when) // MINUTE)


def moment(minute: int) -> datetime:
    """Return when that minute begins."""
    return EPOCH + minute * MINUTE


def microseconds(when: datetime) -> int:
    """Return Unix time in microseconds."""
    return (when - EPOCH) // timedelta(microseconds=1)


def shard_of(text: str, shards: int) -> int:
    """Return the customer shard that owns that customer (or speaks for that subject)."""
    return crc32(text.encode()) % shards


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """What stays the same for a contract's usage from one border to the next. Compared by identity."""

    customer: str
    contract: Contract
    entity: Entity
    plan: str
    plan_version: int
    currency: str
    pricing: Pricing
    period_start: datetime
    period_end: datetime
    fiscal: AccountingPeriod

    @property
    def period_start_us(self) -> int:
        """Return the billing period's start, in microseconds."""
        return microseconds(self.period_start)


@dataclass(frozen=True, slots=True)
class Span:
    """From one minute to another (exclusive), one version of the plan is in force."""

    begins: int
    ends: int
    version: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of minutes of a subject's usage with one owner and one set of terms."""

    begins: int
    ends: int
    customer: str
    terms: tuple[Terms, ...]


Interval = tuple[int, int, Terms | None]
"""From one minute to another (exclusive), and the terms in force if any."""


class ContractTimeline:
    """The terms of one contract over time; intervals are computed once and kept."""

    def __init__(self, revision: Revision, customer: str, contract: Contract, pricings: Pricings) -> None:
        self.customer = customer
        self.contract = contract
        self.entity = revision.entities[contract.entity]
        self.begins = first_minute(contract.from_)
        self.ends = FOREVER if contract.to is None else first_minute(contract.to)
        self.spans = version_spans(revision, contract)
        self.commitments = {one.id: one for one in contract.commitments}
        self.currency = revision.plans[contract.plan].versions[self.spans[0].version - 1].currency
        """Of the first version in force, and of commitments."""
        self._revision = revision
        self._pricings = pricings
        self._known: tuple[list[int], list[Interval]] = ([], [])

    @cached_property
    def has_ratable_charges(self) -> bool:
        """Return whether revenue of any charge follows elapsed time."""
        corrections = self._revision.configuration.price_corrections
        starts = [EPOCH, *(one.from_ for one in corrections if one.plan == self.contract.plan)]
        pricings = (self._pricings.of(self.contract, span.version, start) for span in self.spans for start in starts)
        return any(price.charge.is_ratable for pricing in pricings for price in pricing.prices)

    def differs(self, other: "ContractTimeline | None") -> bool:
        """Return whether the other revision's contract (if it has one) may come to other amounts."""
        if other is None:
            return True
        return self._content() != other._content()

    def _content(self) -> tuple[object, ...]:
        plan = self._revision.plans[self.contract.plan]
        corrections = [one for one in self._revision.configuration.price_corrections if one.plan == plan.id]
        return self.contract, self.entity, plan, corrections

    def at(self, minute: int) -> Interval:
        """Return the interval around that minute in which nothing changes, and its terms if any."""
        starts, intervals = self._known
        place = bisect_right(starts, minute) - 1
        if place >= 0 and minute < intervals[place][1]:
            return intervals[place]
        interval = self._interval(minute)
        place = bisect_right(starts, interval[0])
        # Replaced as a whole: threads that ask at once see the one pair or the other.
        self._known = (
            [*starts[:place], interval[0], *starts[place:]],
            [*intervals[:place], interval, *intervals[place:]],
        )
        return interval

    def _interval(self, minute: int) -> Interval:
        if minute < self.begins:
            return ALWAYS, self.begins, None
        if minute >= self.ends:
            return self.ends, FOREVER, None
        span = next((span for span in self.spans if span.begins <= minute < span.ends), None)
        if span is None:
            following = [each.begins for each in self.spans if each.begins > minute]
            return self.begins, min([self.ends, *following]), None
        when = moment(minute)
        start, end = billing_period(self.contract.billing_period, self.contract.from_, when)
        fiscal = accounting_period(self.entity, when)
        terms = Terms(
            self.customer,
            self.contract,
            self.entity,
            self.contract.plan,
            span.version,
            self._revision.plans[self.contract.plan].versions[span.version - 1].currency,
            self._pricings.of(self.contract, span.version, start),
            start,
            end,
            fiscal,
        )
        begins = max(self.begins, span.begins, first_minute(start), first_minute(fiscal.start))
        ends = min(self.ends, span.ends, first_minute(end), first_minute(fiscal.end))
        return begins, ends, terms

    def within(self, when: datetime) -> datetime:
        """Return that time, moved to the nearest one at which the contract is in force."""
        when = max(when, self.contract.from_)
        return when if self.contract.to is None else min(when, self.contract.to - timedelta(microseconds=1))

    def covered(self, start: datetime, end: datetime, version: int) -> tuple[datetime, datetime] | None:
        """Return the part of [start, end) in which this version of the contract is in force, None if it is not."""
        for span in self.spans:
            begins = max(span.begins, self.begins, first_minute(start))
            ends = min(span.ends, self.ends, first_minute(end))
            if span.version == version and begins < ends:
                return moment(begins), moment(ends)
        return None

    def share(self, start: datetime, end: datetime, version: int) -> Fraction:
        """Return the part of the period's days in which this version of the contract is in force."""
        covered = self.covered(start, end, version)
        if covered is None:
            return Fraction(0)
        return Fraction(*covered_days(self.contract.billing_period, start, end, *covered))

    def terms_in(self, start: datetime, end: datetime) -> list[Terms]:
        """Return the terms at the end of each plan version's part of a billing period."""
        found = []
        for span in self.spans:
            covered = self.covered(start, end, span.version)
            if covered is not None:
                terms = self.at(first_minute(covered[1]) - 1)[2]
                if terms is not None:
                    found.append(terms)
        return found


def version_spans(revision: Revision, contract: Contract) -> list[Span]:
    """Return which plan version is in force when: pinned by number, by the contract's start, or by usage time."""
    versions = revision.plans[contract.plan].versions
    if isinstance(contract.plan_version, int):
        return [Span(ALWAYS, FOREVER, contract.plan_version)]
    if contract.plan_version is None:
        in_force = [number for number, version in enumerate(versions, 1) if version.effective_from <= contract.from_]
        return [Span(ALWAYS, FOREVER, max(in_force, default=1))]
    starts = [first_minute(version.effective_from) for version in versions]
    spans = zip(starts, [*starts[1:], FOREVER], range(1, len(starts) + 1), strict=True)
    return [Span(begins, ends, number) for begins, ends, number in spans if begins < ends]


class TermsIndex:
    """Everything rating looks up in one revision."""

    def __init__(self, revision: Revision) -> None:
        self.revision = revision
        self.pricings = Pricings(revision)
        self.timelines: dict[tuple[str, str], ContractTimeline] = {}
        self._contracts: dict[str, list[ContractTimeline]] = {}
        self._subjects = _assignments(revision.configuration.customers)
        self._sets: dict[tuple[int, ...], tuple[Terms, ...]] = {}
        for customer in revision.configuration.customers:
            for contract in customer.contracts:
                timeline = ContractTimeline(revision, customer.id, contract, self.pricings)
                self.timelines[customer.id, contract.id] = timeline
                self._contracts.setdefault(customer.id, []).append(timeline)
        self.priced_meters = frozenset(
            str(raw["meter"])
            for plan in revision.configuration.plans
            for version in plan.versions
            for raw in version.charges
            if raw.get("meter")
        )
        """Meters that any charge prices. The others serve dashboards only, and rating leaves them alone."""

    def segments(self, subject: str, hour: int) -> list[Segment]:
        """Split one hour of a subject's usage where anything changes that decides its price."""
        found: list[Segment] = []
        minute, end = hour * 60, (hour + 1) * 60
        while minute < end:
            customer, ends = self._owner(subject, minute)
            terms: list[Terms] = []
            for timeline in self._contracts.get(customer, ()):
                _, until, in_force = timeline.at(minute)
                ends = min(ends, until)
                if in_force is not None:
                    terms.append(in_force)
            key = tuple(map(id, terms))
            found.append(Segment(minute, min(ends, end), customer, self._sets.setdefault(key, tuple(terms))))
            minute = ends
        return found

    def _owner(self, subject: str, minute: int) -> tuple[str, int]:
        ends = FOREVER
        for begins, until, customer in self._subjects.get(subject, ()):
            if begins <= minute < until:
                return customer, until
            if begins > minute:
                ends = min(ends, begins)
        return "", ends


def _assignments(customers: Sequence[Customer]) -> dict[str, list[tuple[int, int, str]]]:
    """Return per subject (begins, ends, customer): an assignment ends where the next one begins."""
    listed: dict[str, list[tuple[int, int, str]]] = {}
    for customer in customers:
        for subject in customer.subjects:
            begins = ALWAYS if subject.from_ is None else first_minute(subject.from_)
            ends = FOREVER if subject.to is None else first_minute(subject.to)
            listed.setdefault(subject.id, []).append((begins, ends, customer.id))
    result = {}
    for name, parts in listed.items():
        parts.sort()
        following = [begins for begins, _, _ in parts[1:]] + [FOREVER]
        result[name] = [
            (begins, min(ends, until), customer)
            for (begins, ends, customer), until in zip(parts, following, strict=True)
        ]
    return result


_INDEXES: dict[int, TermsIndex] = {}


def index_of(revision: Revision) -> TermsIndex:
    """Return the index of a revision, made once per process."""
    found = _INDEXES.get(id(revision))
    if found is None or found.revision is not revision:
        if len(_INDEXES) >= SHARDS_CACHED:
            _INDEXES.pop(next(iter(_INDEXES)), None)
        found = _INDEXES[id(revision)] = TermsIndex(revision)
    return found
