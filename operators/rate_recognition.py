"""Recognition: which part of a charge is revenue to date (design 2.5).

`as_billable`: revenue is the amount. `ratable`: revenue to date is the charge to date times the elapsed share of
the time in which the charge is in force in its period. The difference goes to a contract asset or liability.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from config.entities import Entity
from config.periods import named_period
from operators.rate_chains import RECOGNITION, ZERO, Chain, Step, quantized
from operators.rate_terms import ContractTimeline, Terms, microseconds
from operators.rate_touches import US_PER_HOUR, BookedAt
from operators.rating.charges import amount
from operators.rating.schema import Flat, Simple


@dataclass(frozen=True, slots=True)
class Recognition:
    """The time over which a ratable charge becomes revenue, and whose books it goes to."""

    begins_us: int
    ends_us: int
    entity: Entity
    booked: BookedAt
    base: Decimal | None = None
    """The charge to date where it is known ahead, as a flat fee is; None: what is booked to date."""

    def of(self, chain: Chain) -> Decimal:
        """Return the charge to date."""
        return chain.total if self.base is None else self.base

    def elapsed(self, time_us: int) -> Fraction:
        """Return the share of the time that has passed."""
        if time_us >= self.ends_us:
            return Fraction(1)
        return Fraction(max(0, time_us - self.begins_us), self.ends_us - self.begins_us)


def recognition_of(timeline: ContractTimeline, terms: Terms, charge: Simple, booked: BookedAt) -> Recognition | None:
    """Return how the charge is recognised under these terms, None if revenue is the amount."""
    if not charge.is_ratable:
        return None
    covered = timeline.covered(terms.period_start, terms.period_end, terms.plan_version)
    if covered is None:
        return None
    base = None
    if isinstance(charge, Flat):
        share = timeline.share(terms.period_start, terms.period_end, terms.plan_version)
        base = quantized(amount(charge, ZERO, share=share))
    begins, ends = covered
    return Recognition(microseconds(begins), microseconds(ends), terms.entity, booked, base)


def share_of(amount: Decimal, share: Fraction) -> Decimal:
    """Return that share of an amount with 12 places, half-even."""
    return Decimal(round(Fraction(amount) * share * 10**12)).scaleb(-12)


def recognise(chain: Chain, steps: Sequence[Step], recognition: Recognition | None) -> list[Step]:
    """Return the steps just taken on a chain with their revenue, and bring it up to date.

    A step that is booked in a fiscal month that ended before takes revenue up to that end only; what the time
    since adds to it is recognised behind it, in its own month.
    """
    if not steps:
        return []
    if recognition is None:
        result = [step._replace(revenue_before=step.before, revenue_after=step.after) for step in steps]
        # Differs only if the charge was ratable before a revision; then all of it is revenue now.
        result[0] = result[0]._replace(revenue_before=chain.revenue)
        chain.revenue = steps[-1].after
        return result
    used_us = max((step.usage_hour + 1) * US_PER_HOUR for step in steps)
    through_us = max(chain.recognised_us, min(used_us, recognition.ends_us))
    result = []
    for step in steps:
        month_ends = named_period(recognition.entity, step.accounting_period).end
        upto_us = min(through_us, microseconds(month_ends))
        before = chain.revenue
        chain.revenue += share_of(step.after - step.before, recognition.elapsed(upto_us))
        result.append(step._replace(revenue_before=before, revenue_after=chain.revenue))
        is_current = upto_us == through_us
    last = result[-1]
    if is_current:
        chain.revenue = share_of(recognition.of(chain), recognition.elapsed(through_us))
        chain.recognised_us = through_us
        result[-1] = last._replace(revenue_after=chain.revenue)
        return result
    return [*result, *recognise_until(chain, recognition, through_us, last.version)]


def recognise_changed(chain: Chain, recognition: Recognition | None, place: tuple[int, str, str]) -> list[Step]:
    """Return the step that makes all of a charge revenue that a revision no longer calls ratable."""
    before, total = chain.revenue, chain.total
    if recognition is not None or before == total:
        return []
    chain.revenue = total
    return [Step(*place, RECOGNITION, ZERO, 0, total, total, 1, before, total)]


def recognise_until(chain: Chain, recognition: Recognition, time_us: int, version: int = 1) -> list[Step]:
    """Bring a chain's revenue to what the elapsed time makes of its charge; return the step if that changes it."""
    through_us = max(chain.recognised_us, min(time_us, recognition.ends_us))
    chain.recognised_us = through_us
    before, chain.revenue = chain.revenue, share_of(recognition.of(chain), recognition.elapsed(through_us))
    if chain.revenue == before:
        return []
    total = chain.total
    place = recognition.booked.place(recognition.entity, through_us)
    return [Step(*place, RECOGNITION, ZERO, 0, total, total, version, before, chain.revenue)]
