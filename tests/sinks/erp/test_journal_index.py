"""The journal's index of keys against a plain dict."""

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from sinks.erp.journal_index import KeyIndex, Place

ENTRY = st.tuples(st.sampled_from(["A", "B", "C", "D"]), st.integers(1, 9), st.sampled_from(["x", "y"]))
STEP = st.tuples(st.integers(0, 3), st.lists(ENTRY, max_size=4))


@given(steps=st.lists(STEP, max_size=8), forget_at=st.none() | st.integers(0, 7))
def test_it_finds_what_was_added_in_order(
    steps: list[tuple[int, list[tuple[str, int, str]]]], forget_at: int | None
) -> None:
    index = KeyIndex()
    known: dict[str, tuple[Place, ...]] = {}
    for place, (offset, entries) in enumerate(steps):
        if place == forget_at:
            index.clear()
            known.clear()
        day = date(2026, 1, 1) + timedelta(days=offset)
        index.add(day, entries)
        for key, number, digest in entries:
            known[key] = (*known.get(key, ()), Place(number, digest, day))
    assert {key: index.find(key) for key in "ABCD"} == {key: known.get(key, ()) for key in "ABCD"}
    assert index.number_last() == max((one.number for found in known.values() for one in found), default=0)
