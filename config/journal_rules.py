"""What a new revision may not change of those in force, because books were made by it. Pure logic.

- A plan version that was in force stays as it was: what was rated by it would be rated anew.
- A meter keeps what its values mean (`event_type`, `aggregation`, `value`): facts of both meanings would add up.
- A contract that was in force stays until nothing can be booked on it any more, and keeps its entity and its
  billing period: late usage and the last period end would find no price, or periods would be billed twice.
- An entity's posting rules keep their roles of the balance sheet: what stands there would never be cleared.
- `books_open_at`, once set, stays: contracts have their first period by it.

Plans and meters are compared with the last revision that had them: taking one out and in does not change it either.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import orjson

from config.account_roles import is_revenue
from config.customers import Contract, Customer
from config.entities import Entity
from config.meters import Meter
from config.periods import billing_period
from config.plans import Plan, PlanVersion
from config.posting_rules import rules_of
from config.revision import Configuration, Revision, Rules
from config.yaml_source import Location

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FOREVER: Final = datetime.max.replace(tzinfo=UTC)
_DIFFERENCE_LINES_MAX: Final = 40


@dataclass(frozen=True, slots=True)
class Refusal:
    """One thing that a new configuration changes and may not. `location` is its place in that configuration."""

    location: Location
    name: str
    message: str
    hint: str

    @property
    def text(self) -> str:
        """Return it worded without file and line."""
        return f"{self.name}: {self.message}. hint: {self.hint}"


@dataclass(frozen=True, slots=True)
class Past:
    """The revisions recorded so far, and the time up to which they were used (Unix milliseconds)."""

    revisions: tuple[Revision, ...]
    now_ms: int


def refusals(past: Past, configuration: Configuration) -> list[Refusal]:
    """Return everything that the configuration changes and may not."""
    ordered = sorted(past.revisions, key=lambda revision: revision.known_from_ms)
    if not ordered:
        return []
    now = _EPOCH + timedelta(milliseconds=past.now_ms)
    return [
        *_opening(ordered[-1].rules, configuration.rules),
        *_meters(ordered, configuration),
        *_plans(ordered, configuration, now),
        *_posting_rules(ordered[-1].entities, configuration),
        *_contracts(ordered[-1].configuration, configuration, now),
    ]


def _opening(before: Rules, after: Rules) -> Iterator[Refusal]:
    opened = before.books_open_at
    if opened is not None and after.books_open_at != opened:
        yield Refusal(
            ("rules", "books_open_at"),
            "rules.books_open_at",
            f"was {opened:%Y-%m-%dT%H:%M:%SZ}, and periods are billed by it",
            "leave it as it was; a contract that begins later is billed from its own `from`",
        )


def _meters(ordered: Sequence[Revision], configuration: Configuration) -> Iterator[Refusal]:
    last: dict[str, Meter] = {}
    for revision in ordered:
        last |= revision.meters
    for index, meter in enumerate(configuration.meters):
        before = last.get(meter.id)
        for name in ("event_type", "aggregation", "value", "per_event") if before is not None else ():
            was, present = getattr(before, name), getattr(meter, name)
            if was != present:
                yield Refusal(
                    ("meters", index, name),
                    f"meters[{meter.id}].{name}",
                    f"was {was or 'absent'} and is {present or 'absent'} now, but facts were booked by it",
                    "make a new meter with an id of its own, and let a new plan version price that one",
                )


def _plans(ordered: Sequence[Revision], configuration: Configuration, now: datetime) -> Iterator[Refusal]:
    last: dict[str, Plan] = {}
    for revision in ordered:
        last |= revision.plans
    for place, plan in enumerate(configuration.plans):
        before = last.get(plan.id)
        for index, version in enumerate(before.versions if before is not None else ()):
            if version.effective_from > now:
                continue
            present = plan.versions[index] if index < len(plan.versions) else None
            if present is None or _text(present) != _text(version):
                yield _edited(("plans", place, "versions", index), plan.id, version, present)


def _text(version: PlanVersion) -> str:
    """Return the version's content as text with one field a line, in a fixed order."""
    plain = version.model_dump(mode="json", by_alias=True)
    options = orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2
    return orjson.dumps(plain, option=options).decode()


def _edited(location: Location, plan: str, before: PlanVersion, after: PlanVersion | None) -> Refusal:
    name = f"plans[{plan}].versions[{int(location[-1]) + 1}]"
    hint = "leave it as it was, and add a version with a later effective_from"
    since = f"in force since {before.effective_from:%Y-%m-%dT%H:%M:%SZ}"
    if after is None:
        return Refusal(location, name, f"was removed, but is {since}", hint)
    lines = [
        line
        for line in difflib.unified_diff(_text(before).splitlines(), _text(after).splitlines(), lineterm="", n=1)
        if not line.startswith(("---", "+++"))
    ]
    shown = lines[:_DIFFERENCE_LINES_MAX]
    if len(lines) > len(shown):
        shown.append(f"... and {len(lines) - len(shown)} more lines")
    difference = "\n".join(f"    {line}" for line in shown)
    return Refusal(location, name, f"was changed, but is {since}", f"{hint}. The difference:\n{difference}")


def _posting_rules(before: Mapping[str, Entity], after: Configuration) -> Iterator[Refusal]:
    for index, entity in enumerate(after.entities):
        known = before.get(entity.id)
        if known is None:
            continue
        old, new = rules_of(known.posting_rules), rules_of(entity.posting_rules)
        for kind, side in ((kind, side) for kind in new for side in ("debit", "credit")):
            was, present = getattr(old[kind], side), getattr(new[kind], side)
            if was != present and not (is_revenue(was) and is_revenue(present)):
                yield Refusal(
                    ("entities", index, "posting_rules", kind, side),
                    f"entities[{entity.id}].posting_rules.{kind}.{side}",
                    f"was {was} and is {present} now, but what was booked on {was} is cleared from there",
                    "only revenue roles may change; leave this one as it was",
                )


def _contracts(before: Configuration, after: Configuration, now: datetime) -> Iterator[Refusal]:
    present = {customer.id: (index, customer) for index, customer in enumerate(after.customers)}
    for customer in before.customers:
        index, found = present.get(customer.id, (None, None))
        places = {contract.id: place for place, contract in enumerate(found.contracts)} if found is not None else {}
        for contract in customer.contracts:
            over_at = _over_at(contract, before.rules, now)
            if contract.from_ > now or now >= over_at:
                continue
            place = places.get(contract.id)
            where: Location
            if index is None or found is None or place is None:
                where = ("customers",) if index is None else ("customers", index, "contracts")
                yield _removed(where, customer, contract, over_at)
            else:
                where = ("customers", index, "contracts", place)
                yield from _modified(where, customer, contract, found.contracts[place])


def _over_at(contract: Contract, rules: Rules, now: datetime) -> datetime:
    """Return when nothing can be booked on the contract any more: no period end, no late usage, no void of it."""
    if contract.to is None or contract.to > now:
        return _FOREVER
    _, end = billing_period(contract.billing_period, contract.from_, contract.to)
    return end + timedelta(days=rules.too_old_days + rules.dedupe_horizon_days)


def _removed(location: Location, customer: Customer, contract: Contract, over_at: datetime) -> Refusal:
    until = "" if over_at == _FOREVER else f", at the earliest at {over_at:%Y-%m-%dT%H:%M:%SZ}"
    return Refusal(
        location,
        f"customers[{customer.id}].contracts[{contract.id}]",
        f"was removed, but is in force since {contract.from_:%Y-%m-%dT%H:%M:%SZ}",
        f"end it with `to`, and remove it once late usage is over{until}",
    )


def _modified(location: Location, customer: Customer, before: Contract, after: Contract) -> Iterator[Refusal]:
    name = f"customers[{customer.id}].contracts[{before.id}]"
    hint = "end the contract with `to`, and add one with an id of its own"
    since = f"but is in force since {before.from_:%Y-%m-%dT%H:%M:%SZ}"
    if before.entity != after.entity:
        message = f"was {before.entity} and is {after.entity} now, {since}"
        yield Refusal((*location, "entity"), f"{name}.entity", message, hint)
    if before.billing_period != after.billing_period:
        yield Refusal((*location, "billing_period"), f"{name}.billing_period", f"was changed, {since}", hint)
    for field in ("plan", "plan_version"):
        # Late usage of a period charged under the old one would be charged its minimum again under the new one.
        old, new = getattr(before, field), getattr(after, field)
        if old != new:
            message = f"was {_pinned(old)} and is {_pinned(new)} now, {since}"
            yield Refusal((*location, field), f"{name}.{field}", message, hint)


def _pinned(value: str | int | None) -> str:
    return "not set" if value is None else str(value)
