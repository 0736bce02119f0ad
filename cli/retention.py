"""`meterbridge retention`: remove what is older than the policy says, and legal holds."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.context import context
from cli.output import emit, note, progress, table
from core.errors import InvalidRequest

if TYPE_CHECKING:
    from flows.retention import Due

app = typer.Typer(help="Remove what is older than the policy says; legal holds.", invoke_without_command=True)
hold = typer.Typer(help="Legal holds: rows of these customers and tenants stay.", no_args_is_help=True)
app.add_typer(hold, name="hold")

Kind = Annotated[Literal["customer", "tenant"], typer.Argument(help="customer (all its tenants), or tenant.")]
Identifier = Annotated[str, typer.Argument(metavar="ID", help="The customer's or tenant's id.")]
Who = Annotated[str, typer.Option(help="Who decides. Default: the user of this terminal.")]
Reason = Annotated[str, typer.Option(help="Why; it goes into the audit log.")]


@app.callback()
def retention(
    ctx: typer.Context,
    apply: Annotated[bool, typer.Option("--apply", help="Remove what is due.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what is due; the default.")] = False,
    who: Who = "",
) -> None:
    """Show what the policy removes: whole months, by table. With --apply keep its totals and remove it.

    Of raw events count, sum and digest per series and hour are kept first. Rows under a legal hold stay.
    """
    if ctx.invoked_subcommand is not None:
        return
    if apply and dry_run:
        message = "--apply or --dry-run, not both"
        raise InvalidRequest(message)
    from cli.erp import who as person  # noqa: PLC0415
    from core.clock import SystemClock  # noqa: PLC0415
    from flows import retention as flow  # noqa: PLC0415
    from queries.stores import open_stores  # noqa: PLC0415

    with open_stores(context().settings) as stores:
        now = SystemClock().now()
        found = flow.due(stores, now)
        if apply:
            with progress("Removing months", len(found)) as advance:
                found = list(flow.apply(stores, now, person(who), lambda _one: advance(1)))
        ttl = sorted(stores.settings.clickhouse.retention_days)
    emit(_plain(found, applied=apply), _table(found, applied=apply))
    if ttl:
        note(
            f"settings.clickhouse.retention_days lets ClickHouse remove rows of {', '.join(ttl)} by itself, without"
            " keeping totals and whatever is on hold: take it out to leave it to this command"
        )
    if found and not apply:
        note("Nothing was removed: --apply does it.")


def _plain(found: "list[Due]", *, applied: bool) -> dict[str, Any]:
    return {
        "applied": applied,
        "policy_months": context().settings.retention.model_dump(),
        "months": [asdict(one) | {"removes": one.removes} for one in found],
        "removed_rows" if applied else "rows_to_remove": sum(one.removes for one in found),
    }


def _table(found: "list[Due]", *, applied: bool) -> Any:
    if not found:
        return "nothing is older than the policy says"
    rows = [
        (one.table, f"{one.month // 100}-{one.month % 100:02d}", f"{one.removes:,}", f"{one.held:,}") for one in found
    ]
    numeric = ("removed" if applied else "to remove", "on hold")
    return table("By policy", ("table", "month", *numeric), rows, right=numeric)


@hold.command("add")
def add(kind: Kind, name: Identifier, who: Who = "", reason: Reason = "") -> None:
    """Keep all rows of a customer or tenant, whatever the policy says."""
    from cli.erp import open_ledger  # noqa: PLC0415
    from cli.erp import who as person  # noqa: PLC0415
    from core.clock import SystemClock  # noqa: PLC0415
    from sinks.ledger import retention as holds  # noqa: PLC0415

    why = _needed(reason)
    with open_ledger() as (engine, history):
        holds.check_known(history, kind, name)
        is_new = holds.place(engine, kind, name, actor=person(who), reason=why, now=SystemClock().now())
    emit(
        {"kind": kind, "name": name, "held": True, "placed_now": is_new},
        f"{kind} {name} is on hold" + ("" if is_new else ", and was before"),
    )


@hold.command("remove")
def remove(kind: Kind, name: Identifier, who: Who = "", reason: Reason = "") -> None:
    """End a hold: what is older than the policy says goes with the next run."""
    from cli.erp import open_ledger  # noqa: PLC0415
    from cli.erp import who as person  # noqa: PLC0415
    from core.clock import SystemClock  # noqa: PLC0415
    from sinks.ledger import retention as holds  # noqa: PLC0415

    why = _needed(reason)
    with open_ledger() as (engine, _):
        holds.release(engine, kind, name, actor=person(who), reason=why, now=SystemClock().now())
    emit({"kind": kind, "name": name, "held": False}, f"{kind} {name} is on hold no more")


@hold.command("list")
def listed(
    everything: Annotated[bool, typer.Option("--all", help="Ended ones too.")] = False,
) -> None:
    """Show the holds in force."""
    from cli.erp import open_ledger  # noqa: PLC0415
    from sinks.ledger import retention as holds  # noqa: PLC0415

    with open_ledger() as (engine, _):
        found = holds.holds(engine, released=everything)
    rows = [
        (
            one.kind,
            one.name,
            f"{one.placed_at:%Y-%m-%d %H:%M}",
            one.actor,
            one.reason,
            "" if one.released_at is None else f"{one.released_at:%Y-%m-%d %H:%M}",
        )
        for one in found
    ]
    columns = ("kind", "id", "since", "by", "reason", "ended")
    emit({"holds": [asdict(one) for one in found]}, table("Legal holds", columns, rows) if rows else "no holds")


def _needed(reason: str) -> str:
    if not reason.strip():
        message = "--reason TEXT is needed: say why, it goes into the audit log"
        raise InvalidRequest(message)
    return reason.strip()
