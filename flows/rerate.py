"""`rerate`: what other prices come to for usage that is booked, and their approval as a correction.

The preview rates stored facts again, as `whatif` does, and writes nothing. An approved correction is recorded in the
ledger; the flow journals it with the configuration when it starts, and books what it changes in the first hour in which
it is known, through the same cumulative amounts as everything else. So late usage of the corrected periods gets the
corrected prices too, a replay books the same, and the sum of what is booked is what the corrected prices come to.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
from sqlalchemy import Engine

from config.checks import check
from config.journal import settled
from config.periods import billing_period
from config.plan_file import plans_of
from config.plans import Plan, PlanVersion
from config.price_corrections import CorrectedVersion, PriceCorrection, ReasonCode, in_force, make
from config.revision import Configuration, History
from config.settings import Settings
from core.errors import ConfigError, InvalidRequest
from flows.whatif import Report, compare
from operators.rate_prices import Pricing
from operators.rate_terms import first_minute, microseconds
from operators.rating.charges import parse_charge
from sinks import ledger
from sinks.ledger import closes, price_corrections, progress, revisions
from sinks.ledger.times import to_ms


@dataclass(frozen=True, slots=True)
class Request:
    """Which prices: those of another version of the plan, or those of a file with the plan."""

    plan: str
    begins: datetime
    plan_version: int | None = None
    prices: Path | None = None
    reason_code: ReasonCode = "price_error"
    actor: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Preview:
    """A correction, and what it changes by customer, contract, charge and period."""

    correction: PriceCorrection
    report: Report
    is_new: bool
    """False if the same correction was approved before."""
    pending: int
    """Other approved corrections of the plan that wait for the flow; they are part of the differences."""
    later: list[str]
    """Contracts in the middle of a billing period at `begins`: theirs are corrected from the next one on."""


def preview(settings: Settings, request: Request, now: datetime, advance: Callable[[int], None]) -> Preview:
    """Return what the correction would change.

    :raises InvalidRequest: plan or version are unknown, nothing would change, or it reaches back too far.
    :raises ConfigError: the prices are no prices, or more than prices differ.
    """
    engine = ledger.connect(settings.ledger_url)
    try:
        ledger.check_ready(engine)
        latest = History(revisions.load_history(engine)).latest.configuration
        approved = price_corrections.approved(engine)
        _check_begins(engine, latest, request, now)
    finally:
        engine.dispose()
    known = {one.id for one in latest.price_corrections}
    pending = [one for one in approved if one.id not in known]
    corrections = (*latest.price_corrections, *pending)
    correction, is_new = correction_of(latest, corrections, request)
    with_it = (*corrections, correction) if is_new else corrections
    report = compare(
        settings,
        lambda recorded: recorded.model_copy(update={"price_corrections": with_it}),
        first_minute(request.begins) // 60,
        None,
        advance,
    )
    others = sum(one.plan == request.plan and one.id != correction.id for one in pending)
    return Preview(correction, _cut(report, latest, request), is_new, others, _later(latest, request))


def approve(settings: Settings, found: Preview, now: datetime) -> bool:
    """Record the correction, and return whether it is new."""
    engine = ledger.connect(settings.ledger_url)
    try:
        return found.is_new and price_corrections.approve(engine, found.correction, now)
    finally:
        engine.dispose()


def listed(settings: Settings) -> list[tuple[PriceCorrection, bool]]:
    """Return the approved corrections, and whether the flow has journaled each."""
    engine = ledger.connect(settings.ledger_url)
    try:
        ledger.check_ready(engine)
        known = price_corrections.journaled(engine)
        return [(one, one.id in known) for one in price_corrections.approved(engine)]
    finally:
        engine.dispose()


def withdraw(settings: Settings, correction_id: str, *, actor: str, reason: str, now: datetime) -> None:
    """Take back a correction that the flow has not journaled.

    :raises InvalidRequest: there is none of that id, or it is journaled.
    """
    engine = ledger.connect(settings.ledger_url)
    try:
        ledger.check_ready(engine)
        price_corrections.withdraw(engine, correction_id, actor=actor, reason=reason, now=now)
    finally:
        engine.dispose()


def _check_begins(engine: Engine, latest: Configuration, request: Request, now: datetime) -> None:
    if request.begins > now:
        message = f"--from {request.begins:%Y-%m-%d %H:%M} is to come: give the plan a new version for that"
        raise InvalidRequest(message)
    watermark_ms = max(progress.watermark_ms(engine), progress.high_water_ms(engine))
    period = settled(latest, request.plan, request.begins, closes.next_hour_ms(to_ms(now), watermark_ms))
    if period:
        message = (
            f"--from {request.begins:%Y-%m-%d} is too long ago: a billing period is settled once no late usage can"
            f" reach it, here {period}. Credit what is older by a document of its own in the ERP"
        )
        raise InvalidRequest(message)


def correction_of(
    latest: Configuration, corrections: tuple[PriceCorrection, ...], request: Request
) -> tuple[PriceCorrection, bool]:
    """Return the correction that a request comes to, and whether it is new.

    :raises InvalidRequest: plan or version are unknown, or nothing would change.
    :raises ConfigError: the prices are no prices, or more than prices differ.
    """
    plan = next((one for one in latest.plans if one.id == request.plan), None)
    if plan is None:
        message = f"there is no plan {request.plan!r}: known are {', '.join(sorted(one.id for one in latest.plans))}"
        raise InvalidRequest(message)
    wanted = _of_version(plan, request) if request.prices is None else _of_file(plan, request.prices)
    changed = []
    last: PriceCorrection | None = None
    for number, charges in wanted.items():
        before = in_force(corrections, plan.id, number, request.begins)
        recorded = plan.versions[number - 1].charges if before is None else before[1].charges
        if charges != recorded:
            changed.append(CorrectedVersion(version=number, charges=charges))
        elif before is not None and before[0].from_ == request.begins:
            last = before[0]
    if not changed and last is not None:
        return last, False
    if not changed:
        message = f"these are the prices by which plan {plan.id} is charged from {request.begins:%Y-%m-%d} on already"
        raise InvalidRequest(message)
    _check_prices(latest, plan, changed)
    over = next((one.id for one in reversed(corrections) if one.plan == plan.id), "")
    made = make(
        plan.id,
        request.begins,
        changed,
        over=over,
        reason_code=request.reason_code,
        approved_by=request.actor,
        reason=request.reason,
    )
    return made, True


Charges = tuple[dict[str, Any], ...]


def _of_version(plan: Plan, request: Request) -> dict[int, Charges]:
    number = request.plan_version
    if number is None or not 1 <= number <= len(plan.versions):
        message = (
            f"which prices? Give --plan-version with a version of plan {plan.id}, 1 to {len(plan.versions)}, or"
            " --prices FILE with the plan as it should have been"
        )
        raise InvalidRequest(message)
    chosen = plan.versions[number - 1]
    others = [n for n, version in enumerate(plan.versions, 1) if n != number and version.currency == chosen.currency]
    return dict.fromkeys(others, chosen.charges)


def _of_file(plan: Plan, path: Path) -> dict[int, Charges]:
    found = next((one for one in plans_of(path) if one.id == plan.id), None)
    if found is None:
        message = f"{path} has no plan {plan.id!r}"
        raise InvalidRequest(message)
    frame = [(one.effective_from, one.currency) for one in plan.versions]
    if [(one.effective_from, one.currency) for one in found.versions] != frame:
        message = (
            f"{path}: the versions of plan {plan.id} must be those recorded, with effective_from and currency, and only"
            " their prices may differ"
        )
        raise InvalidRequest(message)
    return {number: version.charges for number, version in enumerate(found.versions, 1)}


def _check_prices(latest: Configuration, plan: Plan, changed: list[CorrectedVersion]) -> None:
    """Refuse what would need usage to be assigned anew: the same charges for the same usage, at other prices."""
    problems = []
    versions = list(plan.versions)
    for one in changed:
        before = versions[one.version - 1]
        versions[one.version - 1] = PlanVersion(
            effective_from=before.effective_from, currency=before.currency, charges=one.charges
        )
        try:
            same = _for(before.charges) == _for(one.charges)
        except ValueError as error:
            problems.append(f"plan {plan.id} version {one.version}: {error}")
            continue
        if not same:
            problems.append(
                f"plan {plan.id} version {one.version}: charges, their meters, filters and matrix rows must be the"
                " recorded ones. hint: change amounts only; for anything else add a version"
            )
    if not problems:
        corrected = plan.model_copy(update={"versions": tuple(versions)})
        plans = tuple(corrected if each.id == plan.id else each for each in latest.plans)
        found = check(latest.model_copy(update={"plans": plans}))
        problems += [f"{each.message}. hint: {each.hint}" for each in found if not each.is_warning]
    if problems:
        raise ConfigError(problems)


def _for(charges: Charges) -> list[tuple[Any, ...]]:
    """Return which usage each price is for."""
    prices = Pricing(tuple(parse_charge(dict(raw)) for raw in charges)).prices
    return [(one.name, one.charge.meter, one.charge.filter) for one in prices]


def _contracts(latest: Configuration, plan: str) -> list[tuple[str, Any]]:
    return [
        (customer.id, contract)
        for customer in latest.customers
        for contract in customer.contracts
        if contract.plan == plan
    ]


def _later(latest: Configuration, request: Request) -> list[str]:
    found = []
    for customer, contract in _contracts(latest, request.plan):
        start, _ = billing_period(contract.billing_period, contract.from_, request.begins)
        if start < request.begins and (contract.to is None or contract.to > request.begins):
            found.append(f"{customer}/{contract.id}")
    return found


def _cut(report: Report, latest: Configuration, request: Request) -> Report:
    """Return the report with the rows of the plan's contracts and the corrected periods, where something differs."""
    own = [f"{customer}\x1f{contract.id}" for customer, contract in _contracts(latest, request.plan)]
    rows = report.rows.filter(
        pl.concat_str("customer", "contract", separator="\x1f").is_in(own)
        & (pl.col("period_start_us") >= microseconds(request.begins))
    )
    return replace(report, rows=rows)
