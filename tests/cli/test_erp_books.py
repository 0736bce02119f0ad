"""`report unbilled`, `report deferred` and drafts, as a user calls them, on the journal and on a server over HTTP."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import InvalidRequest
from sinks.erp.journal import JournalAdapter
from tests.cli.test_erp import call, world
from tests.flows.poster_world import World, postings_of
from tests.sinks.erp.contract.rest_erp import RestErp
from tests.sinks.erp.rest_options import options
from tests.sinks.ledger.invoice_books import ACCOUNTS, FIRST_HOUR, configured, fee, usage
from tests.sinks.ledger.samples import entity
from tests.sinks.ledger.test_balances import RATABLE, ratable

Call = Callable[..., Any]
DAYS = 31 * 24
__all__ = ["call", "world"]


def test_balances_tie_per_customer_and_prepaid_balances_are_sold_in_the_erp(
    call: Call, world: World, tmp_path: Path
) -> None:
    plain = configured()
    plain.pop("entities")
    prepaid = {"id": "credits", "type": "prepaid", "amount": "100", "period": "P1Y"}
    plain["customers"][1]["contracts"][0]["commitments"] = [prepaid]
    made = entity(accounts=RATABLE) | {"posting": {"frequency": "hourly", "line_grain": ["customer"]}}
    world.configure(made, **plain)
    drawn = replace(
        fee(50, 9, ("drawdown", "drawdown", "contract_liability", "usage_revenue", "3.00")), customer="globex"
    )
    world.book(*ratable("unbilled_receivable"), drawn, complete_hour=FIRST_HOUR + DAYS)
    world.once(erp=JournalAdapter(tmp_path / "books"))
    said = call("report", "unbilled", "--erp")
    assert {one["customer"]: (one["closing"], one["ahead"], one["erp"]) for one in said["customers"]} == {
        "acme": ("43.00", "-26.00", "17.00"),
        "globex": ("7.00", "0", "7.00"),
    }
    assert [one["customers"] for one in call("report", "unbilled", "--erp", "--customer", "acme")["erp_customers"]] == [
        ["acme"]
    ]
    found = {one["customer"]: one for one in call("report", "deferred", "--erp")["customers"]}
    assert (found["acme"]["closing"], found["acme"]["erp"], found["globex"]["drawn"]) == ("7.00", "7.00", "3.00")
    path = next((tmp_path / "books").glob("2025/2025-11-01.beancount"))
    liability = next(row.split()[0] for row in path.read_text().splitlines() if row.startswith("  Liabilities:"))
    with path.open("a") as file:
        file.write(f'2025-11-01 * "sold"\n  customer: "globex"\n  {liability}  -100.00 USD\n  Assets:Bank\n\n')
    sold = {one["name"]: one["sold"] for one in call("report", "deferred", "--erp")["erp_customers"]}
    assert {name: float(amount) for name, amount in sold.items()} == {"acme": 0, "globex": 100}
    with path.open("a") as file:
        file.write(f'2025-11-01 * "wrong"\n  customer: "acme"\n  {liability}  -1.00 USD\n  Assets:Bank\n\n')
    with pytest.raises(InvalidRequest, match="1 customers differ from the ERP's balances: acme"):
        call("report", "deferred", "--erp")
    world.engine.dispose()


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestErp]:
    made = RestErp("plain", tmp_path_factory.mktemp("rest"))
    yield made
    made.close()


def test_a_draft_waits_and_is_dropped_when_it_was_deleted(call: Call, world: World, server: RestErp) -> None:
    plain = configured(state="draft")
    (one,) = plain.pop("entities")
    told = options("plain", server.proxy.url, server._credential).model_dump(mode="json", exclude_none=True)
    made = entity(accounts=ACCOUNTS) | {name: one[name] for name in ("timezone", "invoicing")}
    made |= {"erp": {"adapter": "rest", "company": "1", "options": told}}
    made |= {"posting": {"frequency": "hourly", "line_grain": ["charge"]}}
    plain["customers"][0]["erp"]["customer"] = "CUST-0001"
    world.configure(made, **plain)
    world.book(usage(1, "20.00", 0), complete_hour=FIRST_HOUR + DAYS)
    adapter = server.adapter(timeout_s=20)
    world.once(erp=adapter)
    call("erp", "pull")
    assert [line["net"] for line in call("erp", "invoice", "--customer", "acme")["invoices"]] == ["20.00"]
    world.once(erp=adapter)
    (draft,) = [row for row in postings_of(world) if row.posting.kind == "invoice"]
    (roll,) = call("report", "unbilled", "--erp")["customers"]
    assert (roll["closing"], roll["not_in_erp"]) == ("0.00", "-20.00")
    with pytest.raises(InvalidRequest, match="cancel it there"):
        call("erp", "drop-draft", draft.key, "--reason", "deleted")
    server.plant_deletion(draft.key)
    with pytest.raises(InvalidRequest, match="no posting of an invoice that waits"):
        call("erp", "drop-draft", "A" * 16, "--reason", "deleted")
    said = call("erp", "drop-draft", draft.key, "--name", "ann", "--reason", "deleted by mistake")
    assert said["amount"] == "-20.00"
    (roll,) = call("report", "unbilled", "--erp")["customers"]
    assert (roll["adjusted"], roll["closing"], roll["not_in_erp"]) == ("20.00", "20.00", "0")
    world.engine.dispose()
