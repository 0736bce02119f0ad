"""Rates one booked hour of one shard: usage, usage that got a price, period ends, and what stays unrated."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import polars as pl

from config.period_closes import NONE_RECORDED, PeriodCloses
from config.periods import billing_period
from core.frames import EXCEPTION_SCHEMA, RATED_SCHEMA
from operators import rate_pending
from operators.rate_chains import (
    Chain,
    ChainKey,
    Step,
    has_period_end,
    key_of,
    rate_period_end,
    rate_price_change,
    rate_usage,
)
from operators.rate_commitments import CommitmentRow, Commitments
from operators.rate_pending import PENDING_SCHEMA, PendingUsage, no_pending
from operators.rate_periods import BILLING, DAYS, Closing, ContractKey, PeriodEnds
from operators.rate_prices import Price
from operators.rate_recognition import Recognition, recognise, recognise_changed, recognise_until, recognition_of
from operators.rate_resolve import Resolved, resolve
from operators.rate_rows import SEALED, Rows, exceptions, not_kept, unrated_groups, unrated_rows
from operators.rate_store import ChainStore, pack, unpack
from operators.rate_terms import EPOCH, Terms, TermsIndex, first_minute, microseconds, moment, shard_of
from operators.rate_touches import BookedAt, touched
from operators.rating.schema import Simple

MARGIN_DAYS: Final = 40
"""Chains and pending usage are kept this long after the last moment at which late usage may come."""
_MOMENT: Final = timedelta(microseconds=1)


@dataclass(slots=True)
class _Job:
    """What happens to one chain in the hour."""

    terms: Terms
    charge: Simple
    chain: Chain
    steps: list[Step] = field(default_factory=list)


_Jobs = dict[ChainKey, _Job]


class HourRater:
    """The rating state of one shard: chains, commitments, what is due, usage without a price, exceptions raised."""

    def __init__(self, shard: int, shards: int, state: dict[str, Any] | None) -> None:
        state = state or {}
        self._shard = shard
        self._shards = shards
        self.chains = ChainStore(state.get("chains"))
        self.period_ends = PeriodEnds(shard, shards, unpack(state["contracts"]) if state else None)
        self._commitments = Commitments.load(state.get("commitments"))
        self._pending = PendingUsage(shards, state.get("pending"))
        self._raised: dict[str, int] = unpack(state["raised"]) if state else {}
        self._swept_day = int(state.get("swept_day", 0))

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain values."""
        return {
            "chains": self.chains.snapshot(),
            "contracts": pack(self.period_ends.plain()),
            "commitments": self._commitments.snapshot(),
            "pending": self._pending.snapshot(),
            "raised": pack(self._raised),
            "swept_day": self._swept_day,
        }

    def rate(
        self,
        hour: int,
        facts: pl.DataFrame,
        index: TermsIndex,
        before: TermsIndex | None = None,
        closes: PeriodCloses = NONE_RECORDED,
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Rate a booked hour and return its rows and exceptions.

        :param before: the index of the revision before, in the first hour under another one (or the same index,
            where it is not known whether another one was in force).
        :param closes: the recorded closes of accounting periods that hold for the hour.
        """
        booked = BookedAt(hour, closes)
        self._sweep(hour, index)
        config_version = index.revision.version
        new = facts.with_columns(pl.lit("").alias("customer")).select(list(PENDING_SCHEMA))
        taken_back = pl.DataFrame(schema=RATED_SCHEMA)
        priced_now = no_pending()
        jobs: _Jobs = {}
        if before is not None:
            if len(self._pending):
                priced_now = self._pending.take_priced(index)
                speaks = priced_now.filter(self._speaks_for(priced_now))
                taken_back = unrated_rows(self._groups(speaks, index), hour, config_version, -1)
            self._rate_price_changes(booked, index, before, jobs)
        usage = pl.concat([new, priced_now]).drop("customer")
        # In most of the hours of recognition days there is none; then nothing has to be looked up.
        resolved = resolve(usage, index, self._shards) if len(usage) else None
        if resolved is not None:
            self._rate_usage(booked, resolved, index, jobs)
        closings = self.period_ends.close(index, hour)
        days = _days(closings)
        self._rate_days(booked, days, index, jobs)
        self._rate_period_ends(booked, closings, index, jobs)
        commitment_rows = self._rate_commitments(booked, closings, days, index, jobs)
        rows = Rows(hour, config_version, SEALED)
        for key, job in sorted(jobs.items(), key=lambda item: item[0]):
            for step in job.steps:
                rows.add(key, job.terms.entity.id, job.charge.meter, job.terms.currency, step)
        for row in commitment_rows:
            rows.add(row.key, row.entity, "", row.currency, row.step)
        if resolved is None:
            return pl.concat([rows.frame(), taken_back]), pl.DataFrame(schema=EXCEPTION_SCHEMA)
        beyond = self._pending.keep(resolved.unpriced)
        groups = self._groups(resolved.unpriced.filter(self._speaks_for(resolved.unpriced)), index)
        unrated = unrated_rows(groups, hour, config_version, 1)
        found = [exceptions(groups, hour)]
        if len(beyond):
            spoken = self._groups(beyond.filter(self._speaks_for(beyond)), index)
            found.append(not_kept(spoken, hour, rate_pending.PENDING_ROWS_MAX))
        return pl.concat([rows.frame(), taken_back, unrated]), self._new_exceptions(pl.concat(found), hour)

    def _job(self, terms: Terms, price: Price, jobs: _Jobs) -> _Job:
        key = key_of(terms, price)
        job = jobs.get(key)
        if job is None:
            job = jobs[key] = _Job(terms, price.charge, self.chains.take(key, microseconds(terms.period_end)))
        return job

    # --- usage and prices --------------------------------------------------------------------------------

    def _rate_usage(self, booked: BookedAt, resolved: Resolved, index: TermsIndex, jobs: _Jobs) -> None:
        for key, target in touched(resolved, index.revision, self._shard, booked.hour, booked.closes):
            job = self._job(target.terms, Price(target.charge, key.price_row), jobs)
            steps = rate_usage(job.chain, job.charge, target.in_order(), booked.hour, target.merge)
            job.steps += recognise(job.chain, steps, _recognition(job, index, booked))

    def _rate_price_changes(self, booked: BookedAt, index: TermsIndex, before: TermsIndex, jobs: _Jobs) -> None:
        """Bring what is booked to the prices of the first hour of a revision, where it changes a contract's."""
        changed = {key for key, timeline in index.timelines.items() if timeline.differs(before.timelines.get(key))}
        self._commitments.touch(changed)
        periods: dict[tuple[ContractKey, int], Terms] = {}
        settled: set[tuple[ContractKey, int]] = set()
        for key in self.chains.keys_of(changed):
            period = ((key.customer, key.contract), key.period_start_us)
            terms, charge = _terms_of(key, index)
            if terms is None and _is_outside(key, index):
                # Its usage keeps its price, and what the period's end or elapsed time added is taken back.
                terms, charge = _terms_of(key, before)
            if terms is None:
                settled.add(period)
            if terms is None or charge is None:
                continue
            periods[period] = terms
            job = self._job(terms, Price(charge, key.price_row), jobs)
            last_us = min(booked.hour * 60 + 60, first_minute(terms.period_end)) * 60_000_000
            place = booked.place(terms.entity, last_us)
            step = rate_price_change(job.chain, charge, place)
            recognition = _recognition(job, index, booked)
            job.steps += recognise(job.chain, [step] if step is not None else [], recognition)
            job.steps += recognise_changed(job.chain, recognition, place)
        for (contract, start_us), terms in periods.items():
            # A version with a past date has its days of a closed period, and owes for them without any usage too. Not
            # so where usage keeps a version that the contract no longer has: the period was settled by that one.
            is_closed = self.period_ends.is_closed(contract, terms.period_start, terms.period_end)
            if is_closed and (contract, start_us) not in settled:
                self._add_period_ends(contract, terms.period_start, terms.period_end, index, jobs)

    # --- time --------------------------------------------------------------------------------------------

    def _rate_days(self, booked: BookedAt, days: list[Closing], index: TermsIndex, jobs: _Jobs) -> None:
        """Recognise what the days that end in this hour make revenue; the rest of a period comes at its end."""
        for day in days:
            timeline = index.timelines[day.contract]
            contract = timeline.contract
            held_at = timeline.within(day.end - _MOMENT)
            for terms in timeline.terms_in(*billing_period(contract.billing_period, contract.from_, held_at)):
                self._recognise(terms, booked, index, jobs, microseconds(day.end))

    def _recognise(self, terms: Terms, booked: BookedAt, index: TermsIndex, jobs: _Jobs, until_us: int) -> None:
        for price in terms.pricing.prices:
            if price.charge.is_ratable and not price.charge.looks_at_each_event:
                job = self._job(terms, price, jobs)
                recognition = _recognition(job, index, booked)
                if recognition is not None:
                    job.steps += recognise_until(job.chain, recognition, until_us)

    def _rate_period_ends(self, booked: BookedAt, closings: list[Closing], index: TermsIndex, jobs: _Jobs) -> None:
        """Make the final run of what closes in this hour, and again for closed periods that were touched."""
        for closing in closings:
            if closing.calendar != BILLING:
                continue
            for terms in index.timelines[closing.contract].terms_in(closing.start, closing.end):
                self._recognise(terms, booked, index, jobs, microseconds(closing.end))
            self._add_period_ends(closing.contract, closing.start, closing.end, index, jobs)
        for job in jobs.values():
            terms = job.terms
            contract = (terms.customer, terms.contract.id)
            if not (has_period_end(job.charge) or job.chain.extra):
                continue
            if not self.period_ends.is_closed(contract, terms.period_start, terms.period_end):
                continue
            place = booked.place(terms.entity, microseconds(terms.period_end))
            share = index.timelines[contract].share(terms.period_start, terms.period_end, terms.plan_version)
            step = rate_period_end(job.chain, job.charge, share, place)
            if step is not None:
                job.steps += recognise(job.chain, [step], _recognition(job, index, booked))

    def _add_period_ends(
        self, contract: ContractKey, start: datetime, end: datetime, index: TermsIndex, jobs: _Jobs
    ) -> None:
        """Add a job for every price to which the period's end can add something, used or not."""
        for terms in index.timelines[contract].terms_in(start, end):
            for price in terms.pricing.prices:
                if has_period_end(price.charge) and not price.charge.looks_at_each_event:
                    self._job(terms, price, jobs)

    def _rate_commitments(
        self, booked: BookedAt, closings: list[Closing], days: list[Closing], index: TermsIndex, jobs: _Jobs
    ) -> list[CommitmentRow]:
        for key, job in sorted(jobs.items(), key=lambda item: item[0]):
            timeline = index.timelines[key.customer, key.contract]
            self._commitments.draw(key, job.chain, job.steps, job.terms.currency, timeline)
        ended = [closing for closing in closings if closing.calendar not in (BILLING, DAYS)]
        return self._commitments.rows(ended, days, self.period_ends, index, booked)

    # --- usage without a price ---------------------------------------------------------------------------

    def _speaks_for(self, frame: pl.DataFrame) -> pl.Series:
        subjects = frame.get_column("tenant")
        mine = {name for name in subjects.unique() if shard_of(name, self._shards) == self._shard}
        return subjects.is_in(list(mine))

    def _groups(self, unpriced: pl.DataFrame, index: TermsIndex) -> pl.DataFrame:
        if "usage_hour" not in unpriced.columns:
            unpriced = unpriced.with_columns((pl.col("usage_minute") // 60).alias("usage_hour"))
        aggregations = {meter.id: meter.aggregation for meter in index.revision.configuration.meters}
        return unrated_groups(unpriced, aggregations)

    def _new_exceptions(self, frame: pl.DataFrame, hour: int) -> pl.DataFrame:
        frame = frame.filter(~pl.col("identity").is_in(list(self._raised)))
        self._raised |= dict.fromkeys(frame.get_column("identity"), hour)
        return frame

    # --- limits ------------------------------------------------------------------------------------------

    def _sweep(self, hour: int, index: TermsIndex) -> None:
        """Once a booked day, forget what no late usage can reach any more."""
        day = hour // 24
        if day <= self._swept_day:
            return
        self._swept_day = day
        kept_from = moment(hour * 60) - timedelta(days=index.revision.rules.too_old_days + MARGIN_DAYS)
        self.chains.drop_ended_before(microseconds(kept_from))
        self._commitments.drop_ended_before(microseconds(kept_from))
        self._pending.drop_before(first_minute(kept_from))
        oldest_hour = first_minute(kept_from) // 60
        self._raised = {identity: raised for identity, raised in self._raised.items() if raised >= oldest_hour}


def _recognition(job: _Job, index: TermsIndex, booked: BookedAt) -> Recognition | None:
    timeline = index.timelines[job.terms.customer, job.terms.contract.id]
    return recognition_of(timeline, job.terms, job.charge, booked)


def _days(closings: list[Closing]) -> list[Closing]:
    """Return the days of recognition; of days that are due together, the last one of each month stands for all."""
    last: dict[tuple[tuple[str, str], int, int], Closing] = {}
    for closing in closings:
        if closing.calendar == DAYS:
            when = closing.end - _MOMENT
            last[closing.contract, when.year, when.month] = closing
    return list(last.values())


def _is_outside(key: ChainKey, index: TermsIndex) -> bool:
    """Return whether a revision moved the contract's start or end so that it has nothing of the chain's period."""
    contract = index.timelines[key.customer, key.contract].contract
    start = EPOCH + timedelta(microseconds=key.period_start_us)
    _, end = billing_period(contract.billing_period, contract.from_, start)
    return end <= contract.from_ or (contract.to is not None and contract.to <= start)


def _terms_of(key: ChainKey, index: TermsIndex) -> tuple[Terms | None, Simple | None]:
    """Return the terms and the price under which a chain goes on in this revision, if it does."""
    timeline = index.timelines.get((key.customer, key.contract))
    if timeline is None:
        return None, None
    start = EPOCH + timedelta(microseconds=key.period_start_us)
    contract = timeline.contract
    for terms in timeline.terms_in(*billing_period(contract.billing_period, contract.from_, start)):
        if (terms.plan, terms.plan_version, terms.period_start) == (key.plan, key.plan_version, start):
            return terms, terms.pricing.price(key.charge, key.price_row)
    return None, None
