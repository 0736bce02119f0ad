"""Draft invoices in a real Tryton: a person edits, adds to, posts and cancels them, and the books stay equal."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from sinks.erp.tryton_client import decimal_value
from tests.flows.poster_world import World
from tests.sinks.erp.conftest import MakeTryton
from tests.sinks.erp.contract.tryton_erp import TrytonErp
from tests.sinks.ledger.draft_books import Books

pytestmark = pytest.mark.timeout(900)  # the first test that needs Tryton installs and sets it up


@pytest.fixture(scope="module")
def tryton(make_tryton: MakeTryton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrytonErp]:
    """Return a Tryton of its own: balances are compared, so nobody else may book there."""
    made = make_tryton("tryton", tmp_path_factory.mktemp("tryton"))
    yield made
    made.close()


def call(tryton: TrytonErp, method: str, path: str, body: Any) -> None:
    status, answer = tryton.call(method, path, body)
    assert status == 200, answer


def test_a_person_edits_and_posts_a_draft_and_cancels_the_next(tryton: TrytonErp, tmp_path: Path) -> None:
    world = World(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    erp = tryton.adapter(timeout_s=60, required_dimensions=())
    books = Books(world, erp)
    assert books.reconcile() == []
    assert books.roll().not_in_erp == Decimal("-25.00")
    number = int(books.invoice.number.removeprefix("draft "))
    find = "SELECT id FROM account_invoice_line WHERE invoice = %s AND external_place = %s"
    ((second,),) = tryton.sql(find, number, 2)
    call(tryton, "PUT", f"account.invoice.line/{second}", {"unit_price": decimal_value("3.50")})
    ((journal, party, account),) = tryton.sql(
        "SELECT journal, party, (SELECT id FROM account_account WHERE code = '4001' AND company = i.company)"
        " FROM account_invoice i WHERE id = %s",
        number,
    )
    assert (journal is None, party is None) == (False, False)
    consulting = {
        "invoice": number, "type": "line", "account": account, "quantity": 1, "unit_price": decimal_value("500.00"),
        "description": "Consulting", "company": tryton.company_id, "currency": 1,
    }  # fmt: skip
    call(tryton, "POST", "account.invoice.line", consulting)
    assert books.reconcile() == []  # still a draft
    call(tryton, "POST", f"account.invoice/{number}/post", {})
    (entry,) = erp.lookup([books.invoice.key])[books.invoice.key]
    assert (entry.draft, entry.changed_by, entry.changed_at is None) == (False, "Usage integration", False)
    assert sorted(entry.net) == [
        (0, "4001", Decimal("-500.00")), (1, "1150", Decimal("-20.00")), (2, "1150", Decimal("-3.50")),
    ]  # fmt: skip
    assert books.reconcile() == []
    roll = books.roll()
    assert (roll.invoiced, roll.adjusted, roll.closing) == (Decimal("-25.00"), Decimal("1.50"), Decimal("1.50"))
    assert books.is_replayable()
    assert books.invoice_next_month() == ["1.50"]
    (draft,) = books.open()
    ((number,),) = tryton.sql("SELECT id FROM account_invoice WHERE external_id = %s", draft)
    call(tryton, "POST", f"account.invoice/{number}/cancel", {})
    assert books.reconcile() == []
    assert books.open() == []
    assert books.roll().closing == Decimal("1.50")
    assert books.is_replayable()
    world.engine.dispose()
