"""A month accrued in an ERP that leaves invoices as drafts, with one invoice, and what is asked about it."""

from typing import Final

from config.revision import History
from sinks.erp.port import ErpPort
from sinks.ledger import act_check, customer_balances, drafts, invoicing, read_back, revisions, unbilled
from sinks.ledger.database import read
from sinks.ledger.invoice_lines import UNBILLED
from tests.flows.poster_world import World, postings_of
from tests.sinks.ledger.invoice_books import ACCOUNTS, FIRST_HOUR, configured, usage
from tests.sinks.ledger.samples import entity

DAYS: Final = 31 * 24


def configure(world: World, adapter: str) -> History:
    plain = configured(state="draft")
    (one,) = plain.pop("entities")
    made = entity(accounts=ACCOUNTS | {"usage_revenue": "4001"}) | {
        name: one[name] for name in ("timezone", "invoicing")
    }
    grain = {"frequency": "hourly", "line_grain": ["customer", "charge"]}
    made |= {"posting": grain, "erp": {"adapter": adapter, "company": "1"}}
    for number, customer in enumerate(plain["customers"], 1):
        customer["erp"]["customer"] = f"CUST-000{number}"
    world.configure(made, **plain)
    return History(revisions.load_history(world.engine))


def run(world: World, history: History) -> list[str]:
    return [one.net for one in invoicing.run(world.engine, history, {}, actor="ann", now=world.clock.now())]


class Books:
    """A month accrued on the server, with one draft invoice for 25.00: input 20.00, output 5.00."""

    def __init__(self, world: World, erp: ErpPort) -> None:
        self.world, self.erp = world, erp
        self.history = configure(world, erp.name)
        world.book(
            usage(1, "20.00", 0), usage(2, "5.00", 3, charge="output"), complete_hour=FIRST_HOUR + DAYS
        )  # fmt: skip
        assert world.once(erp=erp).succeeded
        assert run(world, self.history) == ["25.00"]
        assert world.once(erp=erp).succeeded
        (self.invoice,) = [one for one in postings_of(world) if one.posting.kind == "invoice"]

    def reconcile(self) -> list[str]:
        """Do what `reconcile --erp` does; return what it finds."""
        now = self.world.clock.now()
        drafts.settle(self.world.engine, self.erp, ["US01"], now)
        days = read_back.days_of(self.world.engine, self.erp.name, 0, FIRST_HOUR * 2)
        found = [one.kind for one in read_back.read_back(self.world.engine, self.erp, ["US01"], days, now).findings]
        for account, _, ours, theirs in read_back.balances(self.world.engine, self.erp, ["US01"], now):
            found += [f"balance of {account}"] if ours != theirs else []
        for one in customer_balances.compare(self.world.engine, self.erp, ["US01"], UNBILLED, "9999-99") or []:
            found += [f"customer {one.name}"] if one.difference else []
        return found

    def roll(self) -> unbilled.Roll:
        with read(self.world.engine) as connection:
            found = unbilled.roll_forward(unbilled.movements(connection), "2025-11", "2026-12", self.world.clock.now())
        return found[0]

    def is_replayable(self) -> bool:
        stored, made = act_check.stored_and_made(self.world.engine)
        return stored == made

    def open(self) -> list[str]:
        return drafts.open_drafts(self.world.engine, self.erp.name, ["US01"])

    def invoice_next_month(self) -> list[str]:
        """Complete another month, make its invoice and send it."""
        self.world.book(complete_hour=FIRST_HOUR + 2 * DAYS)
        made = run(self.world, self.history)
        assert self.world.once(erp=self.erp).succeeded
        return made
