"""`meterbridge erp`: what people decide about postings and periods, and what is read from the ERP."""

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli import erp_master
from cli.context import context
from cli.output import emit, note
from core.errors import InvalidRequest

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from config.revision import History

app = typer.Typer(help="Approve, reverse, close periods, pull master data, make invoices.", no_args_is_help=True)

Key = Annotated[str, typer.Argument(help="Key of the posting, or of one document in it.")]
Name = Annotated[str, typer.Option(help="Who decides. Default: the user of this terminal.")]
Reason = Annotated[str, typer.Option(help="Why; it goes into the audit log.")]
EntityName = Annotated[str, typer.Argument(help="The entity's id.")]
PeriodName = Annotated[str, typer.Argument(help="The accounting period, YYYY-MM.")]


@contextmanager
def open_ledger() -> "Iterator[tuple[Engine, History]]":
    """Yield the ledger and the journaled configuration.

    :raises Unreachable: the ledger does not answer.
    :raises InvalidRequest: it is not migrated.
    """
    from config.revision import History  # noqa: PLC0415  # keeps `--help` fast
    from sinks import ledger  # noqa: PLC0415
    from sinks.ledger import revisions  # noqa: PLC0415

    engine = ledger.connect(context().settings.ledger_url)
    try:
        ledger.check_ready(engine)
        yield engine, History(revisions.load_history(engine))
    finally:
        engine.dispose()


def who(name: str) -> str:
    """Return the name given, else the terminal's user."""
    return name.strip() or getpass.getuser()


def _needed(reason: str) -> str:
    if not reason.strip():
        message = "--reason TEXT is needed: say why, it goes into the audit log"
        raise InvalidRequest(message)
    return reason.strip()


@app.command()
def approve(key: Key, name: Name = "", reason: Reason = "") -> None:
    """Approve a posting that waits for it; the poster then sends it under the same key."""
    from core.clock import SystemClock  # noqa: PLC0415
    from sinks.ledger import held  # noqa: PLC0415

    why = _needed(reason)
    with open_ledger() as (engine, _):
        now_approved = held.approve(engine, key, actor=who(name), reason=why, now=SystemClock().now())
    text = f"{key} is approved" if now_approved else f"{key} was approved before"
    emit({"key": key, "approved": True, "approved_now": now_approved, "actor": who(name)}, text)


@app.command()
def reverse(key: Key, name: Name = "", reason: Reason = "") -> None:
    """Book the opposite of a posting, or of one document in it, under a key of its own.

    Asking again answers with the reversal that was made the first time.
    """
    from core.clock import SystemClock  # noqa: PLC0415
    from sinks.ledger import posting_creation  # noqa: PLC0415
    from sinks.ledger import reversal as reversals  # noqa: PLC0415
    from sinks.ledger.erp_codes import ErpNames  # noqa: PLC0415

    why = _needed(reason)
    with open_ledger() as (engine, history):
        entities = {one.id: one for revision in history.revisions for one in revision.configuration.entities}
        names = {one.id: posting_creation.erp_names(history, one) for one in entities.values()}
        entity = reversals.entity_of(engine, key)
        made = reversals.reverse(
            engine,
            entities,
            names.get(entity, ErpNames({})),
            key,
            actor=who(name),
            reason=why,
            now=SystemClock().now(),
        )
    state = f"waits for approval: {made.approval}" if made.approval else "the poster books it"
    text = f"{made.reverses} is reversed by {made.key}; {state if made.made_now else 'it was asked for before'}"
    emit(
        {
            "key": made.key,
            "reverses": made.reverses,
            "documents": list(made.documents),
            "made_now": made.made_now,
            "approval": made.approval,
        },
        text,
    )


@app.command("drop-draft")
def drop_draft(key: Key, name: Name = "", reason: Reason = "") -> None:
    """Book that a draft invoice, deleted in the ERP, bills nothing: its usage is unbilled again."""
    from cli.erp_drafts import drop  # noqa: PLC0415

    why = _needed(reason)
    with open_ledger() as (engine, history):
        drop(engine, history, key, who(name), why)


@app.command("close-period")
def close_period(entity: EntityName, period: PeriodName, name: Name = "", reason: Reason = "") -> None:
    """Record that an accounting period is closed: from the next hour on, its usage is a correction in the next one."""
    _record("close", entity, period, name, _needed(reason))


@app.command("reopen-period")
def reopen_period(entity: EntityName, period: PeriodName, name: Name = "", reason: Reason = "") -> None:
    """Record that a period is open again, from the next hour on, whatever its cut-off says."""
    _record("reopen", entity, period, name, _needed(reason))


def _record(action: Literal["close", "reopen"], entity: str, period: str, name: str, reason: str) -> None:
    from core.clock import SystemClock  # noqa: PLC0415
    from flows import period_acts  # noqa: PLC0415
    from sinks.ledger import period_report  # noqa: PLC0415

    now = SystemClock().now()
    with open_ledger() as (engine, history):
        act = period_acts.PeriodAct(entity, period, action, who(name), reason)
        known_from = period_acts.record(context().settings, engine, history, act, now)
        entities = {one.id: one for revision in history.revisions for one in revision.configuration.entities}
        found = [
            one for one in period_report.periods(engine, entities, now) if (one.entity, one.period) == (entity, period)
        ]
    undelivered = sum(one.undelivered for one in found)
    since = known_from.isoformat(timespec="minutes")
    done = {"close": "closed", "reopen": "open"}[action]
    emit(
        {
            "entity": entity,
            "period": period,
            "action": action,
            "known_from": since,
            "undelivered_documents": undelivered,
        },
        f"period {period} of {entity} counts as {done} from {since} on",
    )
    if action == "close" and undelivered:
        note(f"{undelivered} documents of it are not in the ERP's books yet: see `meterbridge report periods`")


app.command()(erp_master.pull)
app.command()(erp_master.ready)
app.command()(erp_master.invoice)
