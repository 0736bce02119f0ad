"""Intake: what the flow counted against the rows it stored, per stream and minute of arrival; no id twice."""

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final

from queries.reconcile import Break, Check, Span, kept, note_expired, parts
from queries.stores import Stores

IDS_PER_PASS: Final = 10_000_000
"""Ids held in memory at once while they are told apart: about 600 MB in ClickHouse."""

_EVENTS_CAUSE: Final = (
    "rows of usage_events are missing: deleted, removed by a TTL, or lost by the server"
    "|rows of usage_events were added that the flow did not write, or rows of intake_counts are missing"
)
_REJECTS_CAUSE: Final = (
    "rows of usage_rejects are missing: deleted, or removed by a TTL"
    "|rows of usage_rejects were added that the flow did not write, or rows of intake_counts are missing"
)


def checks(stores: Stores, span: Span) -> Iterator[Check]:
    """Yield the checks of intake."""
    for check_of, tables in (
        (_accepted, ("usage_events", "intake_counts")),
        (_refused, ("usage_rejects", "intake_counts")),
        (_unique, ("usage_events",)),
    ):
        own = kept(stores, span, *tables)
        check = check_of(stores, own)
        note_expired(check, span, own)
        yield check


def _groups(stores: Stores, text: str, span: Span) -> dict[tuple[Any, ...], int]:
    return {
        tuple(row[:-1]): int(row[-1]) for row in stores.client.query(stores.resolved(text), span.parameters).result_rows
    }


def _accepted(stores: Stores, span: Span) -> Check:
    check = Check("accepted events are stored", "intake_counts", "usage_events")
    for part in parts(stores, span):
        left = _groups(
            stores,
            "SELECT stream, ingest_minute, sum(events) FROM @intake_counts_current WHERE outcome = 'accepted'"
            " AND ingest_minute >= {from:DateTime} AND ingest_minute < {to:DateTime} GROUP BY ALL",
            part,
        )
        right = _groups(
            stores,
            "SELECT stream, toStartOfMinute(toDateTime(ingest_time, 'UTC')) AS minute, count()"
            " FROM @usage_events_current WHERE ingest_time >= toDateTime64({from:DateTime}, 3, 'UTC')"
            " AND ingest_time < toDateTime64({to:DateTime}, 3, 'UTC') GROUP BY ALL",
            part,
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
    """Check that no id was accepted twice within one day of arrival: twice over the horizon is dedupe's own check.

    A day's ids are looked at in several passes where they are many, each over the ids with one remainder.
    """
    check = Check("no event is accepted twice", "events", "different (source, id)")
    condition = (
        " WHERE ingest_time >= toDateTime64({from:DateTime}, 3, 'UTC')"
        " AND ingest_time < toDateTime64({to:DateTime}, 3, 'UTC')"
    )
    counted = f"SELECT toDate(ingest_time, 'UTC') AS day, count() AS n FROM @usage_events{condition}"  # noqa: S608
    for day in stores.rows(f"{counted} GROUP BY day ORDER BY day", span.parameters):
        begins = datetime.combine(day["day"], time(tzinfo=UTC))
        within = Span(max(begins, span.begins), min(begins + timedelta(days=1), span.ends))
        passes = -(-int(day["n"]) // IDS_PER_PASS)
        found = [
            stores.rows(
                "SELECT count() AS events, uniqExact(sipHash128(source, id)) AS ids FROM @usage_events_current"  # noqa: S608
                f"{condition} AND cityHash64(source, id) % {{passes:UInt32}} = {{remainder:UInt32}}",
                within.parameters | {"passes": passes, "remainder": remainder},
            )[0]
            for remainder in range(passes)
        ]
        events, ids = sum(int(row["events"]) for row in found), sum(int(row["ids"]) for row in found)
        check.groups += bool(events)
        if events != ids:
            cause = "rows were inserted by somebody else, or the horizon for duplicates was changed to less than a day"
            check.add(Break({"day": day["day"]}, events, ids, events - ids, cause))
    return check
