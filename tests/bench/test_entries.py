"""Batched entries of the benchmarks: full, in order, nothing lost."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from bench.entries import collected
from sources.sending import Record, stream_of

STREAMS = ("usage:0", "usage:1", "usage:2")


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("abcdefgh"))), st.integers(1, 5))
def test_entries_are_full_and_carry_the_arrival_of_their_last_event(drawn: list[tuple[int, str]], batch: int) -> None:
    times = sorted(time for time, _ in drawn)
    records: list[Record] = [
        (time, subject, b"%d" % number) for number, (time, (_, subject)) in enumerate(zip(times, drawn, strict=True))
    ]
    sent: dict[str, list[Record]] = defaultdict(list)
    for record in collected(records, STREAMS, batch):
        sent[stream_of(record[1], STREAMS)].append(record)
    for stream in STREAMS:
        own = [record for record in records if stream_of(record[1], STREAMS) == stream]
        assert [record[1:] for record in sent[stream]] == [record[1:] for record in own]
        for first in range(0, len(own), batch):
            entry = own[first : first + batch]
            expected = entry[-1][0] if len(entry) == batch else times[-1]
            assert {record[0] for record in sent[stream][first : first + batch]} == {expected}
