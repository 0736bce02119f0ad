"""Explains rated rows: from which quantity to which, at which prices, and that it ties with what is stored.

A row stores the amount to date before and after it, but the quantity of its own step only. The quantity to date is
the sum of the quantities of all rows of the charge and billing period up to it, so all of them are needed.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from itertools import groupby
from typing import Any, Final, NamedTuple

from config.periods import billing_period
from config.price_corrections import in_force
from config.revision import Revision
from core.quantities import exactly
from operators.rate_chains import DRAWDOWN, FEE, PRICE_CHANGE, REPRICING, TRUE_UP, ZERO, quantized
from operators.rate_periods import COMMITMENT
from operators.rate_terms import index_of
from operators.rating.charges import Charge
from operators.rating.explain import Difference, Explanation, compare, explain

Row = Mapping[str, Any]
"""A rated row by the columns of `rated_usage`; times are aware."""

RevisionOf = Callable[[str], Revision | None]

_CHAIN: Final = ("customer", "contract", "plan", "plan_version", "charge", "price_row", "period_start")
_PERIOD_END: Final = (FEE, TRUE_UP)
_PHASES: Final = {PRICE_CHANGE: 0, "recognition": 2, FEE: 3, TRUE_UP: 3}
"""Within a booked hour: prices that changed, usage (1), the passing of time, the period's end."""
_KINDS: Final = ("usage", "late_usage", "void", REPRICING)


@dataclass(frozen=True)
class RowExplanation:
    """What a row's amount is made of."""

    row: Row
    step: Difference | None = None
    """For usage: the charge before and after it."""
    final: Explanation | None = None
    """For a fee or true-up: the charge of the whole period, of which what was booked before is taken off."""
    expected: Decimal | None = None
    """What the calculation says that the row's difference is (its amount, and what a prepaid balance covers of it);
    None if it cannot be calculated."""
    notes: tuple[str, ...] = ()

    @property
    def ties(self) -> bool:
        """Tell whether the stored difference is the calculated one."""
        return self.expected is not None and self.expected == _difference(self.row)


class _Priced(NamedTuple):
    """The charge of a row, and the part of the period that its plan version was in force."""

    charge: Charge
    share: Fraction


class _Place(NamedTuple):
    """Where a chain stands after a row."""

    quantity: Decimal
    events: int
    charge: Charge | None
    """Under the configuration of that row."""


@exactly
def explain_rows(rows: Iterable[Row], revision_of: RevisionOf, wanted: Callable[[Row], bool]) -> list[RowExplanation]:
    """Return explanations of the wanted rows, in the order in which they were booked.

    :param rows: sealed rows, all of each charge and billing period since its start.
    :param revision_of: the recorded revision with that `config_version`, None if it is not recorded.
    """
    result: list[RowExplanation] = []
    ordered = sorted(rows, key=lambda row: (_identity(row), _order(row)))
    for _, members in groupby(ordered, key=_identity):
        result += [found for found in _explain_chain(list(members), revision_of) if wanted(found.row)]
    return sorted(result, key=lambda found: (_order(found.row), _identity(found.row)))


def _identity(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in _CHAIN)


def _hour(row: Row) -> tuple[Any, ...]:
    """Return what tells apart the steps in which usage is rated, in their order."""
    return row["booked_hour"], _PHASES.get(row["line_kind"], 1), row["usage_hour"], row["accounting_period"]


def _order(row: Row) -> tuple[Any, ...]:
    """Return the order in which rows of one charge and period were rated."""
    kind = row["line_kind"]
    return *_hour(row), _KINDS.index(kind) if kind in _KINDS else len(_KINDS)


def _explain_chain(rows: list[Row], revision_of: RevisionOf) -> list[RowExplanation]:
    result: list[RowExplanation] = []
    place, amount_after = _Place(ZERO, 0, None), ZERO
    for _, members in groupby(rows, key=_hour):
        begins, held_back = place, ZERO
        for row in members:
            priced = _priced(row, revision_of(row["config_version"]))
            charge = priced.charge if isinstance(priced, _Priced) else place.charge
            after = _Place(place.quantity + row["quantity"], place.events + row["events"], charge)
            if not isinstance(priced, _Priced):
                found = RowExplanation(row, notes=(priced,))
            elif row["line_kind"] in _PERIOD_END:
                found = _of_period_end(row, priced, after)
            elif row["line_kind"] == REPRICING:
                found = replace(_of_usage(row, priced.charge, begins, after), expected=held_back)
            else:
                found = _of_usage(row, priced.charge, place, after)
                if _is_held_back(found):
                    held_back += found.expected or ZERO
                    found = _without_drop(found)
            if row["line_kind"] == PRICE_CHANGE:
                found = replace(found, notes=(*found.notes, *_correction(row, revision_of(row["config_version"]))))
            if row["line_kind"] == DRAWDOWN:
                result.append(found)  # it counts what was drawn to date, beside the charge
                continue
            covered = _difference(row) - row["amount"]
            if covered:
                note = f"a prepaid commitment covers {covered:f} of it, booked in this hour's {DRAWDOWN} line"
                found = replace(found, notes=(*found.notes, note))
            if row["amount_before"] != amount_after:
                gap = f"the row before it ends at {amount_after:f}: rows of this charge and period are missing"
                found = replace(found, notes=(*found.notes, gap))
            result.append(found)
            place, amount_after = after, row["amount_after"]
    return result


def _difference(row: Row) -> Decimal:
    difference: Decimal = row["amount_after"] - row["amount_before"]
    return difference


def _priced(row: Row, revision: Revision | None) -> _Priced | str:
    """Return the row's charge and share of the period, or why it cannot be priced again."""
    if revision is None:
        return f"configuration {row['config_version']} is not in the ledger's journal"
    index = index_of(revision)
    timeline = index.timelines.get((row["customer"], row["contract"]))
    if timeline is None:
        return f"configuration {row['config_version']} has no contract {row['contract']!r}: the usage has no price"
    contract = timeline.contract
    if row["charge"].startswith(COMMITMENT) or row["line_kind"] == DRAWDOWN:
        return f"a line of kind {row['line_kind']} follows from a commitment of the contract, not from a price"
    charge = index.pricings.of(contract, row["plan_version"], row["period_start"]).price(
        row["charge"], row["price_row"]
    )
    if charge is None:
        return f"a line of kind {row['line_kind']} is not made by a charge of the plan"
    if charge.looks_at_each_event:
        return "the price looks at each event, and rated rows do not hold the values of events"
    start, end = billing_period(contract.billing_period, contract.from_, row["period_start"])
    return _Priced(charge, timeline.share(start, end, row["plan_version"]))


def _correction(row: Row, revision: Revision | None) -> tuple[str, ...]:
    corrections = () if revision is None else revision.configuration.price_corrections
    found = in_force(corrections, row["plan"], row["plan_version"], row["period_start"])
    if found is None:
        return ()
    one = found[0]
    return (f"prices corrected by {one.id} ({one.reason_code}), approved by {one.approved_by}: {one.reason}",)


def _of_usage(row: Row, charge: Charge, before: _Place, after: _Place) -> RowExplanation:
    step = compare(
        explain(before.charge or charge, before.quantity, before.events, final=False),
        explain(charge, after.quantity, after.events, final=False),
    )
    notes = []
    if before.charge is not None and before.charge != charge:
        notes.append("the configuration changed: before is at the earlier prices")
    return RowExplanation(row, step=step, expected=_q12(step.after) - _q12(step.before), notes=tuple(notes))


def _of_period_end(row: Row, priced: _Priced, after: _Place) -> RowExplanation:
    final = explain(priced.charge, after.quantity, after.events, final=priced.share > 0, share=priced.share)
    return RowExplanation(row, final=final, expected=_q12(final) - row["amount_before"])


def _q12(explanation: Explanation) -> Decimal:
    """Return the amount as it is kept in the books, with 12 places."""
    return quantized(explanation.total)


def _is_held_back(found: RowExplanation) -> bool:
    """Tell whether a drop of the amount was booked in the hour's `tier_repricing` line instead of this one."""
    row, expected = found.row, found.expected
    usage = row["line_kind"] in ("usage", "late_usage") and row["quantity"] >= 0
    return usage and expected is not None and expected < 0 and _difference(row) == 0


def _without_drop(found: RowExplanation) -> RowExplanation:
    note = f"the cheaper tier changes the amount by {found.expected:f}, booked in this hour's {REPRICING} line"
    return replace(found, expected=ZERO, notes=(*found.notes, note))
