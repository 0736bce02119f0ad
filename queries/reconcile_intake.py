"""Intake: what the flow counted against the rows it stored, per stream and minute of arrival; no id twice."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

from queries.reconcile import Break, Check, Span
from queries.stores import Stores

_LEFT_ALONE: Final = timedelta(hours=1)
"""Arrival runs ahead of booking by at most the allowed future, so intake is checked over the same span."""

_EVENTS_CAUSE: Final = (
    "rows of usage_events are missing: deleted, expired by retention, or lost by the server"
    "|rows of usage_events were added that the flow did not write, or rows of intake_counts are missing"
)
_REJECTS_CAUSE: Final = (
    "rows of usage_rejects are missing: deleted or expired by retention"
    "|rows of usage_rejects were added that the flow did not write, or rows of intake_counts are missing"
)


def checks(stores: Stores, span: Span) -> Iterator[Check]:
    """Yield the checks of intake."""
    yield _accepted(stores, span)
    yield _refused(stores, span)
    yield _unique(stores, span)


def _groups(stores: Stores, text: str, span: Span) -> dict[tuple[Any, ...], int]:
    return {
        tuple(row[:-1]): int(row[-1]) for row in stores.client.query(stores.resolved(text), span.parameters).result_rows
    }


def _accepted(stores: Stores, span: Span) -> Check:
    check = Check("accepted events are stored", "intake_counts", "usage_events")
    left = _groups(
        stores,
        "SELECT stream, ingest_minute, sum(events) FROM @intake_counts_current WHERE outcome = 'accepted'"
        " AND ingest_minute >= {from:DateTime} AND ingest_minute < {to:DateTime} GROUP BY ALL",
        span,
    )
    right = _groups(
        stores,
        "SELECT stream, toStartOfMinute(ingest_time) AS minute, count() FROM @usage_events_current"
        " WHERE ingest_time >= toDateTime64({from:DateTime}, 3, 'UTC')"
        " AND ingest_time < toDateTime64({to:DateTime}, 3, 'UTC') GROUP BY ALL",
        span,
    )
    check.compare_all(("stream", "minute"), left, _in_utc(right), _EVENTS_CAUSE)
    return check


def _in_utc(groups: dict[tuple[Any, ...], int]) -> dict[tuple[Any, ...], int]:
    """Return the groups with minutes as whole seconds: the two columns have different precision."""
    return {(stream, minute.replace(microsecond=0), *rest): n for (stream, minute, *rest), n in groups.items()}


def _refused(stores: Stores, span: Span) -> Check:
    check = Check("refused events are stored", "intake_counts", "usage_rejects")
    left = _groups(
        stores,
        "SELECT stream, ingest_minute, reason, sum(events) FROM @intake_counts_current"
        " WHERE outcome IN ('rejected', 'conflicting_duplicate')"
        " AND ingest_minute >= {from:DateTime} AND ingest_minute < {to:DateTime} GROUP BY ALL",
        span,
    )
    right = _groups(
        stores,
        "SELECT stream, toStartOfMinute(ingest_time) AS minute, reason, count() FROM @usage_rejects_current"
        " WHERE counted = 1 AND ingest_time >= toDateTime64({from:DateTime}, 3, 'UTC')"
        " AND ingest_time < toDateTime64({to:DateTime}, 3, 'UTC') GROUP BY ALL",
        span,
    )
    check.compare_all(("stream", "minute", "reason"), left, _in_utc(right), _REJECTS_CAUSE)
    return check


def _unique(stores: Stores, span: Span) -> Check:
    """Check that no id was accepted twice within one day of arrival: twice over the horizon is dedupe's own check."""
    check = Check("no event is accepted twice", "events", "different (source, id)")
    rows = stores.rows(
        "SELECT toDate(ingest_time, 'UTC') AS day, count() AS events, uniqExact(sipHash128(source, id)) AS ids"
        " FROM @usage_events_current WHERE ingest_time >= toDateTime64({from:DateTime}, 3, 'UTC')"
        " AND ingest_time < toDateTime64({to:DateTime}, 3, 'UTC') GROUP BY day ORDER BY day",
        span.parameters,
    )
    for row in rows:
        check.groups += 1
        if row["events"] != row["ids"]:
            difference = row["events"] - row["ids"]
            cause = "rows were inserted by somebody else, or the horizon for duplicates was changed to less than a day"
            check.add(Break({"day": row["day"]}, row["events"], row["ids"], difference, cause))
    return check
