"""Leaves: what a sealed period's rows come to by hour, owner and item, and the one digest over all of them.

A leaf's digest is the SHA-256 over the sorted SHA-256 of its rows, so it depends on the set of rows alone: not on
their order, on merges, or on the batches they came in. The root is the SHA-256 over the leaves in order of hour, owner
and item. Two lists of leaves, each in that order, are compared without holding either.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NamedTuple

import orjson

from sinks.ledger.amounts import exact

TOTALS_MAX: Final = 200_000
"""Owners and items of which a summary names the totals; further ones are added up as OTHERS."""
OTHERS: Final = "(others)"
DIFFERENCES_MAX: Final = 100
"""Differences kept; more are counted."""


class Leaf(NamedTuple):
    """Rows of one hour (since 1970-01-01T00:00Z), owner (tenant, customer) and item (meter, charge, document)."""

    hour: int
    owner: str
    item: str
    rows: int
    events: int
    total: str
    """Sum of their value or amount, as exact text."""
    digest: str

    @property
    def place(self) -> tuple[int, str, str]:
        """Return what tells leaves apart, and orders them."""
        return self[:3]


def exact_text(value: Decimal | None) -> str:
    """Return a decimal as plain text without zeros at its end: the same whatever database it came from."""
    if value is None:
        return ""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


class Root:
    """Takes leaves in order, and comes to the digest over all of them and the totals by owner and item."""

    def __init__(self, *, by_item: bool = True) -> None:
        self._digest = hashlib.sha256()
        self._by_item = by_item
        self._totals: dict[tuple[str, str], list[Any]] = {}
        self.leaves = 0
        self.rows = 0

    def take(self, leaves: Iterable[Leaf]) -> Iterator[Leaf]:
        """Pass the leaves on, counted in."""
        for leaf in leaves:
            self._digest.update(orjson.dumps(list(leaf)) + b"\n")
            self.leaves += 1
            self.rows += leaf.rows
            self._add(leaf)
            yield leaf

    def _add(self, leaf: Leaf) -> None:
        key = (leaf.owner, leaf.item if self._by_item else "")
        if key not in self._totals and len(self._totals) >= TOTALS_MAX:
            key = (OTHERS, "")
        one = self._totals.setdefault(key, [0, 0, Decimal(0)])
        one[0] += leaf.rows
        one[1] += leaf.events
        with exact():
            one[2] += Decimal(leaf.total)

    def plain(self) -> dict[str, Any]:
        """Return rows, leaves and digest."""
        return {"rows": self.rows, "leaves": self.leaves, "sha256": self._digest.hexdigest()}

    def totals(self) -> list[dict[str, Any]]:
        """Return the totals by owner and item, sorted."""
        return [
            {"owner": owner, "item": item, "rows": rows, "events": events, "total": exact_text(total)}
            for (owner, item), (rows, events, total) in sorted(self._totals.items())
        ]


@dataclass(frozen=True, slots=True)
class Difference:
    """A place where the leaves differ: `added`, `missing` or `changed`."""

    part: str
    what: str
    place: tuple[int, str, str]
    sealed: Leaf | None
    now: Leaf | None


def differences(part: str, sealed: Iterable[Leaf], now: Iterable[Leaf]) -> Iterator[Difference]:
    """Yield where two lists of leaves differ; both must come in order."""
    left, right = iter(sealed), iter(now)
    one, other = next(left, None), next(right, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one.place < other.place):
            assert one is not None  # noqa: S101 - for the type checker; the loop's condition says it
            yield Difference(part, "missing", one.place, one, None)
            one = next(left, None)
        elif one is None or other.place < one.place:
            yield Difference(part, "added", other.place, None, other)
            other = next(right, None)
        else:
            if one != other:
                yield Difference(part, "changed", one.place, one, other)
            one, other = next(left, None), next(right, None)
