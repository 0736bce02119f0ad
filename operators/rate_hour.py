"""Rates one booked hour of one shard: usage, usage that got a price, period ends, and what stays unrated."""

from datetime import timedelta
from io import BytesIO
from typing import Any, Final

import polars as pl

from config.period_closes import NONE_RECORDED, PeriodCloses
from config.periods import accounting_period
from core.frames import RATED_SCHEMA, Schema
from operators.rate_chains import ChainKey, Step, has_period_end, key_of, rate_period_end, rate_usage
from operators.rate_periods import Closing, PeriodEnds
from operators.rate_resolve import SLICE_SCHEMA, Resolved, resolve
from operators.rate_rows import SEALED, Rows, exceptions, unrated_groups, unrated_rows
from operators.rate_store import ChainStore, frame_bytes, pack, unpack
from operators.rate_terms import Terms, TermsIndex, first_minute, microseconds, moment, shard_of
from operators.rate_touches import booking_period, touched
from operators.rating.charges import Charge

PENDING_SCHEMA: Final[Schema] = SLICE_SCHEMA | {"customer": pl.String}
PENDING_ROWS_MAX: Final = 1_000_000
"""Usage beyond this, per shard, stays in the books as unrated but is not kept for a later price."""
MARGIN_DAYS: Final = 40
"""Chains and pending usage are kept this long after the last moment at which late usage may come."""

_Job = tuple[Terms, Charge, list[Step]]


class HourRater:
    """The rating state of one shard: chains, period ends, usage without a price, exceptions raised."""

    def __init__(self, shard: int, shards: int, state: dict[str, Any] | None) -> None:
        state = state or {}
        self._shard = shard
        self._shards = shards
        self.chains = ChainStore(state.get("chains"))
        self.period_ends = PeriodEnds(shard, shards, unpack(state["contracts"]) if state else None)
        self._pending = pl.read_ipc(BytesIO(state["pending"])) if state else _no_pending()
        self._pending_bytes: bytes | None = state.get("pending")
        self._raised: dict[str, int] = unpack(state["raised"]) if state else {}
        self._swept_day = int(state.get("swept_day", 0))

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain values."""
        if self._pending_bytes is None:
            self._pending_bytes = frame_bytes(self._pending)
        return {
            "chains": self.chains.snapshot(),
            "contracts": pack(self.period_ends.plain()),
            "pending": self._pending_bytes,
            "raised": pack(self._raised),
            "swept_day": self._swept_day,
        }

    def rate(
        self,
        hour: int,
        facts: pl.DataFrame,
        index: TermsIndex,
        *,
        revised: bool,
        closes: PeriodCloses = NONE_RECORDED,
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Rate a booked hour and return its rows and exceptions. `revised`: the revision differs from before."""
        self._sweep(hour, index)
        config_version = index.revision.version
        new = facts.with_columns(pl.lit("").alias("customer")).select(list(PENDING_SCHEMA))
        taken_back = pl.DataFrame(schema=RATED_SCHEMA)
        priced_now = _no_pending()
        if revised and len(self._pending):
            priced_now = self._price_pending(index)
            speaks = priced_now.filter(self._speaks_for(priced_now))
            taken_back = unrated_rows(self._groups(speaks, index), hour, config_version, -1)
        resolved = resolve(pl.concat([new, priced_now]).drop("customer"), index, self._shards)
        jobs = self._rate_usage(hour, resolved, index, closes)
        self._rate_period_ends(hour, index, jobs, closes)
        rows = Rows(hour, config_version, SEALED)
        for key in sorted(jobs):
            terms, charge, steps = jobs[key]
            for step in steps:
                rows.add(key, terms.entity.id, charge.meter, terms.currency, step)
        self._keep_pending(resolved)
        speaks = resolved.unpriced.filter(self._speaks_for(resolved.unpriced))
        groups = self._groups(speaks, index)
        unrated = unrated_rows(groups, hour, config_version, 1)
        return pl.concat([rows.frame(), taken_back, unrated]), self._new_exceptions(groups, hour)

    # --- usage -----------------------------------------------------------------------------------------

    def _rate_usage(
        self, hour: int, resolved: Resolved, index: TermsIndex, closes: PeriodCloses
    ) -> dict[ChainKey, _Job]:
        jobs: dict[ChainKey, _Job] = {}
        for key, target in touched(resolved, index.revision, self._shard, hour, closes):
            chain = self.chains.take(key, microseconds(target.terms.period_end))
            steps = rate_usage(chain, target.charge, target.in_order(), hour, target.merge)
            jobs[key] = (target.terms, target.charge, steps)
        return jobs

    # --- period ends -----------------------------------------------------------------------------------

    def _rate_period_ends(self, hour: int, index: TermsIndex, jobs: dict[ChainKey, _Job], closes: PeriodCloses) -> None:
        """Make the final run of what closes in this hour, and again for closed periods that were touched."""
        for closing in self.period_ends.close(index, hour):
            for terms in _closing_terms(closing, index):
                for charge in terms.pricing.charges:
                    if has_period_end(charge) and not charge.looks_at_each_event:
                        jobs.setdefault(key_of(terms, charge), (terms, charge, []))
        for key, (terms, charge, steps) in jobs.items():
            contract = (terms.customer, terms.contract.id)
            if not has_period_end(charge):
                continue
            if not self.period_ends.is_closed(contract, terms.period_start, terms.period_end):
                continue
            chain = self.chains.take(key, microseconds(terms.period_end))
            last = first_minute(terms.period_end) - 1
            fiscal = accounting_period(terms.entity, moment(last))
            booked = booking_period(terms.entity, fiscal, hour, closes)
            timeline = index.timelines[contract]
            share = timeline.share(terms.period_start, terms.period_end, terms.plan_version)
            step = rate_period_end(chain, charge, share, last // 60, booked, fiscal.name)
            if step is not None:
                steps.append(step)

    # --- usage without a price -------------------------------------------------------------------------

    def _price_pending(self, index: TermsIndex) -> pl.DataFrame:
        """Remove and return the pending usage that the revision prices, for whichever shard."""
        rows = self._pending.with_row_index("row")
        resolved = resolve(rows.rename({"customer": "was"}), index, self._shards)
        matched = resolved.priced.get_column("row").unique().sort()
        if not len(matched):
            return _no_pending()
        found = self._pending[matched]
        self._set_pending(rows.join(matched.to_frame(), on="row", how="anti").drop("row"))
        return found

    def _keep_pending(self, resolved: Resolved) -> None:
        if resolved.unpriced.is_empty():
            return
        room = max(0, PENDING_ROWS_MAX - len(self._pending))
        kept = resolved.unpriced.select(list(PENDING_SCHEMA)).sort(list(SLICE_SCHEMA)).head(room)
        self._set_pending(pl.concat([self._pending, kept]))

    def _set_pending(self, frame: pl.DataFrame) -> None:
        self._pending = frame
        self._pending_bytes = None

    def _speaks_for(self, frame: pl.DataFrame) -> pl.Series:
        subjects = frame.get_column("tenant")
        mine = {name for name in subjects.unique() if shard_of(name, self._shards) == self._shard}
        return subjects.is_in(list(mine))

    def _groups(self, unpriced: pl.DataFrame, index: TermsIndex) -> pl.DataFrame:
        if "usage_hour" not in unpriced.columns:
            unpriced = unpriced.with_columns((pl.col("usage_minute") // 60).alias("usage_hour"))
        aggregations = {meter.id: meter.aggregation for meter in index.revision.configuration.meters}
        return unrated_groups(unpriced, aggregations)

    def _new_exceptions(self, groups: pl.DataFrame, hour: int) -> pl.DataFrame:
        frame = exceptions(groups, hour)
        frame = frame.filter(~pl.col("identity").is_in(list(self._raised)))
        self._raised |= dict.fromkeys(frame.get_column("identity"), hour)
        return frame

    # --- limits ----------------------------------------------------------------------------------------

    def _sweep(self, hour: int, index: TermsIndex) -> None:
        """Once a booked day, forget what no late usage can reach any more."""
        day = hour // 24
        if day <= self._swept_day:
            return
        self._swept_day = day
        kept_from = moment(hour * 60) - timedelta(days=index.revision.rules.too_old_days + MARGIN_DAYS)
        self.chains.drop_ended_before(microseconds(kept_from))
        old = pl.col("usage_minute") < first_minute(kept_from)
        if len(self._pending.filter(old)):
            self._set_pending(self._pending.filter(~old))
        oldest_hour = first_minute(kept_from) // 60
        self._raised = {identity: raised for identity, raised in self._raised.items() if raised >= oldest_hour}


def _no_pending() -> pl.DataFrame:
    return pl.DataFrame(schema=PENDING_SCHEMA)


def _closing_terms(closing: Closing, index: TermsIndex) -> list[Terms]:
    """Return the terms at the end of each plan version's part of the period."""
    timeline = index.timelines[closing.contract]
    begins, ends = first_minute(closing.start), first_minute(closing.end)
    found = []
    for span in timeline.spans:
        last = min(span.ends, timeline.ends, ends) - 1
        if last >= max(span.begins, timeline.begins, begins):
            terms = timeline.at(last)[2]
            if terms is not None:
                found.append(terms)
    return found
