"""From what the ERP said to a posting's next state: pure, one table to read. Unknown is never success."""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, get_args

from flows.poster_pace import backoff_s
from sinks.erp.port import (
    Accepted,
    Capabilities,
    Conflict,
    ErpEntry,
    Idempotency,
    NotSent,
    Outcome,
    Posted,
    Rejected,
    Throttled,
    Unknown,
)
from sinks.ledger import postings
from sinks.ledger.postings import Change, Stored
from sinks.ledger.times import to_ms

POLL_S = 5.0
_REPEATABLE = (Idempotency.UNIQUE_KEY, Idempotency.UPSERT, Idempotency.KEY_HEADER)


def _later_ms(now: datetime, seconds: float) -> int:
    return to_ms(now + timedelta(seconds=seconds))


OUTCOMES: Final = tuple(sorted(kind.__name__.lower() for kind in get_args(Outcome)))
"""Every name that `name_of` gives."""


def name_of(outcome: Outcome) -> str:
    """Return the outcome's name, for metrics and the record of attempts."""
    return type(outcome).__name__.lower()


def says_nothing(outcome: Outcome) -> bool:
    """Tell whether the call failed without a word about the posting."""
    return isinstance(outcome, NotSent | Throttled | Unknown)


def after_submit(row: Stored, outcome: Outcome, now: datetime, wait_s: float) -> Change:
    """Return the next state of a SUBMITTED (or ACCEPTED) posting; `wait_s` is the backoff of its whole batch."""
    name = name_of(outcome)
    wait_ms = _later_ms(now, wait_s)
    if isinstance(outcome, Posted) and not outcome.number:
        outcome = Unknown("the ERP answered success without a number of its own")
    match outcome:
        case Posted(number, reference, tax=tax, draft=draft):
            return Change(
                row.key, postings.POSTED, number=number, reference=reference, digest=row.posting.digest, outcome=name,
                tax=tax, draft=draft,
            )  # fmt: skip
        case Accepted(job):
            return Change(row.key, postings.ACCEPTED, job=job, due_at_ms=_later_ms(now, POLL_S), outcome=name)
        case Rejected(reason, text, raw):
            detail = text if not raw or raw == text else f"{text} | {raw}"
            never = postings.NEVER_MS
            return Change(row.key, postings.HELD, reason=reason, detail=detail, due_at_ms=never, outcome=name)
        case Conflict(number, digest):
            detail = f"the ERP has {number} under this key with other content (digest {digest or 'unknown'})"
            return Change(row.key, postings.CONFLICT, reason="conflict", detail=detail, outcome=name)
        case Throttled(after_s):
            due_ms = wait_ms if after_s is None else _later_ms(now, after_s)
            return Change(row.key, postings.PENDING, reason="throttled", due_at_ms=due_ms, outcome=name)
        case NotSent(why):
            return Change(row.key, postings.PENDING, reason="not_sent", detail=why, due_at_ms=wait_ms, outcome=name)
        case Unknown(why):
            return Change(row.key, postings.UNKNOWN, reason="unknown", detail=why, due_at_ms=to_ms(now), outcome=name)


def after_lookup(
    row: Stored, entries: Sequence[ErpEntry], capabilities: Capabilities, now: datetime, chance: random.Random
) -> Change:
    """Return the next state of an UNKNOWN posting, by what the ERP has under its key.

    Nothing found means nothing until the settle window passed and enough lookups agreed: a request whose answer was
    lost may still commit. Then the same key is sent again if the ERP makes that safe, else a person decides.
    """
    if len(entries) > 1:
        numbers = ", ".join(entry.number for entry in entries)
        detail = f"the ERP has {len(entries)} entries under this key: {numbers}; reverse the extra ones"
        return Change(row.key, postings.DUPLICATED, reason="duplicated", detail=detail)
    if entries:
        (entry,) = entries
        if entry.digest and entry.digest != row.posting.digest:
            detail = f"the ERP has {entry.number} under this key with digest {entry.digest}"
            return Change(row.key, postings.CONFLICT, reason="conflict", detail=detail)
        return Change(
            row.key, postings.POSTED, number=entry.number, digest=row.posting.digest, tax=entry.tax, draft=entry.draft
        )
    lookups = row.lookups + 1
    settled = to_ms(now) - row.submitted_at_ms >= capabilities.settle_window_s * 1000
    if not settled or lookups < capabilities.settle_lookups:
        due_ms = _later_ms(now, backoff_s(lookups, chance))
        detail = f"lookup {lookups} found nothing; waiting for the ERP to settle"
        return Change(row.key, postings.UNKNOWN, reason="unknown", detail=detail, due_at_ms=due_ms, lookups=lookups)
    if capabilities.idempotency in _REPEATABLE or capabilities.two_phase:
        return Change(row.key, postings.PENDING, reason="not_found", detail="never arrived; the same key is sent again")
    detail = f"{lookups} lookups found nothing, and this ERP does not refuse a repeated key: check it, then release it"
    never = postings.NEVER_MS
    return Change(row.key, postings.HELD, reason="unknown_outcome", detail=detail, due_at_ms=never)
