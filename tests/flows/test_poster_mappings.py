"""Missing mappings hold a document; the configuration or a pull lets it go on under the same key, once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.revision import History
from flows.poster_held import ERP_REASONS
from sinks.erp.journal import JournalAdapter
from sinks.erp.port import MasterData, Record
from sinks.ledger import invoicing, master_data, period_report, revisions
from sinks.ledger.postings import Stored
from tests.flows.poster_world import World, postings_of
from tests.sinks.erp.memory_erp import MemoryErp
from tests.sinks.ledger.invoice_books import FIRST_HOUR, configured, usage
from tests.sinks.ledger.samples import HOUR, SampleDocument, entity, key

LATER = 10**14


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    is_lite = request.param == "sqlite"
    made = World(f"sqlite:///{tmp_path / 'ledger.sqlite'}" if is_lite else request.getfixturevalue("postgres_url"))
    yield made
    made.engine.dispose()


def used(number: int, model: str, category: str = "saas") -> SampleDocument:
    """Return a document of usage of one model."""
    line = {"kind": "usage", "amount": "5.00", "dimensions": {"model": model}, "tax_category": category}
    sides = (("unbilled_receivable", "debit"), ("usage_revenue", "credit"))
    lines = [line | {"account_role": role, "side": side} for role, side in sides]
    return SampleDocument(key(number), extra={"lines": lines})


def mapped(mappings: dict[str, Any], *grain: str) -> dict[str, Any]:
    made = entity(line_grain=list(grain))
    return made | {"erp": made["erp"] | {"mappings": mappings}}


def one_held(world: World) -> Stored:
    (held,) = [row for row in postings_of(world) if row.state == "HELD"]
    return held


def books(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.rglob("2025-*.beancount")))


def test_a_missing_value_holds_its_document_until_it_is_mapped(world: World, tmp_path: Path) -> None:
    journal = JournalAdapter(tmp_path / "books")
    known = {"gpt-4": "P-1"}
    world.configure(mapped({"dimensions": {"model": {"code": "Product", "values": known}}}, "model"))
    world.book(used(1, "gpt-4"), used(2, "gpt-5"), used(3, "gpt-4"), complete_hour=HOUR + 1)
    assert world.once(erp=journal).by_state == {"POSTED": 1, "HELD": 1}
    held = one_held(world)
    detail = "no ERP value for model = gpt-5 in erp.mappings.dimensions.model.values of entity US01"
    assert (held.reason, held.detail, held.posting.document_keys) == ("missing_dimension_mapping", detail, (key(2),))
    assert world.exceptions() == [("posting_held", f"missing_dimension_mapping: {detail}")]
    (waiting,) = period_report.waiting(world.engine)
    assert "erp.mappings.dimensions" in waiting.do
    assert held.key not in books(tmp_path / "books")

    world.release(held.key)  # a person cannot send it without its dimension
    assert world.once(erp=journal).by_state == {"POSTED": 1, "HELD": 1}
    again = one_held(world)
    assert (again.key, again.reason) == (held.key, "missing_dimension_mapping")
    assert again.detail.endswith(detail)

    fixed = {"dimensions": {"model": {"code": "Product", "values": known | {"gpt-5": "P-2"}}}}
    world.configure(mapped(fixed, "model"), known_from_ms=LATER)
    assert world.once(erp=journal).by_state == {"POSTED": 2}
    assert world.exceptions() == []
    text = books(tmp_path / "books")
    assert text.count(f'key: "{held.key}"') == 1
    assert text.count('dimension-product: "P-2"') == 2
    assert "gpt-" not in text
    assert world.once(erp=journal).posted == 0


def test_the_detail_follows_what_is_still_missing(world: World) -> None:
    world.configure(mapped({"dimensions": {"model": {}}, "taxes": {}}, "model", "tax_category"))
    world.book(used(1, "gpt-4"), complete_hour=HOUR + 1)
    world.once()
    held = one_held(world)
    assert held.reason == "missing_dimension_mapping"
    world.configure(mapped({"dimensions": {"model": {"pass_through": True}}, "taxes": {}}, "model", "tax_category"),
                    known_from_ms=LATER)  # fmt: skip
    assert world.once().by_state == {"HELD": 1}
    half = one_held(world)
    assert (half.key, half.reason) == (held.key, "missing_tax_mapping")
    assert half.detail.startswith("no ERP tax code for tax category saas in erp.mappings.taxes of entity US01")
    assert [detail.split(":")[0] for _, detail in world.exceptions()] == ["missing_tax_mapping"]
    done = {"dimensions": {"model": {"pass_through": True}}, "taxes": {"saas": "VAT19"}}
    world.configure(mapped(done, "model", "tax_category"), known_from_ms=2 * LATER)
    assert world.once().by_state == {"POSTED": 1}
    (line, _) = world.erp.booked[held.key].lines
    assert (line.sent_dimensions, line.tax_code) == ((("model", "gpt-4"),), "VAT19")
    assert sum(batch.count(held.key) for batch in world.erp.batches) == 1


def test_a_customer_may_have_another_code_in_this_erp(world: World) -> None:
    customers = [{"id": "acme", "subjects": ["acme"]}]
    world.configure(mapped({}, "customer"), customers=customers)
    world.book(used(1, "gpt-4"), complete_hour=HOUR + 1)
    world.once()
    assert one_held(world).reason == "missing_customer"
    world.configure(mapped({"customers": {"acme": "C-77"}}, "customer"), customers=customers, known_from_ms=LATER)
    assert world.once().by_state == {"POSTED": 1}
    assert {line.party for one in world.erp.booked.values() for line in one.lines} == {"C-77"}


def test_a_tax_that_the_erp_lacks_is_looked_at_again_after_a_pull(world: World) -> None:
    world.configure(mapped({"taxes": {"saas": "VAT19"}}, "tax_category"))
    world.book(used(1, "gpt-4"), complete_hour=HOUR + 1)
    world.erp.before_preflight = lambda: world.erp.issues.update({row.key: "unknown_tax" for row in postings_of(world)})
    assert world.once().by_state == {"HELD": 1}
    held = one_held(world)
    assert held.reason == "unknown_tax"
    world.erp.before_preflight, world.erp.issues = (lambda: None), {}
    data = MasterData((Record("tax", "VAT19"),), frozenset({"tax"}))
    pulled = master_data.keep(world.engine, "US01", data, ERP_REASONS, world.clock.now())
    assert (pulled.counts, pulled.looked_at_again) == ({"tax": 1}, 1)
    assert world.once().by_state == {"POSTED": 1}
    assert list(world.erp.booked) == [held.key]


def test_an_invoice_waits_for_its_tax_code_and_keeps_its_key(world: World, tmp_path: Path) -> None:
    def configure(taxes: dict[str, str | None], known_from_ms: int) -> None:
        plain = configured()
        (made,) = plain.pop("entities")
        made["erp"] = made["erp"] | {"mappings": {"taxes": taxes}}
        world.configure(made, known_from_ms=known_from_ms, **plain)

    journal = JournalAdapter(tmp_path / "books")
    configure({}, 0)
    world.book(usage(1, "10.00", 0), complete_hour=FIRST_HOUR + 31 * 24)
    world.once(erp=journal)
    history = History(revisions.load_history(world.engine))
    (line,) = invoicing.run(world.engine, history, {}, actor="ann", now=world.clock.now())
    assert line.waits.startswith("no ERP tax code for tax category saas")
    assert world.once(erp=journal).by_state == {"POSTED": 1, "HELD": 1}
    held = one_held(world)
    assert (held.reason, held.posting.kind) == ("missing_tax_mapping", "invoice")
    configure({"saas": "VAT19"}, LATER)
    assert world.once(erp=journal).by_state == {"POSTED": 2}
    (row,) = [row for row in postings_of(world) if row.key == held.key]
    assert row.posting.invoice is not None
    assert row.posting.invoice.tax_codes == ("VAT19",)
    text = books(tmp_path / "books")
    assert (text.count(f'key: "{held.key}"'), text.count('tax-code: "VAT19"')) == (1, 2)


def test_a_posting_that_was_sent_keeps_the_codes_of_its_time(world: World) -> None:
    first = mapped({"dimensions": {"model": {"values": {"gpt-4": "P-1"}}}}, "model")
    world.configure(first)
    world.book(used(1, "gpt-4"), complete_hour=HOUR + 1)
    world.erp.down = True
    poster = world.poster()
    poster.pass_once()
    (waiting,) = postings_of(world)
    changed = mapped({"dimensions": {"model": {"values": {"gpt-4": "P-9"}}}}, "model")
    world.configure(changed, known_from_ms=LATER)
    world.erp.down = False
    world.clock.sleep(600)
    assert poster.run_once().by_state == {"POSTED": 1}
    (row,) = postings_of(world)
    assert (row.key, row.text) == (waiting.key, waiting.text)
    assert row.posting.lines[0].sent_dimensions == (("model", "P-1"),)


def test_what_was_sent_to_another_erp_is_not_looked_up_in_this_one(world: World) -> None:
    world.configure()
    world.book(SampleDocument(key(1)))
    old, new = MemoryErp(name="old", script=["lost"]), MemoryErp(name="new")
    world.poster(erp=old).pass_once()
    world.clock.sleep(120)  # its lease ends with it
    assert world.once(erp=new).by_state == {"HELD": 1}
    row = one_held(world)
    assert row.reason == "unknown_outcome"
    assert "it was sent through old" in row.detail
    assert (len(old.entries), new.entries) == (1, {})
    world.release(row.key)  # as if it were absent there
    assert world.once(erp=new).by_state == {"POSTED": 1}
    assert [one.adapter for one in postings_of(world)] == ["new"]


def test_what_waits_when_the_company_changes_is_sent_with_the_codes_of_now(world: World) -> None:
    world.configure()
    world.book(SampleDocument(key(1)))
    world.erp.down = True
    world.poster().pass_once()
    assert world.states() == {"PENDING": 1}
    (before,) = postings_of(world)
    other = entity(accounts={"unbilled_receivable": "U", "usage_revenue": "R"})
    world.configure(other | {"erp": other["erp"] | {"company": "2"}}, known_from_ms=LATER)
    world.erp.down = False
    world.clock.sleep(300)
    assert world.once().by_state == {"POSTED": 1}
    sent = world.erp.booked[before.key]
    assert (sent.company, [line.account for line in sent.lines]) == ("2", ["U", "R"])
    assert world.exceptions() == []
