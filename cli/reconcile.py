"""`meterbridge reconcile`: compare every account of the same thing, from stream counts to postings."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from cli.context import context
from cli.output import emit, progress, table
from core.errors import Disagreement, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from queries.reconcile import Check, Report, Span
    from queries.stores import Stores

_SHOWN_MAX = 10


def reconcile(
    from_: Annotated[str, typer.Option("--from", help="First booked hour, RFC 3339. Default: the beginning.")] = "",
    to: Annotated[str, typer.Option("--to", help="End of the span. Default: the last sealed hour.")] = "",
    last_hours: Annotated[int, typer.Option(min=0, help="Only the last so many sealed hours. 0: all.")] = 0,
    erp: Annotated[bool, typer.Option("--erp", help="Read our entries back from the ERP, and compare them.")] = False,
) -> None:
    """Check every identity between events, facts, rated rows, documents and postings, to the last digit.

    With --erp also the ERP's books: lines, amounts and balances, foreign edits, deletions and duplicates; postings are
    marked RECONCILED or MISMATCHED.

    Prints what disagrees, by how much, and the likely cause. The exit code is 0 only if everything agrees; where
    nothing is booked it says that nothing was compared.
    """
    from queries.reconcile import Span, report_to_plain, sealed_until, span_of  # noqa: PLC0415
    from queries.reconcile import reconcile as run  # noqa: PLC0415
    from queries.stores import open_stores  # noqa: PLC0415

    begins, ends = _time(from_, "--from"), _time(to, "--to")
    with open_stores(context().settings) as stores:
        span = span_of(stores, begins, ends)
        if (begins or ends) and span.begins >= span.ends:
            message = (
                f"nothing lies in that span: booked and sealed is until {sealed_until(stores):%Y-%m-%d %H:%M} UTC, and"
                " --from must be before --to, both by the whole hour"
            )
            raise InvalidRequest(message)
        if last_hours:
            span = Span(max(span.begins, span.ends - timedelta(hours=last_hours)), span.ends)
        with progress("Reconciling", None) as advance:
            report = run(stores, span, lambda _name: advance(1), _erp_checks if erp else None)
    emit(report_to_plain(report), *_parts(report))
    if not report.holds:
        broken = [check.name for check in report.checks if not check.holds]
        message = f"{len(broken)} of {len(report.checks)} checks do not hold: {'; '.join(broken)}"
        raise Disagreement(message)


def _erp_checks(stores: "Stores", span: "Span") -> "Iterator[Check]":
    from core.clock import SystemClock  # noqa: PLC0415
    from queries.reconcile_erp import checks  # noqa: PLC0415
    from sinks.erp.registry import Adapters  # noqa: PLC0415

    return checks(stores, span, Adapters(stores.settings), SystemClock().now())


def _time(text: str, option: str) -> datetime | None:
    if not text:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        message = f"{option} {text!r} is not an RFC 3339 time such as 2026-11-23T14:00:00Z"
        raise InvalidRequest(message) from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _parts(report: "Report") -> "list[RenderableType]":
    rows = [
        (
            check.name,
            f"{check.left} / {check.right}",
            f"{check.groups:,}",
            "yes" if check.holds else f"{check.broken:,} DIFFER",
        )
        for check in report.checks
    ]
    begins = "the beginning" if report.span.begins.year == 1970 else f"{report.span.begins:%Y-%m-%d %H:%M}"
    title = f"Booked from {begins} to {report.span.ends:%Y-%m-%d %H:%M} UTC"
    parts: list[RenderableType] = [table(title, ("check", "compared", "groups", "holds"), rows, right=("groups",))]
    if not report.compared:
        parts.append("Nothing was compared: nothing is booked in that span, or no hour of it is sealed yet.")
    parts.extend(f"note: {check.name}: {check.note}" for check in report.checks if check.note)
    for check in report.checks:
        if not check.holds:
            parts.extend(_breaks(check))
    return parts


def _breaks(check: "Check") -> "list[RenderableType]":
    rows = []
    for found in check.breaks[:_SHOWN_MAX]:
        where = ", ".join(f"{name}={value}" for name, value in found.where.items())
        rows.append((where, str(found.left), str(found.right), str(found.difference)))
    numeric = (check.left, check.right, "difference")
    parts: list[RenderableType] = [table(f"{check.name}: {check.broken:,} differ", ("where", *numeric), rows, numeric)]
    if check.broken > _SHOWN_MAX:
        parts.append(f"... and {check.broken - _SHOWN_MAX:,} more (--json prints up to 100 of each)")
    parts.extend(f"likely cause: {cause}" for cause in sorted({found.cause for found in check.breaks}))
    return parts
