"""`meterbridge exceptions`: one list of what needs a person, grouped by cause, and what to do about it."""

import getpass
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.context import context
from cli.output import emit, table
from core.clock import SystemClock
from core.errors import InvalidRequest

if TYPE_CHECKING:
    from queries.exception_acts import Person
    from queries.exceptions import Group

app = typer.Typer(
    help="What needs a person, grouped by cause: list, show, export, retry, resolve.",
    no_args_is_help=True,
    add_completion=False,
)

Keys = Annotated[list[str], typer.Argument(help="Keys of groups, or their beginnings.")]
Reason = Annotated[str, typer.Option(help="Why, for the audit log.")]
By = Annotated[str, typer.Option("--by", help="Who, for the audit log. Default: the login name.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


@app.command("list")
def show_list(
    kind: Annotated[str, typer.Option(help="Only this kind, such as invalid_quantity or posting_held.")] = "",
    tenant: Annotated[str, typer.Option(help="Only groups in which this tenant has a part.")] = "",
    amount_min: Annotated[
        str, typer.Option(help="Only groups behind which at least so much waits, in any currency.")
    ] = "",
    days: Annotated[float, typer.Option(help="Only what came in the last so many days. 0: all.", min=0)] = 0,
    waiting_days: Annotated[
        float, typer.Option(help="Only groups whose first came at least so many days ago.", min=0)
    ] = 0,
    everything: Annotated[bool, typer.Option("--all", help="Resolved ones too.")] = False,
) -> None:
    """List open exceptions, grouped by cause."""
    from queries.exceptions import groups  # noqa: PLC0415
    from queries.stores import open_stores  # noqa: PLC0415

    now, least = SystemClock().now(), _amount(amount_min)
    since = now - timedelta(days=days) if days else None
    with open_stores(context().settings) as stores:
        found = groups(stores, kind=kind, tenant=tenant, since=since, amount_min=least, everything=everything)
    found = [group for group in found if not waiting_days or group.first <= now - timedelta(days=waiting_days)]
    rows = [
        (
            *(group.key, group.kind, f"{group.count:,}", _at_stake(group)),
            *(_tenants(group), _time(group.last), group.cause),
        )
        for group in found
    ]
    title = f"{len(found)} {'' if everything else 'open '}group(s)"
    columns = ("key", "kind", "count", "at stake", "tenants", "last", "cause")
    emit(
        [asdict(group) | {"open": group.is_open} for group in found],
        table(title, columns, rows, right=("count", "at stake")),
    )


def _tenants(group: "Group") -> str:
    shown = ", ".join(group.tenants[:2])
    return shown if len(group.tenants) <= 2 else f"{shown} +{len(group.tenants) - 2}"


def _amount(text: str) -> Decimal | None:
    if not text:
        return None
    with suppress(InvalidOperation):
        if (amount := Decimal(text)).is_finite():
            return amount
    message = f"--amount-min {text!r} is not a number such as 1000.00"
    raise InvalidRequest(message)


def _at_stake(group: "Group") -> str:
    return ", ".join(f"{amount:,f} {currency}" for currency, amount in sorted(group.at_stake.items()))


def _time(value: datetime) -> str:
    return f"{value:%Y-%m-%d %H:%M}"


@app.command("show")
def show(keys: Keys) -> None:
    """Show groups with samples."""
    from cli.output import key_values  # noqa: PLC0415
    from queries.exceptions import find  # noqa: PLC0415
    from queries.stores import open_stores  # noqa: PLC0415

    with open_stores(context().settings) as stores:
        found = find(stores, keys)
    parts = []
    for group in found:
        state = "open" if group.is_open else f"resolved until {_time(group.resolved_until or group.last)}"
        parts.append(
            key_values(
                {
                    "key": group.key,
                    "kind": group.kind,
                    "cause": group.cause,
                    "count": f"{group.count:,}",
                    "at stake": _at_stake(group) or "not known",
                    "first, last": f"{_time(group.first)}, {_time(group.last)}",
                    "tenants": ", ".join(group.tenants),
                    "state": state,
                }
                | {
                    f"sample {number}": " ".join(str(value) for value in sample.values())
                    for number, sample in enumerate(group.samples, 1)
                }
            )
        )
    emit([asdict(group) | {"open": group.is_open} for group in found], *parts)


@app.command("export")
def export(
    key: Annotated[str, typer.Argument(help="Key of a group of refused events.")],
    file: Annotated[Path, typer.Option(help="Where to write; one JSON object a line.")],
) -> None:
    """Write the refused events of a group to a file, to be corrected and sent by `retry --file`."""
    from queries.exception_acts import export as write  # noqa: PLC0415
    from queries.exceptions import find  # noqa: PLC0415
    from queries.stores import open_stores  # noqa: PLC0415

    with open_stores(context().settings) as stores:
        count = write(stores, find(stores, [key])[0], file)
    emit({"events": count, "file": file}, f"{count:,} events written to {file}: correct `event`, keep `position`.")


@app.command("retry")
def retry(
    keys: Keys,
    reason: Reason,
    file: Annotated[Path | None, typer.Option(help="Corrected events of one group, from `export`.")] = None,
    by: By = "",
    dry_run: DryRun = False,
) -> None:
    """Send refused events again (corrected, or as they are under a new configuration), or release held postings."""
    from queries.exception_acts import (  # noqa: PLC0415
        check_releasable,
        check_sendable,
        corrected,
        refused_events,
        release,
        send_again,
    )
    from queries.exception_acts import export_line as as_line  # noqa: PLC0415
    from queries.exceptions import find  # noqa: PLC0415
    from queries.stores import open_stores  # noqa: PLC0415

    person, now = _person(by, reason), SystemClock().now()
    if file is not None and len(keys) != 1:
        message = "--file belongs to one group: name one key"
        raise InvalidRequest(message)
    said, plain = [], []
    with open_stores(context().settings) as stores:
        found = find(stores, keys)
        for group in found:  # all of them, before anything is done about one
            (check_sendable if group.origin == "rejects" else check_releasable)(group)
        for group in found:
            if group.origin != "rejects":
                done = "would be released" if dry_run else f"released: {release(stores, group, person, now)}"
                count = group.count
            else:
                lines = corrected(group, file) if file else [as_line(row) for row in refused_events(stores, group)]
                count = len(lines) if dry_run else send_again(stores, group, lines, person, now)
                done = f"{count:,} events {'would be' if dry_run else 'were'} sent again"
            said.append(f"{group.key}  {group.kind}: {done}")
            plain.append({"key": group.key, "kind": group.kind, "count": count, "dry_run": dry_run})
    emit(plain, *said)


@app.command("resolve")
def resolve(keys: Keys, reason: Reason, by: By = "", dry_run: DryRun = False) -> None:
    """Mark groups as seen to; they are open again when something new comes."""
    from queries.exception_acts import resolve as mark  # noqa: PLC0415
    from queries.exceptions import find  # noqa: PLC0415
    from queries.stores import open_stores  # noqa: PLC0415

    person, now = _person(by, reason), SystemClock().now()
    with open_stores(context().settings) as stores:
        found = find(stores, keys)
        if not dry_run:
            for group in found:
                mark(stores, group, person, now)
    verb = "would be resolved" if dry_run else "resolved"
    emit(
        [{"key": group.key, "kind": group.kind, "count": group.count, "dry_run": dry_run} for group in found],
        *(f"{group.key}  {group.kind}: {group.count:,} {verb}" for group in found),
    )


def _person(by: str, reason: str) -> "Person":
    from queries.exception_acts import Person  # noqa: PLC0415

    if not reason.strip():
        message = "--reason must say why: it goes to the audit log"
        raise InvalidRequest(message)
    return Person(by or getpass.getuser(), reason)
