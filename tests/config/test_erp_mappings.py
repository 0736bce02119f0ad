"""Mappings to the ERP's codes: what each way of naming gives, and what `config check` says about them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from config.checks import check
from config.erp_mappings import DimensionMapping, Mappings, tax_code
from config.mapping_use import values_used
from config.revision import Configuration
from tests.config.test_checks import SOUND

MODEL: dict[str, Any] = {"code": "Product", "values": {"gpt-4": "P-1", "internal": None, "": "NONE"}}


@pytest.mark.parametrize(
    ("mapping", "value", "expected"),
    [
        ({}, "gpt-5", None),
        ({}, "", ""),
        (MODEL, "gpt-4", "P-1"),
        (MODEL, "internal", ""),
        (MODEL, "", "NONE"),
        (MODEL, "gpt-5", None),
        (MODEL | {"default": "P-9"}, "gpt-5", "P-9"),
        (MODEL | {"pass_through": True}, "gpt-5", "gpt-5"),
        ({"default": "P-9"}, "", ""),
    ],
)
def test_a_value_is_mapped_defaulted_passed_left_out_or_missing(
    mapping: dict[str, Any], value: str, expected: str | None
) -> None:
    assert DimensionMapping.model_validate(mapping).value(value) == expected


def test_a_section_maps_everything_or_is_absent() -> None:
    assert Mappings().dimension("model", "gpt-4") == ("model", "gpt-4")
    assert not Mappings().maps_dimension("model")
    some = Mappings.model_validate({"dimensions": {"model": MODEL}, "taxes": {"saas": "VAT", "exempt": None}})
    assert some.dimension("model", "gpt-4") == ("Product", "P-1")
    assert some.dimension("region", "eu") == ("", None)
    assert some.dimension("original_period", "2025-11") == ("original_period", "2025-11")
    # The tax category is the tax code of a line, not a dimension, unless it is mapped as one.
    assert (some.dimension("tax_category", "saas"), some.dimension("tax_category", "x")) == (("", ""), ("", None))
    both = Mappings.model_validate({"dimensions": {"tax_category": {"pass_through": True}}, "taxes": {}})
    assert both.dimension("tax_category", "saas") == ("tax_category", "saas")
    assert [tax_code({"saas": "VAT", "exempt": None}, one) for one in ("saas", "exempt", "", "x")] == [
        "VAT", "", "", None,
    ]  # fmt: skip


NAMES = st.sampled_from(["", "a", "b", "c"])
CODES = st.sampled_from([None, "A", "B"])


@given(st.dictionaries(NAMES, CODES), CODES, st.booleans(), NAMES)
def test_a_value_is_what_a_table_written_out_in_full_says(
    values: dict[str, str | None], default: str | None, passes: bool, value: str
) -> None:
    if passes and default is not None:
        with pytest.raises(ValidationError, match="not both"):
            DimensionMapping(values=values, default=default, pass_through=passes)
        return
    table: dict[str, str | None] = {one: one if passes else default for one in ("a", "b", "c")} | {"": ""}
    table |= {one: code or "" for one, code in values.items()}
    assert DimensionMapping(values=values, default=default, pass_through=passes).value(value) == table[value]


@pytest.mark.parametrize("code", ["", " ", "two\nlines", "x" * 129])
def test_a_code_is_one_line_of_text(code: str) -> None:
    with pytest.raises(ValidationError):
        Mappings.model_validate({"taxes": {"saas": code}})


def configured(mappings: dict[str, Any], grain: list[str], erp: dict[str, Any] | None = None, **more: Any) -> Any:
    entity = SOUND["entities"][0] | {"posting": {"line_grain": grain}} | more
    entity["erp"] = {"company": "E", "mappings": mappings} | (erp or {})
    return Configuration.model_validate(SOUND | {"entities": [entity]})


@pytest.mark.parametrize(
    ("mappings", "grain", "place", "text", "is_warning"),
    [
        ({"dimensions": {}}, ["model"], "dimensions", "has model, which is not mapped", False),
        ({"dimensions": {"model": {}}}, [], "dimensions.model", "is mapped and never sent", True),
        ({"dimensions": {"customer": {}}}, ["customer"], "dimensions.customer", "no dimension that can be", False),
        (
            {"dimensions": {"model": {"default": "x"}, "charge": {"code": "model", "default": "y"}}},
            ["model", "charge"],
            "dimensions.charge.code",
            "stands for two of ours",
            False,
        ),
        ({"dimensions": {"model": {"values": {"a": "A"}}}}, ["model"], "dimensions.model.values", "model = b:", True),
        ({"dimensions": {"charge": {}}}, ["charge"], "dimensions.charge.values", "charge = c, d, e:", True),
        ({"taxes": {}}, ["tax_category"], "taxes", "tax category reduced:", True),
        ({"customers": {"nobody": "C-1"}}, [], "customers.nobody", "there is no customer 'nobody'", False),
    ],
)
def test_each_fault_of_a_mapping_is_found(
    mappings: dict[str, Any], grain: list[str], place: str, text: str, is_warning: bool
) -> None:
    raw = configured(mappings, grain).model_dump(mode="json", by_alias=True)
    raw["plans"][1]["versions"][0]["charges"][0]["accounting"] = {"tax_category": "reduced"}
    found = {
        ".".join(map(str, one.location[4:])): one
        for one in check(Configuration.model_validate(raw))
        if one.location[:4] == ("entities", 0, "erp", "mappings")
    }
    assert text in f"{found[place].message}:"
    assert found[place].is_warning is is_warning


def test_sound_mappings_give_no_finding() -> None:
    mappings = {"dimensions": {"model": {"values": {"a": "A", "b": None}}, "charge": {"pass_through": True}}}
    assert check(configured(mappings | {"taxes": {}, "customers": {"x": "C-9"}}, ["model", "charge", "customer"])) == []


def test_taxes_stand_in_one_place_and_customers_may_be_mapped_by_entity_alone() -> None:
    tryton = {"adapter": "tryton", "options": {"url": "https://erp", "database": "erp", "taxes": {"saas": "VAT"},
                                               "credential": {"environment": "KEY"}}}  # fmt: skip
    (found,) = check(configured({"taxes": {"saas": "VAT"}}, [], tryton))
    assert found.location == ("entities", 0, "erp", "options", "taxes")
    raw = configured({"customers": {"x": "C-1"}}, []).model_dump(mode="json", by_alias=True)
    for customer in raw["customers"]:
        customer["erp"] = {}
    assert [one.location for one in check(Configuration.model_validate(raw))] == [("customers", 1)]


def test_values_in_use_are_what_contracts_of_the_entity_can_have() -> None:
    made = Configuration.model_validate(SOUND)
    plans = {plan.id: plan for plan in made.plans}
    used = values_used("E", made.customers, plans)
    assert used["model"] == {"a", "b"}
    assert used["charge"] == {"c", "d", "e"}
    assert (used["plan"], used["contract"]) == ({"p", "q"}, {"k", "l"})
    assert values_used("F", made.customers, plans) == {}
