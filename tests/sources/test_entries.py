import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvariantViolation
from operators.items import EVENT, EVENTS, MALFORMED
from sources.entries import SHOWN_BYTES_MAX, TICK, parse

IDS = st.tuples(st.integers(1, 2**61), st.integers(0, 2**61))
FIELDS = st.lists(
    st.binary(max_size=5) | st.sampled_from([b"event", b"events", b"tick", b"request"]), min_size=2, max_size=6
).map(lambda parts: parts[: len(parts) // 2 * 2])


@given(st.lists(st.tuples(IDS, FIELDS), min_size=1, max_size=20))
def test_every_entry_keeps_its_id_kind_and_payload(entries: list[tuple[tuple[int, int], list[bytes]]]) -> None:
    chunk = parse("usage:0", [[b"%d-%d" % entry_id, fields] for entry_id, fields in entries])
    assert list(zip(chunk.entry_ms.tolist(), chunk.entry_seq.tolist(), strict=True)) == [i for i, _ in entries]
    for place, (_, fields) in enumerate(entries):
        expected = {b"event": EVENT, b"events": EVENTS, b"tick": TICK}.get(fields[0], MALFORMED)
        of_a_request = len(fields) == 4 and fields[2] == b"request" and expected in (EVENT, EVENTS)
        if len(fields) != 2 and not of_a_request:
            expected = MALFORMED
        assert chunk.kinds[place] == expected
        assert (place in chunk.details) == (expected == MALFORMED)
        if expected == MALFORMED:
            assert fields[1] in chunk.payloads[place]
        else:
            assert chunk.payloads[place] == fields[1]
        assert chunk.sizes[place] == len(chunk.payloads[place])


@pytest.mark.parametrize(("name", "kind"), [(b"event", EVENT), (b"events", EVENTS), (b"tick", MALFORMED)])
def test_an_entry_may_name_the_request_that_made_it(name: bytes, kind: int) -> None:
    fields = [name, b"x", b"request", b"r-1"]
    chunk = parse("usage:0", [[b"1-0", [b"event", b"y"]], [b"1-1", fields]])
    assert chunk.kinds.tolist() == [EVENT, kind]
    assert (chunk.payloads[1] == b"x") == (kind != MALFORMED)


def test_an_events_entry_weighs_its_lines() -> None:
    chunk = parse("usage:0", [[b"1-0", [b"event", b"a\nb"]], [b"1-1", [b"events", b"a\nb\nc"]]])
    assert chunk.weights.tolist() == [1, 3]


def test_a_malformed_entry_is_shown_but_bounded() -> None:
    chunk = parse("usage:0", [[b"1-0", [b"x", b"y" * 1_000_000, b"z", b"w"]]])
    assert chunk.payloads[0].startswith(b"x=yyy")
    assert len(chunk.payloads[0]) == SHOWN_BYTES_MAX
    assert "'x', 'z'" in chunk.details[0]


@pytest.mark.parametrize("entry_id", [b"18446744073709551615-5", b"5-18446744073709551615"])
def test_an_id_beyond_all_time_stops_the_flow_and_is_named(entry_id: bytes) -> None:
    with pytest.raises(InvariantViolation, match=entry_id.decode()):
        parse("usage:0", [[b"1-0", [b"event", b"x"]], [entry_id, [b"event", b"x"]]])
