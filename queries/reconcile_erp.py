"""The ERP's books against our postings: entries by key, and the balances of the accounts they are on."""

from collections.abc import Callable, Iterator
from datetime import datetime

from config.entities import Entity, EntityErp
from config.revision import History
from queries.reconcile import Break, Check, Span
from queries.stores import Stores, minute_of
from sinks.erp.port import ErpPort
from sinks.ledger import drafts, read_back

Adapters = Callable[[EntityErp], ErpPort]


def checks(stores: Stores, span: Span, adapters: Adapters, now: datetime) -> Iterator[Check]:
    """Yield two checks per ERP.

    Books what people changed in draft invoices, marks postings RECONCILED or MISMATCHED, raises or resolves exceptions.

    :raises Unreachable: an ERP does not answer.
    """
    first, end = minute_of(span.begins) // 60, minute_of(span.ends) // 60
    for adapter, entities in books(stores.history, adapters):
        names = ", ".join(entities)
        settled = drafts.settle(stores.engine, adapter, entities, now)
        waiting = len(drafts.open_drafts(stores.engine, adapter.name, entities))
        entries = Check(f"the ERP's entries are our postings ({names})", "postings", adapter.name)
        days = read_back.days_of(stores.engine, adapter.name, first, end)
        changed = sum(bool(one.adjustment) for one in settled)
        if waiting or changed:
            entries.note = (
                f"{waiting} invoices wait there as drafts, in no balance; {changed} were changed, and adjusted"
            )
        result = read_back.read_back(stores.engine, adapter, entities, days, now)
        entries.groups = result.compared
        for finding in result.findings:
            where = {"kind": finding.kind, "identity": finding.identity}
            entries.add(Break(where, finding.ours, finding.erp, "differs", finding.cause))
        yield entries
        balances = Check(f"account balances in the ERP are ours ({names})", "postings in the books", adapter.name)
        for account, currency, ours, theirs in read_back.balances(stores.engine, adapter, entities, now):
            where = {"account": account, "currency": currency}
            balances.compare(where, ours, theirs, "others book on this account, or an entry was changed in the ERP")
        yield balances


def books(history: History, adapters: Adapters) -> list[tuple[ErpPort, list[str]]]:
    """Return each set of books once, with the entities that post into it."""
    newest: dict[str, Entity] = {}
    for revision in history.revisions:
        newest |= revision.entities
    found: dict[str, tuple[ErpPort, list[str]]] = {}
    for name, entity in sorted(newest.items()):
        # The journal keeps all entities in one set of books; an ERP's company is a set of its own.
        key = entity.erp.adapter if entity.erp.adapter == "journal" else f"{entity.erp.adapter}/{entity.erp.company}"
        found.setdefault(key, (adapters(entity.erp), []))[1].append(name)
    return list(found.values())
