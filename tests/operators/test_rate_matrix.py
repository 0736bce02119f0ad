"""Prices by dimension values, and usage that has none."""

from decimal import Decimal
from typing import Any

import pytest

from config.revision import History
from operators.document import documents
from operators.rating.charges import amount, parse_charge
from operators.rating.schema import Matrix
from tests.operators.rate_support import HOUR0, Driver, Use, contract, customer, facts, revision, short, version

MATRIX: dict[str, Any] = {
    "id": "in",
    "meter": "tokens",
    "model": "matrix",
    "unit_divisor": "10",
    "discount_percent": "50",
    "accounting": {"tax_category": "saas"},
    "rows": [
        {"when": {"model": ["a", "b"]}, "unit_amount": "3"},
        {
            "when": {"model": "c"},
            "row": "tiered",
            "model": "graduated",
            "tiers": [{"unit_amount": "1"}],
            "minimum": "9",
        },
    ],
}
DEFAULT = {"unit_amount": "8", "discount_percent": "0"}
EACH = {"id": "each", "meter": "tokens", "model": "per_unit", "unit_amount": "1"}


def matrix(**fields: Any) -> Matrix:
    found = parse_charge(MATRIX | fields)
    assert isinstance(found, Matrix)
    return found


def used(model: str, quantity: str = "10", hour: int = 0, region: str = "") -> Use:
    text = f'{{"model":"{model}"}}' if not region else f'{{"model":"{model}","region":"{region}"}}'
    return Use(hour * 60, hour * 60, quantity, dimensions=text)


def run(*uses: Use, charges: Any = (MATRIX,), end: int = 300, **fields: Any) -> Driver:
    held = [customer(contracts=[contract(**fields)])]
    driver = Driver(History([revision([version(*charges)], held, rules={"books_open_at": "2024-01-01T00:00:00Z"})]))
    driver.send(facts(list(uses)), end)
    return driver


def test_each_row_adds_up_by_itself_with_what_the_matrix_says() -> None:
    driver = run(used("a", "20"), used("b", "10"), used("c", "10"), end=31 * 1440 + 180)
    rows = driver.rows("sealed")
    # 30 / 10 x 3 = 9, less 50 %: 4.5. 10 / 10 x 1 less 50 %: 0.5, and 8.5 to the row's minimum.
    assert rows.select("price_row", "line_kind", "quantity", "amount").rows() == [
        ("model=a|b", "usage", 30, Decimal("4.5")),
        ("tiered", "usage", 10, Decimal("0.5")),
        ("tiered", "true_up", 0, Decimal("8.5")),
    ]
    found = documents(rows, driver.history)
    lines = [line for document in found for line in document.lines if line.side == "debit"]
    assert [(line.price_row, line.dimensions, line.tax_category) for line in lines] == [
        ("model=a|b", {}, "saas"),
        ("tiered", {"model": "c"}, "saas"),
        ("tiered", {"model": "c"}, "saas"),
    ]


def test_a_combination_without_a_row_is_unrated_with_an_exception() -> None:
    driver = run(used("a"), used("x"))
    assert driver.rows("sealed")["quantity"].to_list() == [10]
    assert driver.rows("unrated")["quantity"].to_list() == [10]
    (raised,) = driver.exceptions()
    assert (raised["kind"], raised["identity"]) == ("unrated", "customer:acme|tokens|2024-01")
    assert 'usage such as {"model":"x"}' in raised["detail"]


def test_usage_is_not_rated_in_part_while_a_row_is_missing() -> None:
    # `each` could price it, but then the revision that adds the row would rate it twice.
    rules = {"books_open_at": "2024-01-01T00:00:00Z"}
    before = revision([version(MATRIX, EACH)], rules=rules)
    rows = {"rows": [*MATRIX["rows"], {"when": {"model": "x"}, "unit_amount": "5"}]}
    after = revision([version(MATRIX | rows, EACH)], known_from_ms=(HOUR0 + 2) * 3_600_000, rules=rules)
    driver = Driver(History([before, after]))
    driver.send(facts([used("a"), used("x")]), 300)
    assert short(driver.rows("sealed")) == [
        ("each", 0, 0, "usage", 10, 10),
        ("in", 0, 0, "usage", 10, Decimal("1.5")),
        ("each", 0, 2, "usage", 10, 10),
        ("in", 0, 2, "usage", 10, Decimal("2.5")),
    ]
    assert driver.rows("unrated")["quantity"].to_list() == [10, -10]


def test_the_first_row_that_matches_prices_and_the_default_takes_the_rest() -> None:
    regions = {"rows": [{"when": {"model": "a", "region": "eu"}, "unit_amount": "1"}, *MATRIX["rows"], DEFAULT]}
    one = matrix(**regions)
    for dimensions, unit_amount in (
        ({"model": "a", "region": "eu"}, 1),
        ({"model": "a", "region": "us"}, 3),
        ({"model": "z", "region": "eu"}, 8),
        ({}, 8),
    ):
        assert getattr(one.row_for(dimensions), "unit_amount", None) == unit_amount
    assert matrix().row_for({"model": "z"}) is None


def test_usage_outside_the_matrixs_filter_is_not_its_concern() -> None:
    driver = run(used("a"), used("x"), charges=(MATRIX | {"filter": {"model": ["a", "c"]}}, EACH))
    assert sorted(short(driver.rows("sealed"))) == [
        ("each", 0, 0, "usage", 20, 20),
        ("in", 0, 0, "usage", 10, Decimal("1.5")),
    ]


def test_an_override_replaces_the_rows() -> None:
    dearer = {"charge": "in", "set": {"rows": [{"unit_amount": "100"}]}}
    driver = run(used("a"), overrides=[dearer])
    assert driver.rows("sealed").select("price_row", "amount").rows() == [("default", 50)]


def test_amount_prices_the_default_row() -> None:
    assert amount(matrix(rows=[*MATRIX["rows"], DEFAULT]), Decimal(10)) == 8
    with pytest.raises(ValueError, match="no default row"):
        amount(matrix(), Decimal(10))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"minimum": "1"}, "minimum cannot hold for a whole matrix"),
        ({"included": "1", "zero_usage": "first_tier_flat"}, "included, zero_usage cannot hold"),
        ({"rows": []}, "at least 1"),
        ({"rows": [{"unit_amount": "1"}, {"when": {"model": "a"}, "unit_amount": "1"}]}, "row 1 has no `when`"),
        ({"rows": [MATRIX["rows"][0], MATRIX["rows"][0]]}, "called model=a|b"),
        ({"rows": [{"when": {"model": "a"}, "unit_amount": "1", "meter": "calls"}]}, "a row has no meter of its own"),
        ({"rows": [{"when": {"model": "a"}, "model": "flat", "amount": "1"}]}, "does not match any"),
        ({"rows": [{"when": {"model": "a"}, "unit_amuont": "1"}]}, "unit_amuont"),
        ({"rows": ["x"]}, "dictionary"),
        ({"rows": [{"when": "x", "unit_amount": "1"}]}, "dictionary"),
    ],
)
def test_what_a_matrix_may_not_say(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        parse_charge(MATRIX | fields)
