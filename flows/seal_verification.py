"""`verify --period`: recomputes what a seal froze, and names exactly what is not the same any more.

Checked are the chain of summaries, this one's signature and file, the configuration it was made under, and every fact,
rated row, document and posting of the period. Reads only.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from core.errors import InvalidRequest
from core.signing import read_key
from flows.sealing import PART_NAMES, file_of, part_leaves, root
from queries import sealed_leaves
from queries.leaves import DIFFERENCES_MAX, Difference, Leaf, Root, differences
from queries.leaves_clickhouse import Scope
from queries.stores import Stores
from sinks.ledger import closes, retention, seals
from sinks.ledger.database import read

_OWNER: Final = {"usage_facts": ("tenant", "meter"), "rated_usage": ("customer", "charge")}
_KEYED: Final = {"postings": ("currency", "posting")}
_DOCUMENT: Final = ("customer", "document")


@dataclass(slots=True)
class PartProof:
    """One part: what was sealed, what is there now, and where they differ."""

    name: str
    sealed: dict[str, Any]
    now: dict[str, Any]
    differences: list[Difference] = field(default_factory=list)
    differing: int = 0
    note: str = ""
    expired: bool = False
    """Rows of it are gone by policy, so nothing is compared."""

    @property
    def holds(self) -> bool:
        """Tell whether nothing changed, of what policy left."""
        return self.expired or self.sealed == self.now

    def take(self, found: Iterable[Difference]) -> None:
        """Count the differences, and keep some."""
        for one in found:
            self.differing += 1
            if len(self.differences) < DIFFERENCES_MAX:
                self.differences.append(one)


@dataclass(slots=True)
class Proof:
    """What became of a seal. `problems` are of the seal itself: chain, signature, file, configuration."""

    seal: seals.Seal
    problems: list[str]
    parts: list[PartProof]

    @property
    def holds(self) -> bool:
        """Tell whether everything is as it was sealed."""
        return not self.problems and all(part.holds for part in self.parts)


def place_names(part: str) -> tuple[str, str]:
    """Return what owner and item of a part's leaves are."""
    return _OWNER.get(part) or _KEYED.get(part) or _DOCUMENT


def sealed_entities(stores: Stores, period: str, entity: str = "") -> list[str]:
    """Return the entities whose period of that name is sealed.

    :raises InvalidRequest: none is, or not the one asked for.
    """
    with read(stores.engine) as connection:
        found = [one.entity for one in seals.chain(connection) if one.accounting_period == period]
    wanted = [one for one in sorted(found) if entity in {"", one}]
    if not wanted:
        whose = f" of {entity}" if entity else ""
        message = f"{period}{whose} is not sealed: `meterbridge close --period {period}` does it"
        raise InvalidRequest(message)
    return wanted


def verify_period(stores: Stores, entity: str, period: str, done: Callable[[str], None] = lambda _: None) -> Proof:
    """Recompute a sealed period and compare.

    :raises InvalidRequest: it is not sealed.
    """
    with read(stores.engine) as connection:
        seal = seals.find(connection, entity, period)
        if seal is None:
            message = f"{period} of {entity} is not sealed"
            raise InvalidRequest(message)
        problems = list(chain_problems(seals.chain(connection)))
        recorded = closes.load(connection).recorded(entity, period, 1 << 62)
    if recorded != "close":
        problems.append("the period's recorded close is gone from period_closes")
    problems += _signature(stores, seal)
    problems += _file(file_of(stores, seal), seal)
    problems += _configuration(stores, seal)
    summary = seal.summary
    scope = Scope(**summary["scope"])
    parts = []
    expired_by_table = retention.expired_before(stores.engine)
    for name in PART_NAMES:
        expired = expired_by_table.get(name)
        if expired is not None and expired.timestamp() > scope.begins_s:
            note = f"rows from before {expired:%Y-%m-%d} expired by policy: the summary keeps their totals and digest"
            parts.append(PartProof(name, summary["digests"][name], {}, note=note, expired=True))
            continue
        now = root(name)
        for _ in now.take(part_leaves(stores, scope, name)):
            pass
        part = PartProof(name, summary["digests"][name], now.plain())
        if not part.holds:
            _explain(stores, summary, scope, part, now)
        parts.append(part)
        done(name)
    return Proof(seal, problems, parts)


def chain_problems(chain: list[seals.Seal]) -> Iterator[str]:
    """Yield what is wrong with the chain of seals: each has its digest, and names the one before it."""
    previous = ""
    for number, seal in enumerate(chain, 1):
        name = f"seal {seal.number} ({seal.accounting_period} of {seal.entity})"
        if hashlib.sha256(seal.json.encode()).hexdigest() != seal.digest:
            yield f"{name}: its summary in period_seals was edited: it has not the digest recorded beside it"
        elif any(seal.summary[one] != getattr(seal, one) for one in ("number", "entity", "accounting_period")):
            yield f"{name}: its row in period_seals was edited: it is not what its summary says"
        if seal.number != number or seal.previous != previous or seal.summary.get("previous") != previous:
            yield f"{name}: the seal before it is missing, or is another one than when this one was made"
        previous = seal.digest


def _signature(stores: Stores, seal: seals.Seal) -> Iterator[str]:
    closing = stores.settings.closing
    paths = [path for path in (closing.key_file, *closing.earlier_key_files) if path is not None]
    keys = {key.id: key for key in map(read_key, paths)}
    key = keys.get(seal.key_id)
    if key is None:
        yield (
            f"the signature cannot be checked: it was made with the key {seal.key_id}, which is neither"
            " METERBRIDGE_CLOSING__KEY_FILE nor one of METERBRIDGE_CLOSING__EARLIER_KEY_FILES"
        )
    elif not key.signed(seal.json.encode(), seal.signature):
        yield "the signature is not that of the summary: the summary or the signature was changed"


def _file(path: Path, seal: seals.Seal) -> Iterator[str]:
    try:
        text = path.read_bytes()
    except OSError as error:
        yield f"the file {path} cannot be read: {error.strerror}: `meterbridge close` writes it again"
        return
    if text != seal.file_text():
        yield f"the file {path} is not the summary in the ledger: one of the two was changed"


def _configuration(stores: Stores, seal: seals.Seal) -> Iterator[str]:
    known = {revision.known_from_ms: revision.digest for revision in stores.history.revisions}
    for one in seal.summary["configuration"]:
        if known.get(one["known_from_ms"]) != one["sha256"]:
            yield f"the configuration known from {one['known_from_ms']} ms is not the one the period was booked by"


def _explain(stores: Stores, summary: dict[str, Any], scope: Scope, part: PartProof, now: Root) -> None:
    """Find where a part differs: by the leaves that were kept if they are still those of the seal, else by totals."""
    kept = root(part.name)
    for _ in kept.take(sealed_leaves.kept(stores, summary["leaves"], part.name)):
        pass
    if kept.plain() == part.sealed:
        sealed, found = sealed_leaves.kept(stores, summary["leaves"], part.name), part_leaves(stores, scope, part.name)
        part.take(differences(part.name, sealed, found))
        return
    part.note = "the leaves in sealed_leaves are not those of the seal either, so only totals tell where it differs"
    before = (_total(one) for one in summary["totals"][part.name])
    part.take(differences(part.name, before, map(_total, now.totals())))


def _total(plain: dict[str, Any]) -> Leaf:
    return Leaf(0, plain["owner"], plain["item"], plain["rows"], plain["events"], plain["total"], "")
