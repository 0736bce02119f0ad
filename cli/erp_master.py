"""`meterbridge erp pull`, `ready` and `invoice`: master data from the ERP, and what depends on it."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cli.context import context
from cli.erp_drafts import settle_drafts
from cli.output import emit, key_values, note, progress, table
from core.errors import InvalidRequest, Unreachable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from sqlalchemy import Engine

    from config.revision import History
    from sinks.ledger.mapping_gaps import Gap
    from sinks.ledger.readiness import Readiness

OnlyEntity = Annotated[str, typer.Option("--entity", help="Only this entity.")]
_SHOWN_MAX = 20


def pull(entity: OnlyEntity = "") -> None:
    """Read parties, accounts, taxes, currencies and periods; report what is missing, changed or not mapped.

    Held postings that lacked something are checked again by the poster. The exit code is 0 even if something is
    missing: that is what `erp ready` is for.
    """
    from cli.erp import open_ledger  # noqa: PLC0415
    from core.clock import SystemClock  # noqa: PLC0415
    from flows.poster_held import ERP_REASONS  # noqa: PLC0415
    from sinks.erp.registry import Adapters  # noqa: PLC0415
    from sinks.ledger import mapping_gaps, master_data  # noqa: PLC0415

    now = SystemClock().now()
    with open_ledger() as (engine, history):
        entities = [one for one in history.latest.configuration.entities if not entity or one.id == entity]
        if not entities:
            message = f"unknown entity {entity!r}"
            raise InvalidRequest(message)
        adapters = Adapters(context().settings)
        pulled = []
        with progress("Pulling master data", len(entities)) as advance:
            for one in entities:
                pulled.append(master_data.keep(engine, one.id, adapters(one.erp).master_data(), ERP_REASONS, now))
                advance(1)
        missing = [one for one in _readiness(engine, history) if one.missing and (not entity or one.entity == entity)]
        found = mapping_gaps.gaps(history.latest, master_data.load(engine))
        unmapped = [one for one in found if not entity or one.entity == entity]
    rows = [
        (
            one.entity,
            ", ".join(f"{count} {kind}" for kind, count in sorted(one.counts.items())) or "nothing",
            _few(one.added),
            _few(one.changed),
            _few(one.gone),
            str(one.looked_at_again),
        )
        for one in pulled
    ]
    data = {
        "pulled": [
            {
                "entity": one.entity,
                "counts": one.counts,
                "added": list(one.added),
                "changed": list(one.changed),
                "gone": list(one.gone),
                "looked_at_again": one.looked_at_again,
            }
            for one in pulled
        ],
        "not_ready": _plain(missing),
        "mappings": [asdict(one) for one in unmapped],
    }
    columns = ("entity", "has", "new", "changed", "gone", "held postings checked again")
    emit(
        data,
        table("From the ERP", columns, rows, ("held postings checked again",)),
        *_missing_table(missing),
        *_unmapped_table(unmapped),
    )


def ready() -> None:
    """Tell for each contract what is missing before it can be invoiced. Exit code 0 only if nothing is."""
    from cli.erp import open_ledger  # noqa: PLC0415

    with open_ledger() as (engine, history):
        found = _readiness(engine, history)
    missing = [one for one in found if one.missing]
    summary = key_values({"contracts": len(found), "ready": len(found) - len(missing)})
    emit(
        {"contracts": len(found), "ready": len(found) - len(missing), "not_ready": _plain(missing)},
        summary,
        *_missing_table(missing),
    )
    if missing:
        raise typer.Exit(1)


def invoice(
    entity: OnlyEntity = "",
    customer: Annotated[str, typer.Option(help="Only this customer.")] = "",
    name: Annotated[str, typer.Option(help="Who runs it. Default: the user of this terminal.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be invoiced; record nothing.")] = False,
) -> None:
    """Make the invoices that are due: per contract and billing period, what is accrued and not invoiced yet.

    Draft invoices are read from the ERP first: what a person changed there counts. Running it again makes none twice.
    The poster brings them into the ERP. The exit code is 0 only if no contract with something to invoice had to wait
    because it is not ready.
    """
    from cli.erp import open_ledger, who  # noqa: PLC0415
    from core.clock import SystemClock  # noqa: PLC0415
    from sinks.ledger import invoicing  # noqa: PLC0415

    with open_ledger() as (engine, history):
        if not dry_run:
            _settle(engine, history, entity)
        readiness = {(one.customer, one.contract): one for one in _readiness(engine, history)}
        with progress("Invoicing", None) as advance:
            lines = []
            for line in invoicing.run(
                engine,
                history,
                readiness,
                actor=who(name),
                now=SystemClock().now(),
                only_entity=entity,
                only_customer=customer,
                dry_run=dry_run,
            ):
                lines.append(line)
                advance(1)
    rows = [
        (
            one.customer,
            one.contract,
            f"{one.period_start:%Y-%m-%d} to {one.period_end:%Y-%m-%d}",
            one.kind,
            one.net,
            one.currency,
            one.waits,
        )
        for one in lines
    ]
    columns = ("customer", "contract", "billing period", "kind", "net", "currency", "waits for")
    title = "Invoices that would be made" if dry_run else "Invoices"
    not_ready = [one for one in lines if one.waits and not readiness[one.customer, one.contract].is_ready]
    data = {"dry_run": dry_run, "invoices": [_invoice_plain(one) for one in lines], "not_ready": len(not_ready)}
    emit(data, table(title, columns, rows, ("net",)) if rows else "nothing is due")
    if not_ready:
        raise typer.Exit(1)


def _settle(engine: "Engine", history: "History", entity: str) -> None:
    """Book what was changed in drafts; an ERP that does not answer is no reason to wait: the next run takes it."""
    try:
        settled = settle_drafts(engine, history, entity)
    except Unreachable as error:
        note(f"draft invoices could not be read, so their changes go on a later invoice: {error}")
        return
    changed = sum(bool(one.adjustment) for one in settled)
    if settled:
        note(f"{len(settled)} draft invoices are posted in the ERP by now, {changed} of them with changes")


def _invoice_plain(line: object) -> dict[str, object]:
    return asdict(line)  # type: ignore[call-overload,no-any-return]


def _readiness(engine: "Engine", history: "History") -> "list[Readiness]":
    from config.periods import accounting_period  # noqa: PLC0415
    from core.clock import SystemClock  # noqa: PLC0415
    from sinks.ledger import master_data  # noqa: PLC0415
    from sinks.ledger.readiness import readiness  # noqa: PLC0415

    now = SystemClock().now()
    periods = {one.id: accounting_period(one, now).name for one in history.latest.configuration.entities}
    return readiness(history.latest, master_data.load(engine), periods)


def _plain(found: "list[Readiness]") -> list[dict[str, object]]:
    return [
        {"customer": one.customer, "contract": one.contract, "entity": one.entity, "missing": list(one.missing)}
        for one in found
    ]


def _missing_table(missing: "list[Readiness]") -> "list[RenderableType]":
    if not missing:
        return ["every contract is ready to be invoiced"]
    rows = [(one.entity, one.customer, one.contract, "; ".join(one.missing)) for one in missing[:_SHOWN_MAX]]
    more = len(missing) - _SHOWN_MAX
    title = f"{len(missing)} contracts cannot be invoiced yet"
    found: list[RenderableType] = [table(title, ("entity", "customer", "contract", "missing"), rows)]
    return [*found, f"... and {more} more (--json prints all)"] if more > 0 else found


def _unmapped_table(found: "list[Gap]") -> "list[RenderableType]":
    if not found:
        return ["everything the configuration names is mapped, and in the ERP as far as it tells"]
    rows = [(one.entity, one.kind, one.name, one.code, one.problem) for one in found[:_SHOWN_MAX]]
    more = len(found) - _SHOWN_MAX
    title = f"{len(found)} names without a usable code in the ERP"
    shown: list[RenderableType] = [table(title, ("entity", "kind", "ours", "in the ERP", "problem"), rows)]
    return [*shown, f"... and {more} more (--json prints all)"] if more > 0 else shown


def _few(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
