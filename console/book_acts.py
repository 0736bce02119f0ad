"""What people do about periods and about what is kept: check, close, reopen; place and lift legal holds.

By the functions of the command line, with a preview first and who and why in the audit log, as in `console.acts`.
"""

from typing import Literal

from console import scope
from console.acts import Acting
from console.closing import Closings, check_period
from console.problems import Problem
from flows import period_acts
from flows.sealing import Decision, Outcome, signing_key
from queries.stores import Row
from sinks.ledger import retention
from sinks.ledger.retention import HoldKind


def seal(acting: Acting, closings: Closings, entity: str, name: str, *, accept: bool) -> Row:
    """Check that a period is complete and freeze a signed summary of it; `accept`: over what may be open.

    :raises Problem: 404; 409: another one is under way; 422: something stands against it, which `findings` names.
    :raises InvalidRequest: there is no signing key.
    """
    scope.check_unscoped(acting.token)
    check_period(acting.stores, entity, name)
    decision = Decision(acting.actor, acting.reason, accept)
    outcome = closings.run(acting.stores, entity, name, decision, acting.clock, dry_run=acting.dry_run)
    plain = outcome.to_plain()
    if plain["seal"] is not None:
        plain["seal"]["file"] = "" if plain["seal"]["file"] is None else str(plain["seal"]["file"])
    said = said_of(outcome, accept=accept, dry_run=acting.dry_run)
    if not acting.dry_run and outcome.seal is None:
        raise Problem("rejected", said, more={"findings": [_texts(one) for one in plain["findings"]]})
    changed = outcome.made_now or (acting.dry_run and outcome.seal is None and not outcome.against(accept=accept))
    if acting.dry_run and changed:
        signing_key(acting.stores)  # a preview refuses what the act would refuse
    return plain | {"changed": changed, "said": said}


def _texts(finding: Row) -> Row:
    items = [{name: str(value) for name, value in item.items()} for item in finding["items"]]
    return finding | {"items": items}


def said_of(outcome: Outcome, *, accept: bool, dry_run: bool) -> str:
    """Return in a sentence what came of it."""
    what = f"{outcome.period.accounting.name} of {outcome.period.entity}"
    if outcome.seal is not None:
        return f"{what} {'is sealed' if outcome.made_now else 'was sealed before'}, number {outcome.seal.number}"
    against = outcome.against(accept=accept)
    hard = [one.name for one in against if not one.acceptable]
    if hard:
        return f"{what} cannot be sealed: first mend: {'; '.join(hard)}"
    if against:
        return f"{what} is not sealed: mend what is open, or accept it: {'; '.join(one.name for one in against)}"
    return f"{what} {'would be' if dry_run else 'is'} sealed"


def record(acting: Acting, entity: str, name: str, action: Literal["close", "reopen"]) -> Row:
    """Record that a period is closed before its cut-off, or open again, from the next hour on.

    :raises Problem: 404: there is no such period.
    :raises InvalidRequest: it was recorded so before, or the period is sealed.
    :raises Unreachable: the event server does not answer: its clock says which hour is the next.
    """
    scope.check_unscoped(acting.token)
    stores = acting.stores
    check_period(stores, entity, name)
    act = period_acts.PeriodAct(entity, name, action, acting.actor, acting.reason)
    since = period_acts.record(
        stores.settings, stores.engine, stores.history, act, acting.clock.now(), dry_run=acting.dry_run
    )
    verb = "would count" if acting.dry_run else "counts"
    done = {"close": "closed", "reopen": "open"}[action]
    return {
        "known_from": since,
        "changed": True,
        "said": f"{name} of {entity} {verb} as {done} from {since:%Y-%m-%d %H:%M} UTC on",
    }


def place_hold(acting: Acting, kind: HoldKind, name: str) -> Row:
    """Keep all rows of a customer or tenant, whatever the policy says.

    :raises InvalidRequest: no configuration ever had the customer.
    """
    scope.check_unscoped(acting.token)
    engine = acting.stores.engine
    retention.check_known(acting.stores.history, kind, name)
    if acting.dry_run:
        is_new = not retention.is_held(engine, kind, name)
    else:
        is_new = retention.place(engine, kind, name, actor=acting.actor, reason=acting.reason, now=acting.clock.now())
    said = "is on hold, and was before" if not is_new else "would be on hold" if acting.dry_run else "is on hold"
    return {"kind": kind, "name": name, "changed": is_new, "said": f"{kind} {name} {said}"}


def lift_hold(acting: Acting, kind: HoldKind, name: str) -> Row:
    """End a hold: what is older than the policy says goes with the next run.

    :raises InvalidRequest: there is none.
    """
    scope.check_unscoped(acting.token)
    engine = acting.stores.engine
    if acting.dry_run:
        retention.check_held(engine, kind, name)
    else:
        retention.release(engine, kind, name, actor=acting.actor, reason=acting.reason, now=acting.clock.now())
    said = "would be on hold no more" if acting.dry_run else "is on hold no more"
    return {"kind": kind, "name": name, "changed": True, "said": f"{kind} {name} {said}"}
