"""Roots and differences of leaves, against sets and dictionaries."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from queries import leaves as leaves_module
from queries.leaves import OTHERS, Leaf, Root, differences, exact_text

PLACES = st.tuples(st.integers(0, 3), st.sampled_from(["a", "b", "ä", ""]), st.sampled_from(["m", "n"]))
LEAVES = st.dictionaries(PLACES, st.tuples(st.integers(1, 3), st.integers(-2, 2), st.sampled_from(["0", "1.5", "-2"])))


def _leaves(plain: dict[tuple[int, str, str], tuple[int, int, str]]) -> list[Leaf]:
    return [Leaf(*place, *plain[place], f"{plain[place]}") for place in sorted(plain)]


def _root(leaves: list[Leaf]) -> Root:
    root = Root()
    assert list(root.take(leaves)) == leaves
    return root


@given(LEAVES, LEAVES)
def test_roots_are_equal_exactly_if_the_leaves_are(
    one: dict[tuple[int, str, str], tuple[int, int, str]], other: dict[tuple[int, str, str], tuple[int, int, str]]
) -> None:
    left, right = _leaves(one), _leaves(other)
    assert (_root(left).plain() == _root(right).plain()) == (left == right)


@given(LEAVES, LEAVES)
def test_differences_are_those_of_the_two_tables(
    one: dict[tuple[int, str, str], tuple[int, int, str]], other: dict[tuple[int, str, str], tuple[int, int, str]]
) -> None:
    found = {each.place: each.what for each in differences("p", _leaves(one), _leaves(other))}
    assert found == {
        **dict.fromkeys(one.keys() - other.keys(), "missing"),
        **dict.fromkeys(other.keys() - one.keys(), "added"),
        **{place: "changed" for place in one.keys() & other.keys() if one[place] != other[place]},
    }


@given(LEAVES)
def test_totals_are_the_sums_by_owner_and_item(plain: dict[tuple[int, str, str], tuple[int, int, str]]) -> None:
    expected: dict[tuple[str, str], tuple[int, int, Decimal]] = {}
    for (_, owner, item), (rows, events, total) in plain.items():
        known = expected.get((owner, item), (0, 0, Decimal(0)))
        expected[owner, item] = (known[0] + rows, known[1] + events, known[2] + Decimal(total))
    found = _root(_leaves(plain)).totals()
    assert {
        (one["owner"], one["item"]): (one["rows"], one["events"], Decimal(one["total"])) for one in found
    } == expected
    assert sum(one["rows"] for one in found) == sum(rows for rows, _, _ in plain.values())


def test_totals_have_a_limit_and_lose_nothing() -> None:
    leaves = [Leaf(0, owner, "m", 1, 1, "1", "") for owner in "abcd"]
    before = leaves_module.TOTALS_MAX
    try:
        leaves_module.TOTALS_MAX = 2  # type: ignore[misc]
        found = _root(leaves).totals()
    finally:
        leaves_module.TOTALS_MAX = before  # type: ignore[misc]
    assert [(one["owner"], one["rows"]) for one in found] == [(OTHERS, 2), ("a", 1), ("b", 1)]


def test_amounts_read_the_same_from_every_database() -> None:
    assert exact_text(Decimal("12.340000000000")) == exact_text(Decimal("12.34")) == "12.34"
    assert exact_text(Decimal("1E+3")) == "1000"
    assert exact_text(Decimal("100")) == "100"
    assert exact_text(None) == ""
