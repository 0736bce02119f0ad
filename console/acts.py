"""What people do through the service: approve, reverse, release, retry, resolve, pull. First a preview, then the act.

Every act goes to the audit log with who and why, by the functions that the command line uses. A token of single
tenants acts on what is all its own, or not at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select

from console import scope
from console.problems import Problem
from core.clock import Clock
from core.errors import InvalidRequest
from flows.poster_held import ERP_REASONS
from queries import exception_acts
from queries.document_state import posting_of
from queries.exception_acts import Person
from queries.exceptions import Group, find
from queries.stores import Row, Stores
from sinks.erp.registry import Adapters
from sinks.ledger import audit, held, master_data, posting_creation, tables
from sinks.ledger import reversal as reversals
from sinks.ledger.database import read, write
from sinks.ledger.erp_codes import ErpNames
from sinks.ledger.postings import GIVEN, HELD
from sinks.ledger.tokens import Token

REASON_CHARACTERS_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Acting:
    """Who acts on what: the stores, the token, the reason, and whether it is only a preview."""

    stores: Stores
    token: Token
    clock: Clock
    reason: str
    dry_run: bool

    @property
    def actor(self) -> str:
        """Return who stands in the audit log."""
        return actor_of(self.token)


def actor_of(token: Token) -> str:
    """Return who stands in the audit log for what is done with a token: names need not be unique, ids are."""
    return f"{token.name} (token {token.id})"


def check_posting(token: Token, stores: Stores, key: str) -> None:
    """Make sure that the token may see every document of the posting that holds a document.

    :raises Problem: 403: the posting is of other customers too.
    """
    allowed = scope.customers_of(token, stores.history)
    if allowed is None:
        return
    members, documents = tables.posting_documents.c, tables.documents.c
    posting = select(members.posting_key).where(members.document_key == key).scalar_subquery()
    query = (
        select(documents.customer)
        .join(tables.posting_documents, members.document_key == documents.key)
        .where(members.posting_key == posting)
        .distinct()
    )
    with read(stores.engine) as connection:
        customers = set(connection.execute(query).scalars())
    if not customers <= allowed:
        raise Problem("forbidden", "the document's posting is of customers too that this token may not see")


def approve(acting: Acting, key: str) -> Row:
    """Approve the posting of a document; the poster then sends it under the same key.

    :raises InvalidRequest: nothing of that key waits for approval.
    """
    check_posting(acting.token, acting.stores, key)
    engine = acting.stores.engine
    waiting = held.approvable(engine, key)
    given = waiting.approval == GIVEN
    if not acting.dry_run and not given:
        held.approve(engine, key, actor=acting.actor, reason=acting.reason, now=acting.clock.now())
    said = "was approved before" if given else "would be approved" if acting.dry_run else "is approved"
    return {"posting_key": waiting.key, "changed": not given, "said": f"posting {waiting.key} {said}"}


def reverse(acting: Acting, key: str) -> Row:
    """Book the opposite of a document under a key of its own; asking again answers with the one that was made.

    :raises InvalidRequest: it is not in the books.
    """
    stores = acting.stores
    check_posting(acting.token, stores, key)
    entities = {one.id: one for revision in stores.history.revisions for one in revision.configuration.entities}
    names = {one.id: posting_creation.erp_names(stores.history, one) for one in entities.values()}
    entity = reversals.entity_of(stores.engine, key)
    made = reversals.reverse(
        stores.engine,
        entities,
        names.get(entity, ErpNames({})),
        key,
        actor=acting.actor,
        reason=acting.reason,
        now=acting.clock.now(),
        dry_run=acting.dry_run,
    )
    said = "was reversed before" if not made.made_now else "would be reversed" if acting.dry_run else "is reversed"
    approval = f"; it waits for approval: {made.approval}" if made.approval else ""
    return {
        "posting_key": made.key,
        "documents": list(made.documents),
        "approval": made.approval,
        "changed": made.made_now,
        "said": f"{made.reverses} {said} by posting {made.key}{approval}",
    }


def release(acting: Acting, key: str) -> Row:
    """Let the poster try the held posting of a document again, under the same key.

    :raises InvalidRequest: it has none that is held, or the posting waits for approval.
    """
    check_posting(acting.token, acting.stores, key)
    engine = acting.stores.engine
    posting = posting_of(acting.stores, key)["posting"]
    if posting is None or posting["state"] != HELD:
        message = f"document {key} has no posting that is held"
        raise InvalidRequest(message)
    if not acting.dry_run:
        held.release(engine, posting["key"], actor=acting.actor, reason=acting.reason, now=acting.clock.now())
    verb = "would be tried again" if acting.dry_run else "is tried again"
    return {"posting_key": posting["key"], "changed": True, "said": f"posting {posting['key']} {verb}"}


def own_group(acting: Acting, key: str) -> Group:
    """Return the group, if all of it is the token's.

    :raises Problem: 404 if there is none; 403 if others have a part in it.
    """
    own = acting.token.tenants or None
    try:
        (group,) = find(acting.stores, [key], own)
        (whole,) = find(acting.stores, [key])
    except InvalidRequest as error:
        raise Problem("not_found", f"there is no group {key[:64]!r}") from error
    if group.key != key:
        raise Problem("not_found", f"there is no group {key[:64]!r}: give the whole key")
    if own is not None and group.count != whole.count:
        raise Problem("forbidden", "others have a part in this group: it can be acted on as a whole only")
    return group


def retry(acting: Acting, key: str, corrected: Sequence[Row] | None = None) -> Row:
    """Send refused events again, corrected or as they were, or let the poster try a held posting again.

    :raises InvalidRequest: nothing can come of it.
    """
    group, stores = own_group(acting, key), acting.stores
    person, now = Person(acting.actor, acting.reason), acting.clock.now()
    if group.origin != "rejects":
        exception_acts.check_releasable(group)
        if not acting.dry_run:
            exception_acts.release(stores, group, person, now)
        count, verb = len(group.identities), "would be tried again" if acting.dry_run else "are tried again"
        return {"count": count, "postings": group.identities, "changed": True, "said": f"{count:,} postings {verb}"}
    exception_acts.check_sendable(group)
    lines: list[dict[str, Any]]
    if corrected is not None:
        lines = [dict(line) for line in corrected]
        _check_subjects(acting.token, lines)
    else:
        lines = [exception_acts.export_line(row) for row in exception_acts.refused_events(stores, group)]
    count = len(lines) if acting.dry_run else exception_acts.send_again(stores, group, lines, person, now)
    verb = "would be sent again" if acting.dry_run else "were sent again"
    return {"count": count, "changed": count > 0, "said": f"{count:,} events {verb}"}


def _check_subjects(token: Token, lines: Sequence[Row]) -> None:
    for line in lines:
        scope.check_tenant(token, str(line["event"].get("subject", "")))


def resolve(acting: Acting, key: str) -> Row:
    """Mark a group as seen to; it is open again when something new comes."""
    group = own_group(acting, key)
    if not acting.dry_run:
        person = Person(acting.actor, acting.reason)
        exception_acts.resolve(acting.stores, group, person, acting.clock.now())
    verb = "would be marked as seen to" if acting.dry_run else "are marked as seen to"
    return {"count": group.count, "changed": True, "said": f"{group.count:,} {verb}"}


def pull(acting: Acting, entity: str) -> Row:
    """Read parties, accounts, currencies and periods from the ERPs, and make what they held due for another look.

    A preview reads them too and keeps nothing.

    :raises InvalidRequest: there is no such entity.
    :raises Unreachable: an ERP does not answer; what was read before it is kept.
    """
    scope.check_unscoped(acting.token)
    stores = acting.stores
    entities = [one for one in stores.history.latest.configuration.entities if not entity or one.id == entity]
    if not entities:
        message = f"unknown entity {entity[:64]!r}"
        raise InvalidRequest(message)
    adapters = Adapters(stores.settings)
    pulled: list[dict[str, Any]] = []
    for one in entities:
        data = adapters(one.erp).master_data()
        if acting.dry_run:
            counts: dict[str, int] = {}
            for record in data.records:
                counts[record.kind] = counts.get(record.kind, 0) + 1
            pulled.append({"entity": one.id, "counts": counts})
            continue
        now = acting.clock.now()
        kept = master_data.keep(stores.engine, one.id, data, ERP_REASONS, now)
        with write(stores.engine) as connection:
            audit.record(connection, at=now, actor=acting.actor, action="pull_master_data", subject=one.id,
                         reason=acting.reason)  # fmt: skip
        pulled.append(
            {
                "entity": kept.entity,
                "counts": kept.counts,
                "added": list(kept.added),
                "changed": list(kept.changed),
                "gone": list(kept.gone),
                "looked_at_again": kept.looked_at_again,
            }
        )
    verb = "would be kept" if acting.dry_run else "is kept"
    return {"pulled": pulled, "changed": True, "said": f"master data of {len(pulled)} entities {verb}"}
