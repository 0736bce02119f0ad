"""Checks of an entity's posting rules: the life of an amount from usage to the receivable, in every way it can go.

Each route is played with an amount of one. It is sound if revenue was credited in exactly one step, and in the end
nothing is left but the receivable: not on the unbilled accounts, and not on what was deferred.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from config.account_roles import CONTRACT_ASSET, CONTRACT_LIABILITY, RECEIVABLE, TAX_PAYABLE, UNBILLED, is_revenue
from config.checks import Finding
from config.entities import Entity
from config.posting_rules import ACCRUALS, PREPAID, Rule, rules_of
from config.yaml_source import Location


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of a route, and the kinds of line whose rules make it."""

    kinds: tuple[str, ...]
    debit: str
    credit: str

    def __str__(self) -> str:
        """Return it in words."""
        return f"`{self.kinds[0]}` debits {self.debit} and credits {self.credit}"


def routes(rules: Mapping[str, Rule]) -> Iterator[tuple[Step, ...]]:
    """Yield every way an amount can go through the books, as the entries it makes."""
    deferral, recognition, invoice = rules["deferral"], rules["recognition"], _step("invoice", rules)
    for kind in ACCRUALS:
        accrual = _step(kind, rules)
        yield accrual, invoice
        release = Step((kind, "deferral"), deferral.credit, accrual.credit)
        yield Step(("deferral", kind), deferral.debit, deferral.credit), release, invoice
        ahead = Step(("recognition", kind), recognition.debit, accrual.credit)
        billed = Step((kind, "recognition"), accrual.debit, recognition.debit)
        yield ahead, *((billed,) if billed.debit != billed.credit else ()), invoice
    alone = Step(("recognition",), recognition.debit, recognition.credit)
    yield alone, Step(("usage", "recognition"), rules["usage"].debit, recognition.debit), invoice
    for kind in PREPAID:
        yield Step(("the purchase",), RECEIVABLE, CONTRACT_LIABILITY), _step(kind, rules)


def _step(kind: str, rules: Mapping[str, Rule]) -> Step:
    return Step((kind,), rules[kind].debit, rules[kind].credit)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a route: the entries to look at first, and what to do."""

    steps: tuple[Step, ...]
    message: str
    hint: str

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return the kinds that may have caused it, the likeliest first."""
        return tuple(kind for step in self.steps for kind in step.kinds)


def fault(route: tuple[Step, ...]) -> Fault | None:
    """Return what is wrong with a route; None if it is sound."""
    earned = [step for step in route if is_revenue(step.credit)]
    taken = [step for step in route if is_revenue(step.debit)]
    told = "; ".join(map(str, route))
    if len(earned) > 1:
        steps = " and ".join(f"`{step.kinds[0]}` credits {step.credit}" for step in earned)
        hint = f"only the accrual credits revenue; let the invoice credit {UNBILLED}"
        return Fault((*reversed(earned), *route), f"revenue is credited twice for the same usage: {steps}", hint)
    if taken:
        hint = "debit an account of the balance sheet"
        return Fault((*taken, *route), f"takes revenue back that stays earned: {told}", hint)
    if not earned:
        return Fault(route, f"the usage is never revenue: {told}", "let the accrual credit a revenue role")
    left: Counter[str] = Counter()
    for step in route:
        left[step.debit] += 1
        left[step.credit] -= 1
    for role, amount in left.items():
        if amount and not is_revenue(role) and (role, amount) != (RECEIVABLE, 1):
            many = "is asked for twice" if role == RECEIVABLE else "is never cleared"
            touching = (step for step in route if role in (step.debit, step.credit))
            return Fault((*touching, *route), f"{role} {many}: {told}", _hint(role))
    return None


def _hint(role: str) -> str:
    if role == RECEIVABLE:
        return f"only the invoice debits {RECEIVABLE}"
    if role == TAX_PAYABLE:
        return "taxes are computed by the ERP, on invoices: no rule has them"
    return "let what clears it (the invoice, or the release of the deferral) name the same role"


def posting_rules(entity: Entity, base: Location) -> Iterator[Finding]:
    """Report rules of an entity that lose an amount or count it twice, and roles without an account."""
    where: Location = (*base, "posting_rules")
    rules = rules_of(entity.posting_rules)
    same = [kind for kind, rule in rules.items() if rule.debit == rule.credit]
    for kind in same:
        message = f"debits and credits the same role, {rules[kind].debit}: it books nothing"
        yield Finding((*where, _blamed((kind,), entity)), message, "name two roles")
    for kind, rule in entity.posting_rules.items():
        for side, role in (("debit", rule.debit), ("credit", rule.credit)):
            if role is not None and role not in entity.accounts:
                message = f"the entity {entity.id} has no account for {role}"
                yield Finding((*where, kind, side), message, f"add `{role}` to the entity's accounts")
    if same:
        return
    told: set[str] = set()
    for one in (*map(fault, routes(rules)), *_misplaced(rules)):
        blamed = "" if one is None else _blamed(one.kinds, entity)
        if one is not None and blamed not in told:
            told.add(blamed)
            yield Finding((*where, blamed), one.message, one.hint)


def _misplaced(rules: Mapping[str, Rule]) -> Iterator[Fault]:
    """Report roles by which amounts come out even, though invoices and reports would not find them there."""
    assets = (UNBILLED, CONTRACT_ASSET)
    for kind in (*ACCRUALS, "recognition"):
        if rules[kind].debit not in assets:
            why = "what is invoiced later" if kind != "recognition" else "revenue ahead of what is billable"
            message = f"{why} stands on {' or '.join(assets)}, not {rules[kind].debit}"
            yield Fault((_step(kind, rules),), message, "debit one of them")
    if rules["deferral"].credit != CONTRACT_LIABILITY:
        message = f"what is billable and not revenue yet stands on {CONTRACT_LIABILITY}, not {rules['deferral'].credit}"
        yield Fault((_step("deferral", rules),), message, f"credit {CONTRACT_LIABILITY}")


def _blamed(kinds: tuple[str, ...], entity: Entity) -> str:
    """Return the kind that the entity changed, of those on a route: others follow `usage`, the defaults are sound."""
    changed = [kind for kind in kinds if kind in entity.posting_rules]
    return changed[0] if changed else "usage"
