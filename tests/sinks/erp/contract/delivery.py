"""Documents in a ledger and a poster on an ERP under test."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Final

from sinks.erp.port import ErpPort
from tests.flows.poster_world import World, postings_of
from tests.sinks.erp.contract.harness import BAD_ACCOUNT, ErpUnderTest, fresh
from tests.sinks.ledger.samples import HOUR, SampleDocument, entity, key

ENTITY: Final = entity(
    accounts={"unbilled_receivable": "1150", "usage_revenue": "4001", "shortfall_revenue": BAD_ACCOUNT},
    grain="customer",
    line_grain=["charge"],
)
FINAL: Final = frozenset({"POSTED", "HELD", "CONFLICT", "DUPLICATED"})
PASS_S: Final = 20.0


@contextmanager
def ledger(folder: Path, *, entity_: dict[str, object] = ENTITY) -> Iterator[World]:
    """Return a world with an empty ledger in SQLite."""
    world = World(f"sqlite:///{folder / f'ledger-{fresh()}.sqlite'}")
    world.configure(entity_)
    try:
        yield world
    finally:
        world.engine.dispose()


def documents(count: int, *, hour: int = HOUR, role: str = "usage_revenue", cents: int = 100) -> list[SampleDocument]:
    """Return documents of `count` fresh customers, each of another amount."""
    first = fresh(count)
    return [
        SampleDocument(
            key(first + n),
            format(Decimal(cents + n) / 100, ".2f"),
            customer=f"c{first + n}",
            booked_hour=hour,
            revenue_role=role,
        )
        for n in range(count)
    ]


def deliver(world: World, adapter: ErpPort, *, batch: int = 20, passes: int = 300) -> dict[str, int]:
    """Let posters work until every posting is in a final state; return the states."""
    poster = world.poster(adapter, batch=batch)
    for _ in range(passes):
        poster.pass_once()
        states = world.states()
        if states and set(states) <= FINAL:
            break
        world.clock.sleep(PASS_S)
    return world.states()


def keys(world: World, state: str = "POSTED") -> list[str]:
    """Return the keys of postings in that state."""
    return [row.key for row in postings_of(world) if row.state == state]


def check_once(erp: ErpUnderTest, world: World) -> None:
    """Make sure every posted posting is in the ERP once, with its amounts, and no other is."""
    adapter = erp.adapter()
    rows = postings_of(world)
    truth = erp.truth([row.key for row in rows])
    for row in rows:
        found = truth[row.key]
        assert len(found) == (1 if row.state == "POSTED" else 0), (row.key, row.state, found)
        if found:
            wanted: dict[str, Decimal] = {}
            for account, amount in adapter.expected(row.posting):
                wanted[account] = wanted.get(account, Decimal(0)) + amount
            assert found[0].sums == wanted


def total(amounts: Iterable[Decimal]) -> Decimal:
    return sum(amounts, Decimal(0))
