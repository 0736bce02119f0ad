"""Verdicts on posted events are those of the reference, however many come together."""

from hypothesis import given, settings
from hypothesis import strategies as st

from console.verdicts import Judge
from operators.decode_plan import WHITESPACE, RevisionPlan
from operators.decode_slow import Rejected, decode_event
from tests.operators.decode_cases import NOW_MS, STREAMS, history, text

KINDS = (
    text(),
    text(subject="acmé"),
    text(time="2026-10-31T12:00:00+02:00"),
    b"  " + text(subject="other") + b"\n",
    text(data={"n": "x"}),
    text(id=...),
    text(time="2027-01-01T00:00:00Z"),
    text(type="meterbridge.void", data={"specversion": "1.0"}),
    text(x="x" * (1 << 20)),
    b"{",
    b"",
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(KINDS), max_size=20), st.sampled_from((0, 40)))
def test_verdicts_are_those_of_the_reference(lines: list[bytes], doubtful: int) -> None:
    lines = lines + [KINDS[1]] * doubtful  # from so many on, what a quick look leaves is decoded in columns
    found = Judge(history(), STREAMS).decide(lines, NOW_MS)
    plan = RevisionPlan(history().latest)
    for place, line in enumerate(lines):
        expected = decode_event(line.strip(WHITESPACE), NOW_MS, plan)
        if isinstance(expected, Rejected):
            reason, detail = found.reasons[place]
            assert found.subjects[place] is None
            assert (reason, detail.partition(" (raw cut")[0]) == (expected.reason, expected.detail)
        else:
            assert found.subjects[place] == expected.columns["tenant"]
            assert place not in found.reasons
