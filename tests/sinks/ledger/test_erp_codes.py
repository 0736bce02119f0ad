"""Codes of the ERP on postings: held where one is missing, and the same bytes where nothing is mapped."""

from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from config.entities import Entity
from config.erp_mappings import Mappings
from sinks.erp import checks
from sinks.erp.port import Invoice, InvoiceLine, Posting, PostingLine, Side
from sinks.ledger.erp_codes import ErpNames, taxes_of
from sinks.ledger.grouping import Draft, Drafted, draft, hold_reason, remapped
from sinks.ledger.supersede import in_period
from tests.sinks.erp.samples import posting
from tests.sinks.ledger.samples import ACCOUNTS, HOUR, entity, key

GRAIN = ("model", "tax_category")


def names(mappings: dict[str, Any] | None = None, **more: Any) -> ErpNames:
    made = Mappings.model_validate(mappings or {})
    return ErpNames(ACCOUNTS, {"acme": "C-1"}, made, made.taxes, **more)


def model(grain: tuple[str, ...] = GRAIN) -> Entity:
    return Entity.model_validate(entity(line_grain=grain))


def document(number: int, *lines: tuple[str, str], amount: str = "1.00", customer: str = "acme") -> Drafted:
    made = [
        {"account_role": role, "side": side, "amount": amount, "tax_category": category, "dimensions": {"model": value}}
        for value, category in lines
        for role, side in (("unbilled_receivable", "debit"), ("usage_revenue", "credit"))
    ]
    return Drafted(key(number), customer, HOUR, "", "accrual", made)


def drafts(mappings: dict[str, Any], *documents: Drafted, grain: tuple[str, ...] = GRAIN) -> list[Draft]:
    return draft(model(grain), names(mappings), "USD", "2025-11", documents)


BOTH = {
    "dimensions": {"model": {"code": "Product", "values": {"a": "P-1", "b": "P-2", "free": None}}},
    "taxes": {"saas": "VAT19", "exempt": None},
}


def test_lines_have_our_names_and_the_codes_of_the_erp() -> None:
    (made,) = drafts(BOTH, document(1, ("a", "saas"), ("free", "exempt")))
    assert made.reason == ""
    by_model = {line.dimensions[0][1]: line for line in made.posting.lines if line.side == "debit"}
    assert by_model["a"].dimensions == (("model", "a"), ("tax_category", "saas"))
    assert by_model["a"].sent_dimensions == (("Product", "P-1"),)
    assert (by_model["a"].tax_code, by_model["free"].tax_code) == ("VAT19", None)
    assert by_model["free"].sent_dimensions == ()
    again = Posting.from_json(made.posting.to_json())
    assert again == made.posting
    assert again.lines == made.posting.lines


def test_what_is_missing_is_named_exactly_and_holds_one_document_alone() -> None:
    held, rest = sorted(drafts(BOTH, document(1, ("a", "saas")), document(2, ("c", "saas"), ("d", "saas"))),
                        key=lambda one: not one.reason)  # fmt: skip
    assert held.posting.document_keys == (key(2),)
    assert (held.reason, held.detail) == (
        "missing_dimension_mapping",
        "no ERP value for model = c, d in erp.mappings.dimensions.model.values of entity US01",
    )
    assert (rest.reason, rest.posting.document_keys) == ("", (key(1),))
    (taxed,) = drafts(BOTH, document(3, ("a", "unknown")))
    assert (taxed.reason, taxed.detail) == (
        "missing_tax_mapping",
        "no ERP tax code for tax category unknown in erp.mappings.taxes of entity US01 (null: no tax)",
    )
    (unnamed,) = drafts({"dimensions": {}}, document(4, ("a", "saas")), grain=("model",))
    assert unnamed.detail == "dimension model is not in erp.mappings.dimensions of entity US01"
    assert drafts(BOTH, document(5, ("c", "saas"), amount="0.00"))[0].reason == ""  # such a line is never sent


def test_without_a_mapping_a_posting_has_the_bytes_it_always_had() -> None:
    (made,) = drafts({}, document(1, ("a", "saas")))
    assert "erp_dimensions" not in made.posting.to_json()
    assert made.posting.lines[0].sent_dimensions == (("model", "a"), ("tax_category", "saas"))
    old = posting(1).to_json()
    assert Posting.from_json(old).lines[0].erp_dimensions is None
    assert replace(Posting.from_json(old)).to_json() == old


def test_a_held_posting_gets_the_codes_of_today_under_its_key() -> None:
    (held,) = drafts(BOTH, document(2, ("c", "unknown")))
    fixed = {"dimensions": {"model": {"code": "Item", "values": {"c": "P-3"}}}, "taxes": {"unknown": "T"}}
    mapped = remapped(held.posting, model(), names(fixed))
    assert (mapped.key, hold_reason(mapped, "")) == (held.posting.key, ("", ""))
    assert mapped.lines[0].sent_dimensions == (("Item", "P-3"),)
    assert mapped.lines[0].tax_code == "T"
    half = remapped(held.posting, model(), names(BOTH | {"taxes": {"unknown": None}}))
    assert hold_reason(half, "")[0] == "missing_dimension_mapping"
    # Taken out of the configuration again, our names are the ERP's.
    assert remapped(mapped, model(), names()).lines[0].sent_dimensions[0] == ("model", "c")


def test_an_invoice_gets_tax_codes_party_and_accounts() -> None:
    day = date(2025, 11, 30)
    lines = tuple(InvoiceLine("x", Decimal(1), "1150", category, day, day) for category in ("saas", "odd", ""))
    bill = Invoice("", "R", lines)
    sides = tuple(replace(line, dimensions=()) for line in posting(1).lines)
    plain = posting(1, customer="acme", invoice=bill, kind="invoice", lines=sides)
    known = names(BOTH)
    mapped = remapped(plain, model(), known)
    assert mapped.invoice is not None
    assert (mapped.invoice.party, mapped.invoice.tax_codes) == ("C-1", ("VAT19", None, ""))
    assert hold_reason(mapped, "") == (
        "missing_tax_mapping",
        "no ERP tax code for tax category odd in erp.mappings.taxes of entity US01 (null: no tax)",
    )
    assert Posting.from_json(mapped.to_json()).invoice == mapped.invoice
    moved = remapped(plain, model(), replace(known, accounts=ACCOUNTS | {"unbilled_receivable": "1199"}))
    assert moved.invoice is not None
    assert {line.account for line in moved.invoice.lines} == {"1199"}
    assert remapped(plain, model(), names()).invoice == replace(bill, party="C-1")


def test_a_mapping_that_comes_later_never_moves_an_invoice_line_to_another_account() -> None:
    day = date(2025, 11, 30)
    moved: tuple[tuple[str, Side], ...] = (
        ("contract_asset", "debit"),
        ("unbilled_receivable", "debit"),
        ("accounts_receivable", "credit"),
    )
    sides = tuple(PostingLine(role, "", side, Decimal(1), "acme", (), None, "C-1") for role, side in moved)
    accounts = ACCOUNTS | {"contract_asset": "1160", "accounts_receivable": "1200"}
    for roles in (("contract_asset", "unbilled_receivable"), ("", "")):  # the second: made before lines had roles
        lines = tuple(InvoiceLine("x", Decimal(-1), "", "", day, day, role) for role in roles)
        note = posting(1, customer="acme", invoice=Invoice("C-1", "R", lines), kind="credit_note", lines=sides)
        again = Posting.from_json(note.to_json())
        assert again == note
        mapped = remapped(again, model(), replace(names(), accounts=accounts))
        assert mapped.invoice is not None
        found = [line.account for line in mapped.invoice.lines]
        assert found == (["1160", "1150"] if roles[0] else ["1150", "1150"])  # the receivable is none of them


def test_taxes_of_an_older_configuration_stand_in_the_adapters_options() -> None:
    def made(adapter: str, **more: Any) -> Entity:
        return Entity.model_validate(entity() | {"erp": {"adapter": adapter, "company": "1"} | more})

    assert taxes_of(made("journal")) is None
    assert taxes_of(made("tryton-vanilla", options={"taxes": {"saas": "VAT"}})) is None
    assert taxes_of(made("tryton", options={"taxes": {"saas": "VAT"}})) == {"saas": "VAT"}
    assert taxes_of(made("tryton")) is None  # the adapter holds an invoice that has a category, until there is one
    assert taxes_of(made("tryton", mappings={"taxes": {"a": "b"}})) == {"a": "b"}


def test_a_moved_period_is_sent_as_it_is_beside_mapped_dimensions() -> None:
    (made,) = drafts(BOTH, document(1, ("a", "saas")))
    moved = in_period(model(), made.posting, "2025-12")
    assert moved.lines[0].sent_dimensions == (("Product", "P-1"), ("original_period", "2025-11"))
    assert hold_reason(moved, "") == ("", "")
    assert hold_reason(remapped(moved, model(), names(BOTH)), "") == ("", "")


def test_a_required_dimension_that_is_left_out_is_missing() -> None:
    (made,) = drafts(BOTH, document(1, ("a", "saas"), ("free", "exempt")))
    assert checks.problem(made.posting, 10, ["tax_category"]) is not None  # exempt has no code
    (sent,) = drafts(BOTH, document(1, ("a", "saas")))
    assert checks.problem(sent.posting, 10, ["model", "tax_category"]) is None
    found = checks.problem(made.posting, 10, ["model"])
    assert found is not None
    assert found.reason == "missing_dimension"


VALUES = st.sampled_from(["", "a", "b", "c"])


@settings(deadline=None)
@given(
    documents=st.lists(st.lists(VALUES, min_size=1, max_size=3), min_size=1, max_size=6),
    values=st.dictionaries(VALUES, st.sampled_from([None, "P-1", "P-2"])),
    default=st.sampled_from([None, "P-9"]),
)
def test_documents_are_held_if_and_only_if_a_value_of_theirs_is_not_mapped(
    documents: list[list[str]], values: dict[str, str | None], default: str | None
) -> None:
    mappings = {"dimensions": {"model": {"code": "Item", "values": values, "default": default}}}
    made = [document(number, *((value, "") for value in used)) for number, used in enumerate(documents)]
    found = drafts(mappings, *made, grain=("model",))
    lacking = {key(number) for number, used in enumerate(documents)
               if default is None and any(value and value not in values for value in used)}  # fmt: skip
    assert {one for draft_ in found if draft_.reason for one in draft_.posting.document_keys} == lacking
    assert all(len(one.posting.document_keys) == 1 for one in found if one.reason)
    expected: dict[tuple[str, str], Decimal] = {}
    for number, used in enumerate(documents):
        for value in used if key(number) not in lacking else ():
            code = values.get(value) if value in values else (default if value else None)
            for side in ("debit", "credit"):
                expected[side, code or ""] = expected.get((side, code or ""), Decimal(0)) + 1
    got: dict[tuple[str, str], Decimal] = {}
    for one in found:
        for line in one.posting.lines if not one.reason else ():
            place = (line.side, dict(line.sent_dimensions).get("Item", ""))
            got[place] = got.get(place, Decimal(0)) + line.amount
    assert got == expected
