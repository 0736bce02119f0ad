"""Roll-forwards of unbilled and deferred revenue tie with the ERP per customer, also where revenue is ratable."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from config.revision import History
from sinks.erp.journal import JournalAdapter
from sinks.erp.port import ErpPort
from sinks.ledger import customer_balances, deferred, invoicing, revisions, unbilled
from sinks.ledger.database import read
from sinks.ledger.invoice_lines import UNBILLED
from sinks.ledger.movements import booked_documents
from tests.flows.poster_world import World
from tests.sinks.erp.memory_erp import MemoryErp
from tests.sinks.ledger.invoice_books import ACCOUNTS, FIRST_HOUR, configured, fee, usage
from tests.sinks.ledger.samples import SampleDocument, entity

DAYS = 31 * 24
LIABILITY = (deferred.LIABILITY,)
RATABLE = ACCOUNTS | {"contract_liability": "2400", "subscription_revenue": "4002"}


def configure(world: World, accounts: dict[str, str], **posting: Any) -> History:
    plain = configured()
    (one,) = plain.pop("entities")
    made = entity(accounts=accounts) | {name: one[name] for name in ("timezone", "invoicing")}
    world.configure(made | {"posting": {"frequency": "hourly", **posting}}, **plain)
    return History(revisions.load_history(world.engine))


def ratable(asset: str) -> list[SampleDocument]:
    """Return five days of a fee of 31.00, what was due of it at the end, and seats that were due ahead."""
    daily = ("recognition", "recognition", asset, "subscription_revenue", "1.00")
    due = ("fee", "recognition", "unbilled_receivable", asset, "31.00")
    ahead = ("usage", "recognition", "unbilled_receivable", "contract_liability", "12.00")
    earned = ("recognition", "recognition", "contract_liability", "subscription_revenue", "5.00")
    return [
        *(fee(day, 24 * day, daily) for day in range(5)),
        fee(40, 30 * 24 + 1, due),
        fee(41, 30 * 24 + 2, ahead),
        fee(42, 30 * 24 + 3, earned),
        usage(43, "7.00", 8, customer="globex"),
    ]


def money(*values: int) -> tuple[Decimal, ...]:
    return tuple(map(Decimal, values))


def rolls(world: World, last: str = "2025-12") -> dict[str, unbilled.Roll]:
    with read(world.engine) as connection:
        found = unbilled.roll_forward(unbilled.movements(connection), "2025-11", last, world.clock.now())
    return {one.customer: one for one in found}


def in_erp(
    world: World, erp: ErpPort, roles: tuple[str, ...] = UNBILLED, last: str = "9999-99"
) -> dict[str, tuple[Decimal, ...]]:
    found = customer_balances.compare(world.engine, erp, ["US01"], roles, last)
    assert found is not None
    return {one.name: (one.ours, one.erp) for one in found}


@pytest.mark.parametrize("grain", [{"grain": "customer"}, {"line_grain": ["customer"]}])
@pytest.mark.parametrize("asset", ["unbilled_receivable", "contract_asset"])
def test_closing_and_what_is_ahead_are_the_erps_balance_of_each_customer(
    world: World, tmp_path: Path, grain: dict[str, Any], asset: str
) -> None:
    books = JournalAdapter(tmp_path / "books")
    history = configure(world, RATABLE | ({"contract_asset": "1160"} if asset == "contract_asset" else {}), **grain)
    world.book(*ratable(asset), complete_hour=FIRST_HOUR + DAYS)
    before = rolls(world)["acme"]
    assert (before.closing, before.ahead, before.balance, before.not_in_erp) == money(43, -26, 17, 17)
    assert world.once(erp=books).succeeded
    found = rolls(world)
    assert (found["acme"].balance, found["acme"].not_in_erp, found["globex"].balance) == money(17, 0, 7)
    assert in_erp(world, books) == {"acme": money(17, 17), "globex": money(7, 7)}
    assert [one.net for one in invoicing.run(world.engine, history, {}, actor="ann", now=world.clock.now())] == [
        "43.00",
        "7.00",
    ]
    assert world.once(erp=books).succeeded
    found = rolls(world)
    assert (found["acme"].closing, found["acme"].ahead, *found["acme"].ages) == money(0, -26, 0, 0, 0, 0)
    assert in_erp(world, books) == {"acme": money(-26, -26), "globex": money(0, 0)}
    # As of the end of November, before the invoices of December.
    assert in_erp(world, books, last="2025-11") == {"acme": money(17, 17), "globex": money(7, 7)}


def test_deferred_revenue_rolls_forward_and_ties(world: World, tmp_path: Path) -> None:
    books = JournalAdapter(tmp_path / "books")
    configure(world, RATABLE, line_grain=["customer"])
    drawn = fee(50, 4, ("drawdown", "drawdown", "contract_liability", "usage_revenue", "3.00"))
    expired = fee(51, 5, ("breakage", "breakage", "contract_liability", "usage_revenue", "2.00"))
    world.book(*ratable("unbilled_receivable"), drawn, expired, complete_hour=FIRST_HOUR + DAYS)
    assert world.once(erp=books).succeeded
    with read(world.engine) as connection:
        (roll,) = deferred.roll_forward(booked_documents(connection), "2025-11", "2025-11")
        (later,) = deferred.roll_forward(booked_documents(connection), "2025-12", "2025-12")
    assert (roll.opening, roll.deferred, roll.recognised, roll.closing) == money(0, 12, 5, 7)
    assert (roll.drawn, roll.expired, roll.balance, roll.not_in_erp) == money(3, 2, 2, 0)
    assert (later.opening, later.deferred, later.closing) == money(7, 0, 7)
    assert in_erp(world, books, LIABILITY) == {"acme": money(-2, -2)}


def test_an_entry_that_takes_back_what_was_deferred_is_no_recognition(world: World) -> None:
    configure(world, RATABLE)
    less = fee(60, 1, ("usage", "recognition", "unbilled_receivable", "contract_liability", "4.00"))
    for line in less.extra["lines"]:
        line |= {"side": "credit" if line["side"] == "debit" else "debit", "swapped": True}
    world.book(*ratable("unbilled_receivable"), less)
    with read(world.engine) as connection:
        (roll,) = deferred.roll_forward(booked_documents(connection), "2025-11", "2025-11")
    assert (roll.deferred, roll.recognised, roll.closing) == money(8, 5, 3)


def test_an_entry_of_somebody_else_is_a_difference_of_that_customer(world: World, tmp_path: Path) -> None:
    books = JournalAdapter(tmp_path / "books")
    configure(world, RATABLE, line_grain=["customer"])
    world.book(usage(1, "10.00", 0), usage(2, "4.00", 0, customer="globex"), complete_hour=FIRST_HOUR + 2)
    assert world.once(erp=books).succeeded
    path = next((tmp_path / "books").glob("2025/2025-11-01.beancount"))
    account = next(row.split()[0] for row in path.read_text().splitlines() if row.startswith("  Assets:"))
    with path.open("a") as file:
        file.write(
            f'2025-11-30 * "by hand"\n  {account}  -4.00 USD\n    customer: "globex"\n  Equity:Other  4.00 USD\n\n'
        )
        file.write(f'2025-12-01 * "by hand"\n  customer: "nobody"\n  {account}  1.00 USD\n  Equity:Other\n\n')
    assert in_erp(world, books) == {"acme": money(10, 10), "globex": money(4, 0), "nobody": money(0, 1)}
    assert in_erp(world, books, last="2025-11") == {"acme": money(10, 10), "globex": money(4, 0)}


def test_entries_that_name_no_customer_are_compared_together(world: World, tmp_path: Path) -> None:
    books = JournalAdapter(tmp_path / "books")
    configure(world, RATABLE)
    world.book(usage(1, "10.00", 0), usage(2, "4.00", 0, customer="globex"), complete_hour=FIRST_HOUR + 2)
    assert world.once(erp=books).succeeded
    assert in_erp(world, books) == {"": money(14, 14)}


def test_an_erp_that_names_customers_by_its_own_codes(world: World) -> None:
    configure(world, RATABLE, line_grain=["customer"])
    world.erp = MemoryErp(name="journal")
    world.book(usage(1, "10.00", 0), usage(2, "4.00", 0, customer="globex"), complete_hour=FIRST_HOUR + 2)
    assert world.once().succeeded
    assert in_erp(world, world.erp) == {"CUST-acme": money(10, 10), "CUST-globex": money(4, 4)}
