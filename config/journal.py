"""The journal of configuration revisions: when a changed configuration becomes known.

Pure logic; the table is `config_revisions` in the ledger. A revision is journaled *before* it is used, with the
time from which it is known, so that a replay uses the same configuration for the same event, whatever the files say
by then.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from config.journal_rules import Past, refusals
from config.periods import billing_period
from config.price_corrections import PriceCorrection
from config.revision import Configuration, Revision
from core.errors import ConfigError

HOUR_MS: Final = 3_600_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
CORRECTED_DAYS: Final = 39
"""Rating knows a billing period for `too_old_days` and this many days after its end, a day of safety left."""


def next_revision(
    history: Sequence[Revision],
    configuration: Configuration,
    redis_ms: int,
    watermark_ms: int,
    approved: Sequence[PriceCorrection] = (),
) -> Revision | None:
    """Return the revision to journal for this configuration, or None if the latest one is the same.

    `redis_ms` is the event server's time, `watermark_ms` the highest watermark that left a reader (0 if none did);
    both Unix milliseconds. The first revision counts from the beginning; a later one from the start of the hour after
    both times, and after its predecessor: what was read or booked by then keeps its configuration. Raises ConfigError
    with everything it changes that books were made by (`config.journal_rules`).

    `approved` are price corrections that people approved; those not journaled yet come with the next revision.
    """
    ordered = sorted(history, key=lambda revision: revision.known_from_ms)
    if not ordered:
        return Revision(configuration, 0)
    latest = ordered[-1]
    configuration = with_corrections(latest.configuration, configuration, approved)
    # As this release reads the journal: fields it knows and the text lacks have their defaults.
    if Revision(configuration, 0).text == Revision(latest.configuration, 0).text:
        return None
    now_ms = max(redis_ms, watermark_ms)
    refused = refusals(Past(tuple(ordered), now_ms), configuration)
    if refused:
        raise ConfigError([refusal.text for refusal in refused])
    hour_after_ms = (now_ms // HOUR_MS + 1) * HOUR_MS
    known_from_ms = max(hour_after_ms, latest.known_from_ms + HOUR_MS)
    _check_reach(latest.configuration, configuration, known_from_ms)
    return Revision(configuration, known_from_ms)


def with_corrections(
    latest: Configuration, configuration: Configuration, approved: Sequence[PriceCorrection] = ()
) -> Configuration:
    """Return a configuration of files with the price corrections journaled so far, and the approved ones behind."""
    known = {one.id for one in latest.price_corrections}
    added = tuple(one for one in approved if one.id not in known)
    return configuration.model_copy(update={"price_corrections": (*latest.price_corrections, *added)})


def settled(configuration: Configuration, plan: str, begins: datetime, known_from_ms: int) -> str:
    """Return which billing period, corrected from `begins` on, rating does not know any more at that time; "" if none.

    Of each contract the first period that begins at or after it ends earliest.
    """
    limit = _EPOCH + timedelta(milliseconds=known_from_ms, days=-(configuration.rules.too_old_days + CORRECTED_DAYS))
    for customer in configuration.customers:
        for contract in customer.contracts:
            if contract.plan != plan or (contract.to is not None and contract.to <= begins):
                continue
            start, end = billing_period(contract.billing_period, contract.from_, max(begins, contract.from_))
            if start < begins:
                start, end = billing_period(contract.billing_period, contract.from_, end)
            if end < limit:
                return f"that of {customer.id}/{contract.id} from {start:%Y-%m-%d} to {end:%Y-%m-%d}"
    return ""


def _check_reach(latest: Configuration, configuration: Configuration, known_from_ms: int) -> None:
    known = {one.id for one in latest.price_corrections}
    problems = []
    for one in configuration.price_corrections:
        period = "" if one.id in known else settled(configuration, one.plan, one.from_, known_from_ms)
        if period:
            problems.append(
                f"price correction {one.id} of plan {one.plan} from {one.from_:%Y-%m-%d} is too late: the billing"
                f" period {period} is settled. hint: `meterbridge rerate --withdraw {one.id} --reason TEXT`, and"
                " approve one from a later date"
            )
    if problems:
        raise ConfigError(problems)
