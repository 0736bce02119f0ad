"""`meterbridge explain`: what booked amounts are made of, line by line."""

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.context import context
from cli.output import emit, note
from core.errors import InvalidRequest, InvariantViolation

if TYPE_CHECKING:
    from operators.rate_explain import RowExplanation


def explain(
    document: Annotated[str | None, typer.Option(help="Key of a document: explains the rows it is made of.")] = None,
    customer: Annotated[str | None, typer.Option(help="The customer's id; in place of --document.")] = None,
    contract: Annotated[str | None, typer.Option(help="Rows of this contract only.")] = None,
    charge: Annotated[str | None, typer.Option(help="Rows of this charge only.")] = None,
    booked: Annotated[str | None, typer.Option(help="Rows of this booked hour only, as 2026-10-01T07.")] = None,
    usage: Annotated[str | None, typer.Option(help="Rows of this usage hour only.")] = None,
    kind: Annotated[str | None, typer.Option(help="Rows of this kind only, such as late_usage or true_up.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Rows explained, oldest first.")] = 10,
) -> None:
    """Explain booked amounts: quantities to date, tier by tier, before and after, and that they tie."""
    from queries.explained_text import lines_of  # noqa: PLC0415
    from queries.rated_rows import Selection, explained, of_document  # noqa: PLC0415
    from queries.stores import open_stores  # noqa: PLC0415

    if (document is None) == (customer is None):
        message = "which rows? Give either --document KEY or --customer ID"
        raise InvalidRequest(message)
    with open_stores(context().settings) as stores:
        if document is not None:
            selection = of_document(stores, document, charge)
        else:
            selection = Selection(
                customer=str(customer),
                contract=contract,
                charge=charge,
                booked_hour=_hour("--booked", booked),
                usage_hour=_hour("--usage", usage),
                line_kind=kind,
            )
        rows, total = explained(stores, selection, limit)
    if not total:
        message = "no sealed row fits: an hour is sealed once the flow has passed it; see `meterbridge status`"
        raise InvalidRequest(message)
    if context().json:
        emit({"rows": [_plain(row) for row in rows], "rows_in_all": total})
    else:
        sys.stdout.write("\n\n".join("\n".join(lines_of(row)) for row in rows) + "\n")
        if total > len(rows):
            note(f"{total - len(rows):,} more rows: narrow the choice, or raise --limit.")
    differing = sum(row.expected is not None and not row.ties for row in rows)
    if differing:
        message = (
            f"{differing} of {len(rows)} rows differ from their calculation: rows were lost or altered; run"
            " `meterbridge verify`, which rates everything again"
        )
        raise InvariantViolation(message)


def _plain(found: "RowExplanation") -> dict[str, Any]:
    from operators.rating.explain_text import difference_to_plain, to_plain  # noqa: PLC0415

    return {
        "row": dict(found.row),
        "step": None if found.step is None else difference_to_plain(found.step),
        "final": None if found.final is None else to_plain(found.final),
        "amount_expected": found.expected,
        "ties": found.ties,
        "notes": found.notes,
    }


def _hour(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        message = f"{option} {text!r} is not a time such as 2026-10-01T07 or 2026-10-01T07:00Z"
        raise InvalidRequest(message) from error
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    return when.replace(minute=0, second=0, microsecond=0)
