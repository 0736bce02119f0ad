"""Drafts that a person edits in the ERP: no false break while they wait, unbilled right and balances equal after."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from core.errors import InvalidRequest
from sinks.erp.port import ErpPort
from sinks.ledger import (
    acts,
    audit,
    drafts,
    posting_creation,
    tables,
)
from sinks.ledger.adjustments import OTHER, AdjustmentAct, adjustment_of
from sinks.ledger.database import read, write
from sinks.ledger.invoice_lines import RECEIVABLE
from sinks.ledger.reversal import reverse
from tests.flows.poster_world import World, postings_of
from tests.sinks.erp.contract.rest_erp import TOKEN, RestErp
from tests.sinks.erp.fault_proxy import forward
from tests.sinks.ledger.draft_books import DAYS, Books, run
from tests.sinks.ledger.invoice_books import FIRST_HOUR, usage

BY, AT = "Grace Hopper", "2025-12-03T10:00:00+00:00"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestErp]:
    made = RestErp("plain", tmp_path_factory.mktemp("rest"))
    yield made
    made.close()


def person(server: RestErp, number: str, act: str, **amounts: str) -> None:
    """Do with a draft what a person does in the ERP; `_1150="-7.00"` writes the amount of that account's line."""
    edited = {name.removeprefix("_"): amount for name, amount in amounts.items()}
    body = json.dumps({"by": BY, "at": AT, "amounts": edited}).encode()
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    status, _, answer = forward(server.proxy.upstream_port, "POST", f"/entries/{number}/{act}", headers, body)
    assert status == 200, answer
    assert b"error" not in answer, answer


def empty(server: RestErp) -> None:
    with server._database() as database:
        for table in ("entries", "lines", "requests"):
            database.execute(f"DELETE FROM {table}")


@pytest.fixture
def erp(server: RestErp) -> ErpPort:
    empty(server)
    return server.adapter(timeout_s=20)


@pytest.fixture
def books(world: World, erp: ErpPort) -> Books:
    return Books(world, erp)


def test_a_draft_is_in_no_balance_and_no_break_until_it_is_posted(books: Books, server: RestErp) -> None:
    assert books.open() == [books.invoice.key]
    assert books.reconcile() == []
    roll = books.roll()
    assert (roll.closing, roll.not_in_erp) == (Decimal(0), Decimal("-25.00"))
    person(server, books.invoice.number, "edit", _1150="-18.00", _1200="18.00")
    assert books.reconcile() == []  # it may be changed until somebody posts it
    person(server, books.invoice.number, "edit", _1150="-25.00", _1200="25.00")
    person(server, books.invoice.number, "post")
    assert books.reconcile() == []
    assert books.open() == []
    roll = books.roll()
    assert [roll.invoiced, roll.adjusted, roll.closing, roll.not_in_erp] == [*map(Decimal, ("-25.00", "0", "0", "0"))]
    assert {row.state for row in postings_of(books.world)} == {"RECONCILED"}


def test_what_was_changed_is_booked_once_and_invoiced_with_the_next_run(books: Books, server: RestErp) -> None:
    person(server, books.invoice.number, "edit", _1150="-18.00", _1200="18.00")
    person(server, books.invoice.number, "post")
    assert books.reconcile() == []
    assert books.reconcile() == []
    roll = books.roll()
    assert (roll.invoiced, roll.adjusted, roll.closing) == (Decimal("-25.00"), Decimal("7.00"), Decimal("7.00"))
    with read(books.world.engine) as connection:
        (act,) = acts.of_kind(connection, acts.ADJUSTMENT)
        told = [row for row in audit.entries(connection) if row["action"] == "adjust"]
        (made,) = connection.execute(select(tables.documents).where(tables.documents.c.kind == "adjustment")).all()
    assert [(row["actor"], row["subject"]) for row in told] == [(BY, books.invoice.key)]
    assert act.content["changed_at"] == AT
    plain = orjson.loads(made.json)
    assert (plain["changed_by"], plain["total"], plain["adjusts"]) == (BY, "-7.00", act.content["documents"])
    assert books.is_replayable()
    books.world.book(usage(3, "1.00", DAYS + 30, charge="output"), complete_hour=FIRST_HOUR + 2 * DAYS)
    assert books.world.once(erp=books.erp).succeeded
    assert run(books.world, books.history) == ["8.00"]
    assert books.world.once(erp=books.erp).succeeded
    assert books.reconcile() == []
    (draft,) = books.open()
    (number,) = [row.number for row in postings_of(books.world) if row.key == draft]
    person(server, number, "post")
    assert books.reconcile() == []
    assert books.roll().closing == 0
    assert books.is_replayable()


def test_an_adjustment_does_not_go_into_a_sealed_month(books: Books, server: RestErp) -> None:
    sealed = dict.fromkeys(("digest", "previous", "key_id", "signature", "json", "actor", "reason"), "")
    with write(books.world.engine) as connection:
        for number, period in enumerate(("2025-11", "2025-12"), 1):
            row = sealed | {"number": number, "entity": "US01", "accounting_period": period, "sealed_at_ms": 0}
            connection.execute(tables.period_seals.insert().values(row))
    person(server, books.invoice.number, "edit", _1150="-18.00", _1200="18.00")
    person(server, books.invoice.number, "post")
    assert books.reconcile() == []
    with read(books.world.engine) as connection:
        (made,) = connection.execute(select(tables.documents).where(tables.documents.c.kind == "adjustment")).all()
    assert (made.accounting_period, made.posting_date) == ("2026-01", "2026-01-01")
    assert orjson.loads(made.json)["original_period"] == "2025-12"


def test_more_than_was_accrued_is_taken_off_the_next_invoice(books: Books, server: RestErp) -> None:
    person(server, books.invoice.number, "edit", _1150="-30.00", _1200="30.00")
    person(server, books.invoice.number, "post")
    assert books.reconcile() == []
    assert books.roll().closing == Decimal("-5.00")
    books.world.book(complete_hour=FIRST_HOUR + 2 * DAYS)
    assert run(books.world, books.history) == ["-5.00"]


def test_a_draft_that_was_cancelled_bills_nothing(books: Books, server: RestErp) -> None:
    with pytest.raises(InvalidRequest, match="is a draft in the ERP"):
        take_back(books)
    person(server, books.invoice.number, "cancel")
    assert books.reconcile() == []
    assert (books.roll().adjusted, books.roll().closing) == (Decimal("25.00"), Decimal("25.00"))
    assert books.is_replayable()


def test_a_draft_that_was_deleted_is_an_alarm_until_a_person_drops_it(books: Books, server: RestErp) -> None:
    with server._database() as database:
        database.execute("DELETE FROM entries WHERE id = ?", [books.invoice.number])
    assert books.reconcile() == ["erp_deleted"]
    now = books.world.clock.now()
    done = drafts.give_up(books.world.engine, books.invoice.key, actor="ann", reason="deleted by mistake", now=now)
    assert done is not None
    assert done.amount == Decimal("-25.00")
    assert drafts.give_up(books.world.engine, books.invoice.key, actor="ann", reason="again", now=now) is None
    assert books.reconcile() == []
    assert books.roll().closing == Decimal("25.00")


def take_back(books: Books) -> Any:
    engine, now = books.world.engine, books.world.clock.now()
    entities = {one.id: one for one in books.history.latest.configuration.entities}
    names = posting_creation.erp_names(books.history, entities["US01"])
    return reverse(engine, entities, names, books.invoice.key, actor="ann", reason="test", now=now)


def test_the_reversal_of_an_edited_invoice_gives_back_what_was_billed(books: Books, server: RestErp) -> None:
    person(server, books.invoice.number, "edit", _1150="-18.00", _1200="18.00")
    person(server, books.invoice.number, "post")
    assert books.reconcile() == []
    made = take_back(books)
    assert len(made.documents) == 2
    assert books.world.once(erp=books.erp).succeeded
    (note,) = [row for row in postings_of(books.world) if row.key == made.key]
    assert note.posting.invoice is not None
    assert (note.posting.kind, note.posting.invoice.net) == ("credit_note", Decimal("-18.00"))
    person(server, note.number, "post")
    assert books.reconcile() == []
    assert books.roll().closing == Decimal("25.00")
    assert books.is_replayable()


AMOUNT = st.decimals("-100", "100", places=2)


@settings(max_examples=150, deadline=None)
@given(
    ours=st.lists(AMOUNT.filter(bool), min_size=1, max_size=5),
    theirs=st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["1150", "4005"]), AMOUNT), max_size=6),
)
def test_invoice_and_adjustment_together_are_what_the_erp_has(
    ours: list[Decimal], theirs: list[tuple[int, str, Decimal]]
) -> None:
    invoice = {
        **dict.fromkeys(("schema_version", "status", "entity", "customer", "contract", "currency"), "x"),
        **{"config_version": "v", "accounting_period": "2025-11", "billing_period": ["", ""]},
        "lines": [line for amount in ours for line in pair(amount)],
    }
    net = [(place, account, format(-amount, "f")) for place, account, amount in theirs]
    codes = {RECEIVABLE: "1200", "unbilled_receivable": "1150"}
    act = AdjustmentAct(["INVOICE"], "POSTING", codes, net, "7", 1, "2025-12", "2025-12-01", BY, AT)
    made = adjustment_of(act, [invoice])
    lines = [] if made is None else made.plain["lines"]
    billed = {"1150": Decimal(0), "4005": Decimal(0), "1200": Decimal(0)}
    for line in [*invoice["lines"], *lines]:
        account = line.get("account") or codes[line["account_role"]]
        billed[account] += Decimal(line["amount"]) * (1 if line["side"] == "credit" else -1)
    wanted = {name: sum((amount for _, one, amount in theirs if one == name), Decimal(0)) for name in ("1150", "4005")}
    assert billed == wanted | {"1200": -sum(wanted.values())}
    assert {line["account"] for line in lines if line["account_role"] == OTHER} <= {"4005"}
    if made is not None:
        assert made.key == AdjustmentAct([], "POSTING", {}, [], "", 2, "", "", "", "").key


def pair(amount: Decimal) -> list[dict[str, Any]]:
    sides = ("debit", "credit") if amount > 0 else ("credit", "debit")
    common = {"amount": format(abs(amount), "f"), "cumulative_after": "0", "kind": "invoice"}
    roles = (RECEIVABLE, "unbilled_receivable")
    return [common | {"account_role": role, "side": side} for role, side in zip(roles, sides, strict=True)]
