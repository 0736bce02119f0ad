"""Re-rates booked facts under another revision, apart from everything that is booked.

The rater of the flow does the work, so the result is what the flow would have booked. It is fed little: amounts are
differences of a cumulative charge, so only the usage to date at a few booked hours matters. Facts between two
moments at which anything changes that decides a price are merged first; 1 million facts become some thousand rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from config.periods import billing_period
from core.frames import FACT_SCHEMA, QUANTITY, RATED_SCHEMA, Schema
from core.quantities import exactly
from operators.rate_hour import MARGIN_DAYS, HourRater
from operators.rate_periods import commitment_period
from operators.rate_resolve import SLICE_SCHEMA, USAGE
from operators.rate_rows import UNRATED
from operators.rate_terms import ALWAYS, FOREVER, ContractTimeline, TermsIndex, first_minute, moment
from operators.rate_touches import merge_of

STEP_HOURS: Final = 4 * 24
"""Booked hours rated in one go. The rater forgets periods that no late usage can reach any more, with a margin of
five days more than usage and its voids can be late: a step must stay below that."""

AMOUNTS_BY: Final = ("customer", "contract", "charge", "period_start_us", "currency")
AMOUNTS_SCHEMA: Final[Schema] = {name: RATED_SCHEMA[name] for name in AMOUNTS_BY} | {
    "quantity": QUANTITY,
    "amount": QUANTITY,
}
"""What a charge of a contract comes to in one billing period and window of booked hours, in `currency` units."""

UNPRICED_SCHEMA: Final[Schema] = {"customer": pl.String, "tenant": pl.String, "meter": pl.String, "events": pl.Int64}


@dataclass(frozen=True, slots=True)
class Window:
    """Booked hours, in hours since 1970: `begins` is the first one, `ends` the first one behind it."""

    begins: int
    ends: int

    def checkpoints(self) -> list[int]:
        """Return the last booked hour of each step; the first one closes what was booked before the window."""
        return [self.begins - 1, *range(self.begins - 1 + STEP_HOURS, self.ends - 1, STEP_HOURS), self.ends - 1]


@dataclass(frozen=True, slots=True)
class Rerated:
    """The outcome under the other revision."""

    amounts: pl.DataFrame
    """AMOUNTS_SCHEMA, one row per key."""
    unpriced: pl.DataFrame
    """UNPRICED_SCHEMA: usage of the window without a price."""


def history_minute(index: TermsIndex, window: Window) -> int:
    """Return the earliest usage minute that can decide an amount of the window.

    It is the start of the earliest billing or commitment period that usage booked in the window can still touch.
    """
    reach = timedelta(days=index.revision.rules.too_old_days + MARGIN_DAYS)
    touched_from = moment(window.begins * 60) - reach
    starts = [touched_from]
    for timeline in index.timelines.values():
        contract = timeline.contract
        starts.append(billing_period(contract.billing_period, contract.from_, touched_from)[0])
        for one in contract.commitments:
            starts.append(commitment_period(timeline, one, timeline.within(touched_from))[0])
    return first_minute(min(starts))


class Collapse:
    """Merges facts that have the same price and the same step of booked hours."""

    def __init__(self, index: TermsIndex, window: Window) -> None:
        self._revision = index.revision
        self._checkpoints = window.checkpoints()
        self._begins = history_minute(index, window)
        # Usage of the future is refused some minutes ahead, so the end is safe a day later.
        self._ends = (window.ends + 24) * 60
        self._borders, self._timelines = _by_subject(index)

    def merge(self, facts: pl.DataFrame) -> pl.DataFrame:
        """Return facts (FACT_SCHEMA) of whole subjects as SLICE_SCHEMA with `step`, the place of the checkpoint."""
        cuts = self._cuts(facts.get_column("tenant").unique())
        ends = pl.DataFrame(
            {"booked_end": self._checkpoints, "step": range(len(self._checkpoints))},
            schema={"booked_end": pl.Int64, "step": pl.Int64},
        )
        frame = (
            facts.with_columns((pl.col("booked_minute") // 60).alias("booked_end"))
            .sort("booked_end")
            .join_asof(ends, on="booked_end", strategy="forward")
            .drop("booked_end")
            .sort("usage_minute")
            .join_asof(
                cuts,
                left_on="usage_minute",
                right_on="cut",
                by="tenant",
                strategy="backward",
                coalesce=False,
                check_sortedness=False,
            )
            .filter(pl.col("step").is_not_null() & pl.col("cut").is_not_null())
        )
        return pl.concat([self._merged(frame, merge) for merge in ("sum", "max", "min", "latest")])

    def _merged(self, frame: pl.DataFrame, merge: str) -> pl.DataFrame:
        """Merge the facts of the meters whose values come together in that way."""
        meters = [meter.id for meter in self._revision.configuration.meters]
        chosen = [meter for meter in meters if merge_of(self._revision, meter) == merge]
        frame = frame.filter(pl.col("meter").is_in(chosen))
        by = ["tenant", "meter", "dimensions", "step", "cut"]
        value = {
            "sum": pl.col("value").sum(),
            "max": pl.col("value").max(),
            "min": pl.col("value").min(),
            "latest": pl.col("value").last(),
        }[merge]
        if merge == "latest":
            frame = frame.sort("value_time_us", "booked_minute")
        merged = frame.group_by(by, maintain_order=merge == "latest").agg(
            pl.col("usage_minute").min(),
            pl.col("booked_minute").last(),
            value,
            pl.col("value_time_us").last(),
            pl.col("events").sum(),
            pl.col("version").sum(),
        )
        merged = merged.with_columns(pl.lit(USAGE, pl.UInt8).alias("kind"))
        return merged.select(*(pl.col(name).cast(dtype) for name, dtype in SLICE_SCHEMA.items()), "step")

    def _cuts(self, subjects: pl.Series) -> pl.DataFrame:
        rows = [(subject, cut) for subject in subjects for cut in self._cuts_of(subject)]
        return pl.DataFrame(rows, schema={"tenant": pl.String, "cut": pl.Int64}, orient="row").sort("cut")

    def _cuts_of(self, subject: str) -> Iterator[int]:
        """Yield the minutes at which the terms of the subject's usage may change."""
        borders = self._borders.get(subject, [])
        timelines = self._timelines.get(subject, [])
        minute = self._begins
        while minute < self._ends:
            yield minute
            ends = [self._ends, *(timeline.at(minute)[1] for timeline in timelines)]
            ends += borders
            ends += (end for timeline in timelines for end in _commitment_ends(timeline, minute))
            minute = min(end for end in ends if end > minute)


def _commitment_ends(timeline: ContractTimeline, minute: int) -> Iterator[int]:
    """Yield where the commitment periods around that minute end: with the usage hour that holds the end."""
    for one in timeline.contract.commitments:
        end = first_minute(commitment_period(timeline, one, timeline.within(moment(minute)))[1])
        yield -(-end // 60) * 60


def _by_subject(index: TermsIndex) -> tuple[dict[str, list[int]], dict[str, list[ContractTimeline]]]:
    """Return per subject the minutes at which its customer may change, and the contracts it may ever belong to."""
    borders: dict[str, list[int]] = {}
    timelines: dict[str, list[ContractTimeline]] = {}
    for customer in index.revision.configuration.customers:
        contracts = [index.timelines[customer.id, contract.id] for contract in customer.contracts]
        for subject in customer.subjects:
            timelines.setdefault(subject.id, []).extend(contracts)
            known = borders.setdefault(subject.id, [])
            known.append(ALWAYS if subject.from_ is None else first_minute(subject.from_))
            known.append(FOREVER if subject.to is None else first_minute(subject.to))
    return borders, timelines


@exactly
def rerate(slices: pl.DataFrame, index: TermsIndex, window: Window, first_booked_hour: int) -> Rerated:
    """Rate merged slices (see `Collapse`) and return what the window comes to.

    :param first_booked_hour: where billing starts if the rules do not say it in `books_open_at`.
    """
    rater = HourRater(0, 1, None)
    rater.period_ends.load(index, _open_from(index, window, first_booked_hour))
    rows = [pl.DataFrame(schema=RATED_SCHEMA)]
    for step, hour in enumerate(window.checkpoints()):
        usage = slices.filter(pl.col("step") == step).drop("step")
        rated, _ = rater.rate(hour, usage, index)
        if step:
            rows.append(rated)
    rated = pl.concat(rows)
    unpriced = rated.filter(pl.col("status") == UNRATED)
    unpriced = unpriced.group_by("customer", "tenant", "meter").agg(pl.col("events").sum())
    return Rerated(amounts(rated.filter(pl.col("status") != UNRATED)), unpriced.sort("customer", "tenant", "meter"))


def _open_from(index: TermsIndex, window: Window, first_booked_hour: int) -> datetime:
    """Return where billing starts; periods that ended long before the window are left out, they change nothing."""
    opened = index.revision.rules.books_open_at
    if opened is None:
        opened = moment(first_booked_hour * 60)
    return max(opened, moment(history_minute(index, window)))


def amounts(rows: pl.DataFrame) -> pl.DataFrame:
    """Return rated rows summed to AMOUNTS_SCHEMA."""
    summed = rows.group_by(AMOUNTS_BY).agg(pl.col("quantity").sum(), pl.col("amount").sum())
    return summed.select(pl.col(name).cast(dtype) for name, dtype in AMOUNTS_SCHEMA.items()).sort(AMOUNTS_BY)


def differences(booked: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    """Join two frames of AMOUNTS_SCHEMA; a key that only one of them has is zero in the other.

    Returns the key and quantity, amount_booked, amount_whatif and difference (what-if less booked).
    """
    zero = pl.lit(0).cast(QUANTITY)
    joined = booked.rename({"quantity": "quantity_booked", "amount": "amount_booked"}).join(
        other.rename({"quantity": "quantity_whatif", "amount": "amount_whatif"}),
        on=list(AMOUNTS_BY),
        how="full",
        coalesce=True,
    )
    numbers = ("quantity_booked", "quantity_whatif", "amount_booked", "amount_whatif")
    filled = joined.with_columns(pl.col(name).fill_null(zero) for name in numbers)
    difference = (pl.col("amount_whatif") - pl.col("amount_booked")).cast(QUANTITY).alias("difference")
    return filled.with_columns(difference).select(*AMOUNTS_BY, *numbers, "difference").sort(AMOUNTS_BY)


FACT_COLUMNS: Final = tuple(name for name in FACT_SCHEMA if name != "sealed")
"""What `Collapse.merge` needs of facts."""
