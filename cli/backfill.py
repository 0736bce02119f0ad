"""`meterbridge backfill`: send history, previewed first."""

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.context import context
from cli.output import emit, key_values, progress, table
from core.errors import InvalidRequest

if TYPE_CHECKING:
    from rich.console import RenderableType

    from queries.backfill import Book, Preview

_WORDS = {
    "send": "would be sent",
    "rejected": "would be refused by the flow",
    "known": "accepted before, left out",
    "conflict": "id accepted before with other content",
    "untimed": "without a time",
    "closed": "of a closed accounting period",
    "expired": "of a time whose raw events expired",
}


def backfill(
    file: Annotated[Path, typer.Argument(help="NDJSON file of CloudEvents; may end in .gz or .zst.")],
    book: Annotated[
        str,
        typer.Option(help="now: all of it, what is of closed periods as corrections; open-periods: only what is not."),
    ] = "open-periods",
    yes: Annotated[bool, typer.Option("--yes", help="Send it. Without this it only shows what would be done.")] = False,
    reason: Annotated[str, typer.Option(help="Why, for the audit log; needed to send.")] = "",
    by: Annotated[str, typer.Option("--by", help="Who, for the audit log. Default: the login name.")] = "",
    batch: Annotated[int, typer.Option(min=1, max=1000, help="Events per stream entry.")] = 100,
    restart: Annotated[bool, typer.Option("--restart", help="Begin at the first line again.")] = False,
) -> None:
    """Send history into the books: what would become of it is shown first, then it is sent with --yes.

    Usage keeps its own time and is booked when it arrives. It goes into the accounting period of its time while that is
    open. What is of a closed period stays out (--book open-periods) or becomes a correction in the earliest open one
    (--book now). Ids that were accepted before are left out, however long ago; what cannot be sent is written to
    FILE.held.ndjson with the cause. Interrupted, the same command goes on where it was.
    """
    from core.clock import SystemClock  # noqa: PLC0415
    from flows import backfill as filling  # noqa: PLC0415
    from queries.stores import open_stores  # noqa: PLC0415

    rule = _book(book)
    if yes and not reason.strip():
        message = "--reason must say why: it goes to the audit log"
        raise InvalidRequest(message)
    if not file.is_file():
        message = f"{file} is not a file; name an NDJSON file of CloudEvents (.gz, .zst)"
        raise InvalidRequest(message)
    clock = SystemClock()
    with open_stores(context().settings) as stores:
        if not yes:
            with progress("Examining", None) as advance:
                found = filling.preview(stores, file, rule, clock.now(), advance)
            emit({"sent": False, "preview": filling.to_plain(found)}, *_shown(found))
            return
        person = filling.Person(by or getpass.getuser(), reason)
        with progress("Sending", None) as advance:
            state = filling.send(stores, file, rule, person, clock.now, batch=batch, restart=restart, advance=advance)
    held = filling.held_path(file)
    summary: dict[str, object] = {"lines": f"{state.lines:,}", "sent": f"{state.sent:,}"}
    summary |= {_WORDS[code]: f"{count:,}" for code, count in sorted(state.verdicts.items()) if code != "send"}
    if held.exists():
        summary["held lines"] = held
    emit({"sent": True, "events": state.sent, "lines": state.lines, "verdicts": state.verdicts}, key_values(summary))


def _book(text: str) -> "Book":
    if text == "now":
        return "now"
    if text == "open-periods":
        return "open-periods"
    message = f"--book {text!r} is neither now nor open-periods"
    raise InvalidRequest(message)


def _shown(found: "Preview") -> "list[RenderableType]":
    about = {"lines": f"{found.lines:,}", "tenants": f"{len(found.tenants):,}"}
    if found.first is not None and found.last is not None:
        about["usage"] = f"{found.first:%Y-%m-%d %H:%M} to {found.last:%Y-%m-%d %H:%M} UTC"
    about |= {f"estimated, {currency}": f"{total:,.2f}" for currency, total in sorted(found.estimates.items())}
    if found.not_estimated:
        about["not estimated"] = f"{found.not_estimated:,} values: without a price, or of meters that do not add up"
    verdicts = [(_WORDS[code], f"{count:,}") for code, count in found.verdicts.most_common()]
    verdicts += [(f"  {reason}", f"{count:,}") for reason, count in found.reasons.most_common()]
    meters = [(name, f"{events:,}", f"{total:,f}") for name, (events, total) in sorted(found.meters.items())]
    periods = [(*key, f"{count:,}") for key, count in sorted(found.periods.items())]
    return [
        key_values(about),
        table("Events", ("what", "events"), verdicts, right=("events",)),
        table("Meters", ("meter", "events", "sum"), meters, right=("events", "sum")),
        table("Accounting periods", ("entity", "period", "state", "events"), periods, right=("events",)),
        "Nothing was sent. Send it with --yes --reason WHY.",
    ]
