"""Commitments of a contract: promised amounts that its charges draw down (prepaid) or have to reach (postpaid).

An account per commitment and commitment period follows the contract's charges as they are booked, in whole minor
units (the rounded cumulative of each charge, so that balance and shortfall are amounts that can be paid). What is
drawn, missing or forfeited to date is a function of the account's totals, and rows are differences of it:

- prepaid: drawn to date = what is eligible, between zero and the balance. The charge's row keeps its cumulative and
  is booked without the covered part; a `drawdown` row books that part against the prepaid liability.
- postpaid: the `true_up` is what the eligible charges fall short of the amount at the period's end.
- prepaid, at its end: `breakage` is the balance nobody drew.

A charge belongs to the commitment period that holds its usage hour. Late usage changes both exactly.
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, NamedTuple

from config.customers import Commitment
from config.periods import billing_period, covered_days
from operators.cents import cents
from operators.rate_chains import BREAKAGE, DRAWDOWN, RECOGNITION, TRUE_UP, ZERO, Chain, ChainKey, Step
from operators.rate_periods import COMMITMENT, Closing, PeriodEnds, commitment_period
from operators.rate_recognition import Recognition, share_of
from operators.rate_store import pack, unpack
from operators.rate_terms import EPOCH, ContractTimeline, TermsIndex, microseconds, moment
from operators.rate_touches import BookedAt

MOMENT: Final = timedelta(microseconds=1)


class AccountKey(NamedTuple):
    """One commitment of a contract in one of its periods."""

    customer: str
    contract: str
    commitment: str
    start_us: int


@dataclass(slots=True)
class Account:
    """What a commitment has come to. All but `eligible` and `drawn` is as booked."""

    eligible: Decimal = ZERO
    drawn: Decimal = ZERO
    extra: Decimal = ZERO
    revenue: Decimal = ZERO
    end_us: int = 0

    def plain(self) -> list[Any]:
        """Return the state as plain values."""
        return [str(self.eligible), str(self.drawn), str(self.extra), str(self.revenue), self.end_us]

    @classmethod
    def from_plain(cls, plain: list[Any]) -> "Account":
        """Read the state back."""
        *amounts, end_us = plain
        eligible, drawn, extra, revenue = map(Decimal, amounts)
        return cls(eligible, drawn, extra, revenue, end_us)


@dataclass(frozen=True, slots=True)
class CommitmentRow:
    """A row of a commitment itself, outside any charge."""

    key: ChainKey
    entity: str
    currency: str
    step: Step


@dataclass(slots=True)
class Commitments:
    """The accounts of one shard."""

    accounts: dict[AccountKey, Account] = field(default_factory=dict)
    _bytes: bytes | None = None
    _touched: set[AccountKey] = field(default_factory=set)

    @classmethod
    def load(cls, state: bytes | None) -> "Commitments":
        """Read the state back."""
        if state is None:
            return cls()
        return cls({AccountKey(*key): Account.from_plain(plain) for *key, plain in unpack(state)}, state)

    def snapshot(self) -> bytes:
        """Return the state as bytes, the same ones while nothing changes."""
        if self._bytes is None:
            self._bytes = pack([[*key, account.plain()] for key, account in sorted(self.accounts.items())])
        return self._bytes

    def drop_ended_before(self, time_us: int) -> None:
        """Forget accounts of periods that ended before that time."""
        old = [key for key, account in self.accounts.items() if account.end_us < time_us]
        for key in old:
            del self.accounts[key]
        if old:
            self._bytes = None

    def touch(self, contracts: AbstractSet[tuple[str, str]]) -> None:
        """Look at the accounts of these (customer, contract) pairs again: a revision changed their terms."""
        self._touched |= {key for key in self.accounts if (key.customer, key.contract) in contracts}

    # --- charges -----------------------------------------------------------------------------------------

    def draw(self, key: ChainKey, chain: Chain, steps: list[Step], currency: str, timeline: ContractTimeline) -> None:
        """Let a chain's new steps count for the contract's commitments; covered parts become drawdown rows."""
        applying = [one for one in timeline.commitments.values() if not one.applies_to or key.charge in one.applies_to]
        if not applying:
            return
        applying.sort(key=lambda one: (one.priority, one.id))
        drawn: dict[tuple[int, str, str], tuple[Decimal, int]] = {}
        for number, step in enumerate(steps):
            change = cents(step.after, currency) - cents(step.before, currency)
            if not change:
                continue
            when = max(moment(step.usage_hour * 60), EPOCH + timedelta(microseconds=key.period_start_us))
            covered = self._count(applying, key, when, change, currency, timeline)
            if covered:
                steps[number] = step._replace(covered=covered)
                known, _ = drawn.get(step.place, (ZERO, 0))
                drawn[step.place] = known + covered, step.version
        for place, (amount, version) in sorted(drawn.items()):
            if amount:
                before, chain.drawn = chain.drawn, chain.drawn + amount
                steps.append(Step(*place, DRAWDOWN, ZERO, 0, before, chain.drawn, version, before, chain.drawn))

    def _count(
        self,
        applying: list[Commitment],
        key: ChainKey,
        when: datetime,
        change: Decimal,
        currency: str,
        timeline: ContractTimeline,
    ) -> Decimal:
        """Count a charge for all commitments that it belongs to, and return how much of it the prepaid ones cover."""
        rest = change
        for one in applying:
            found = self._account(key, one, when, currency, timeline)
            if found is None:
                continue
            if one.type == "postpaid":
                found.eligible += change
                continue
            found.eligible += rest
            drawn = min(cents(one.amount, currency), max(found.eligible, ZERO))
            rest -= drawn - found.drawn
            found.drawn = drawn
        return change - rest

    def _account(
        self, key: ChainKey, one: Commitment, when: datetime, currency: str, timeline: ContractTimeline
    ) -> Account | None:
        expired = one.expires is not None and when >= one.expires
        if expired or currency != timeline.currency:
            return None
        start, end = commitment_period(timeline, one, timeline.within(when))
        place = AccountKey(key.customer, key.contract, one.id, microseconds(start))
        self._bytes = None
        self._touched.add(place)
        return self.accounts.setdefault(place, Account(end_us=microseconds(end)))

    # --- ends of periods -----------------------------------------------------------------------------------

    def rows(
        self,
        closings: Iterable[Closing],
        days: Iterable[Closing],
        ends: PeriodEnds,
        index: TermsIndex,
        booked: BookedAt,
    ) -> list[CommitmentRow]:
        """Return the rows of accounts that were touched, closed, or whose revenue follows the time."""
        due: dict[AccountKey, datetime | None] = dict.fromkeys(self._touched)
        self._touched = set()
        for closing in closings:
            due.setdefault(AccountKey(*closing.contract, closing.commitment, microseconds(closing.start)))
        for day in days:
            timeline = index.timelines[day.contract]
            for one in timeline.commitments.values():
                if one.recognition == "ratable":
                    start, _ = commitment_period(timeline, one, timeline.within(day.end - MOMENT))
                    due[AccountKey(*day.contract, one.id, microseconds(start))] = day.end
        found = []
        for key, until in sorted(due.items()):
            timeline_of = index.timelines.get((key.customer, key.contract))
            one_of = timeline_of.commitments.get(key.commitment) if timeline_of is not None else None
            if timeline_of is not None and one_of is not None:
                found += self._row(key, one_of, timeline_of, until, ends, booked)
        return found

    def _row(
        self,
        key: AccountKey,
        one: Commitment,
        timeline: ContractTimeline,
        until: datetime | None,
        ends: PeriodEnds,
        booked: BookedAt,
    ) -> list[CommitmentRow]:
        start = EPOCH + timedelta(microseconds=key.start_us)
        end = commitment_period(timeline, one, timeline.within(start))[1]
        account = self.accounts.setdefault(key, Account(end_us=microseconds(end)))
        promised = promised_amount(timeline, one, start)
        begins_us = microseconds(max(start, timeline.contract.from_))
        recognition = Recognition(begins_us, microseconds(end), timeline.entity, booked)
        time_us = recognition.ends_us
        before, revenue_before = account.extra, account.revenue
        if ends.is_closed((key.customer, key.contract), start, end, COMMITMENT + key.commitment):
            missing = promised - (account.eligible if one.type == "postpaid" else account.drawn)
            account.extra = account.revenue = max(missing, ZERO)
        elif until is not None:
            time_us = min(microseconds(until), time_us)
            earned = share_of(promised, recognition.elapsed(time_us))
            account.revenue = max(earned - account.eligible, ZERO)
        if (account.extra, account.revenue) == (before, revenue_before):
            return []
        self._bytes = None
        kind = RECOGNITION
        if account.extra != before:
            kind = TRUE_UP if one.type == "postpaid" else BREAKAGE
        place = booked.place(timeline.entity, time_us)
        step = Step(*place, kind, ZERO, 0, before, account.extra, 1, revenue_before, account.revenue)
        plan = timeline.contract.plan
        chain = ChainKey(key.customer, key.contract, plan, 0, COMMITMENT + key.commitment, "", key.start_us)
        return [CommitmentRow(chain, timeline.entity.id, timeline.currency, step)]


def promised_amount(timeline: ContractTimeline, one: Commitment, start: datetime) -> Decimal:
    """Return what the commitment comes to in its period that begins at `start`, in whole minor units.

    A postpaid one counts for the days on which the contract is in force; a prepaid one was paid as a whole.
    """
    contract = timeline.contract
    if one.type == "prepaid":
        return cents(one.amount, timeline.currency)
    periods = one.periods(contract)
    _, end = billing_period(periods, contract.from_, start)
    days = covered_days(periods, start, end, contract.from_, contract.to)
    return cents(share_of(one.amount, Fraction(*days)), timeline.currency)
