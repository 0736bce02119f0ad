"""`meterbridge rerate`: other prices for usage that is booked, shown first and then booked as corrections."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.context import context
from cli.output import emit, note, progress, table
from core.errors import InvalidRequest

if TYPE_CHECKING:
    from config.price_corrections import PriceCorrection
    from flows.rerate import Preview, Request

_NAMED_MAX = 5


def rerate(
    plan: Annotated[str, typer.Option(help="The plan's id.")] = "",
    begins: Annotated[str, typer.Option("--from", help="Billing periods from this date on, such as 2026-10-01.")] = "",
    plan_version: Annotated[int | None, typer.Option(min=1, help="Charge by this version of the plan.")] = None,
    prices: Annotated[Path | None, typer.Option(help="YAML file with the plan as it should have been.")] = None,
    approve: Annotated[
        bool, typer.Option("--approve", help="Book the differences, when the flow starts next.")
    ] = False,
    who: Annotated[str, typer.Option(help="Who approves. Default: the user of this terminal.")] = "",
    reason: Annotated[str, typer.Option(help="Why; it is recorded with the correction.")] = "",
    reason_code: Annotated[
        Literal["price_error", "contract_modification", "concession", "dispute"],
        typer.Option(help="What corrections of the books say."),
    ] = "price_error",
    withdraw: Annotated[str, typer.Option(help="Take back an approved correction that is not booked yet.")] = "",
    show_list: Annotated[bool, typer.Option("--list", help="Show the approved corrections.")] = False,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write all rows to this file, exact.")] = None,
    limit: Annotated[int, typer.Option(min=0, max=10_000, help="Rows shown, largest difference first.")] = 30,
) -> None:
    """Charge booked usage of a plan by other prices: show the differences; with --approve book them as corrections.

    Whole billing periods that begin at or after --from are corrected. Nothing sealed changes: the differences are
    booked in the first hour after the flow's next start, in open accounting periods.
    """
    from cli.erp import who as person  # noqa: PLC0415
    from core.clock import SystemClock  # noqa: PLC0415
    from flows import rerate as flow  # noqa: PLC0415

    now, settings = SystemClock().now(), context().settings
    if (approve or withdraw) and not reason.strip():
        message = "--reason TEXT is needed: say why, it is recorded"
        raise InvalidRequest(message)
    if show_list:
        _list(flow.listed(settings))
        return
    if withdraw:
        flow.withdraw(settings, withdraw, actor=person(who), reason=reason.strip(), now=now)
        emit({"id": withdraw, "withdrawn": True}, f"price correction {withdraw} is withdrawn")
        return
    request = flow.Request(plan, _date(begins), plan_version, prices, reason_code, person(who), reason.strip())
    with progress("Rating facts", None) as advance:
        found = flow.preview(settings, request, now, advance)
    recorded = approve and flow.approve(settings, found, now)
    _show(found, request, csv_file, limit, approved=approve, recorded=recorded)


def _list(found: "list[tuple[PriceCorrection, bool]]") -> None:
    rows = [
        (
            one.id,
            one.plan,
            f"{one.from_:%Y-%m-%d}",
            ", ".join(str(version.version) for version in one.versions),
            one.reason_code,
            one.approved_by,
            one.reason,
            "yes" if journaled else "at the flow's next start",
        )
        for one, journaled in found
    ]
    columns = ("id", "plan", "from", "versions", "reason code", "by", "reason", "journaled")
    data = [one.model_dump(mode="json", by_alias=True) | {"journaled": journaled} for one, journaled in found]
    emit({"corrections": data}, table("Price corrections", columns, rows) if rows else "no price corrections")


def _show(
    found: "Preview", request: "Request", csv_file: Path | None, limit: int, *, approved: bool, recorded: bool
) -> None:
    from cli.whatif import differences_table, rows_of, totals_table, write_csv  # noqa: PLC0415

    rows = rows_of(found.report)
    if csv_file is not None:
        write_csv(csv_file, rows)
    totals = found.report.totals()
    correction = found.correction
    data = {
        "id": correction.id,
        "plan": correction.plan,
        "from": correction.from_,
        "versions": [one.version for one in correction.versions],
        "approved": approved or not found.is_new,
        "approved_now": recorded,
        "pending": found.pending,
        "totals": totals,
        "rows": rows,
        "corrected_from_next_period": found.later,
    }
    shown = [] if context().json else [differences_table(found.report, rows, limit), totals_table(totals)]
    emit(data, *shown)
    if len(rows) > limit:
        note(f"{len(rows) - limit:,} more rows: --csv FILE writes all.")
    if found.later:
        names = ", ".join(found.later[:_NAMED_MAX]) + (" ..." if len(found.later) > _NAMED_MAX else "")
        note(f"In the middle of a billing period at {request.begins:%Y-%m-%d}, corrected from the next one on: {names}")
    if found.pending:
        note(f"{found.pending} corrections of the plan wait for the flow's start, and are part of the differences.")
    if recorded:
        note(f"Price correction {correction.id} is recorded. Start the flow again: it books it in the next hour.")
    elif not found.is_new:
        note(f"The same was approved before, as {correction.id}: nothing is booked twice.")
    elif not approved:
        note("Nothing was recorded: --approve --who NAME --reason TEXT books it.")


def _date(text: str) -> datetime:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        message = f"--from {text!r} is not a date such as 2026-10-01, or a time such as 2026-10-01T05:00Z"
        raise InvalidRequest(message) from None
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
