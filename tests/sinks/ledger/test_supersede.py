"""What refers to a posting still finds it after it moved out of a closed period, under a key of its own."""

from sqlalchemy import select

from sinks.ledger import leases, postings, tables
from sinks.ledger.database import write
from sinks.ledger.supersede import in_period, supersede
from tests.flows.poster_world import World
from tests.sinks.ledger.invoice_books import FIRST_HOUR, configure, run, usage


def test_a_credit_note_names_the_invoice_by_the_key_it_was_sent_under(any_world: World) -> None:
    world = any_world
    history = configure(world)
    world.book(usage(1, "10.00", 0), usage(2, "-4.00", 31 * 24 + 5, kind="void"), complete_hour=FIRST_HOUR + 31 * 24)
    run(world, history)
    (entity_,) = history.latest.configuration.entities
    now = world.clock.now()
    lease = leases.acquire(world.engine, "US01", "test", now)
    assert lease is not None
    with write(world.engine) as connection:
        table = tables.postings
        refused = (table.c.kind == "invoice") & (table.c.state == "PENDING")
        connection.execute(table.update().where(refused).values(state="HELD", reason="closed_period"))
        key_ = str(connection.execute(select(table.c.key).where(table.c.kind == "invoice")).scalar_one())
    row = postings.get(world.engine, key_)
    assert row is not None
    moved = in_period(entity_, row.posting, "2026-01")
    assert supersede(world.engine, lease, row, moved, now)
    leases.release(world.engine, lease)
    world.book(complete_hour=FIRST_HOUR + 62 * 24)
    (line,) = run(world, history)
    assert line.kind == "credit_note"
    world.once()
    (note,) = [one for one in world.erp.booked.values() if one.kind == "credit_note"]
    assert note.invoice is not None
    assert note.invoice.credits == moved.key
    assert moved.key in world.erp.booked
