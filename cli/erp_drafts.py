"""`meterbridge erp drop-draft`, and what other commands do about draft invoices before they count."""

from typing import TYPE_CHECKING

from cli.context import context
from cli.output import emit
from core.errors import InvalidRequest

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from config.revision import History
    from sinks.ledger.drafts import Settled


def settle_drafts(engine: "Engine", history: "History", only: str) -> "list[Settled]":
    """Ask the ERPs which draft invoices are posted by now, and book what was changed in them.

    :param only: only this entity's; empty: all.
    :raises Unreachable: an ERP does not answer.
    """
    from core.clock import SystemClock  # noqa: PLC0415
    from queries.reconcile_erp import books  # noqa: PLC0415
    from sinks.erp.registry import Adapters  # noqa: PLC0415
    from sinks.ledger import drafts  # noqa: PLC0415

    found: list[Settled] = []
    for adapter, entities in books(history, Adapters(context().settings)):
        if not only or only in entities:
            found += drafts.settle(engine, adapter, entities, SystemClock().now())
    return found


def drop(engine: "Engine", history: "History", key: str, actor: str, reason: str) -> None:
    """Book that a draft which was deleted in the ERP bills nothing.

    :raises InvalidRequest: it is no open draft, or the ERP still has it.
    """
    from core.clock import SystemClock  # noqa: PLC0415
    from queries.reconcile_erp import books  # noqa: PLC0415
    from sinks.erp.registry import Adapters  # noqa: PLC0415
    from sinks.ledger import drafts  # noqa: PLC0415

    for adapter, entities in books(history, Adapters(context().settings)):
        if key in drafts.open_drafts(engine, adapter.name, entities):
            if found := adapter.lookup([key])[key]:
                message = f"the ERP still has {found[0].number}: cancel it there, and run `meterbridge reconcile --erp`"
                raise InvalidRequest(message)
            done = drafts.give_up(engine, key, actor=actor, reason=reason, now=SystemClock().now())
            if done is not None:
                text = f"{done.number} bills nothing: {done.adjustment} takes it back, the usage is unbilled again"
                emit({"key": key, "adjustment": done.adjustment, "amount": done.amount}, text)
                return
    message = f"{key} is no posting of an invoice that waits as a draft: `meterbridge report postings` lists postings"
    raise InvalidRequest(message)
