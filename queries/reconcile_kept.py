"""What was kept of raw events that expired: it is as it was recorded, and counts every accepted event."""

from collections.abc import Iterator

from queries import kept_usage
from queries.reconcile import Check, Span, kept
from queries.stores import Stores
from sinks.ledger import retention
from sinks.ledger.retention import EVENTS, first_of, following


def checks(stores: Stores, span: Span) -> Iterator[Check]:
    """Yield two checks over the expired months that the span touches; none where nothing expired."""
    months = [
        one
        for one in retention.expirations(stores.engine, EVENTS)
        if first_of(following(one.month)) > span.begins and first_of(one.month) < span.ends
    ]
    if not months:
        return
    same = Check("kept totals are those recorded", "expirations", "kept_usage")
    counted = Check("expired events are in kept totals", "intake_counts", "kept_usage")
    counts_from = kept(stores, Span(first_of(months[0].month), span.ends), "intake_counts").begins
    for one in months:
        _, events, digest = kept_usage.digest(stores, one.month)
        cause = "rows of kept_usage were edited, added or deleted"
        same.compare({"month": one.month}, one.digest, digest, cause)
        if first_of(one.month) >= counts_from:
            cause = "rows of kept_usage are missing|rows of intake_counts are missing"
            counted.compare({"month": one.month}, _accepted(stores, one.month), events, cause)
    yield same
    if counted.groups:
        yield counted


def _accepted(stores: Stores, month: int) -> int:
    rows = stores.rows(
        "SELECT sum(events) AS n FROM @intake_counts_current WHERE outcome = 'accepted'"
        " AND ingest_minute >= {from:DateTime} AND ingest_minute < {to:DateTime}",
        Span(first_of(month), first_of(following(month))).parameters,
    )
    return int(rows[0]["n"] or 0)
