"""The quick look decides plain events, and leaves every other to the whole decoding.

That it never accepts what the reference refuses is asserted wherever the paths of decode are compared: see
`decode_cases.assert_paths_agree`.
"""

from typing import Any

import pytest

from config.meters import Meter
from operators.decode_plan import RevisionPlan
from operators.decode_quick import QuickLook
from tests.operators.decode_cases import METERS, NOW_MS, assert_paths_agree, event, history, text


def look(line: bytes, meters: tuple[Meter, ...] = METERS, entry_ms: int = NOW_MS) -> str | None:
    return QuickLook(RevisionPlan(history(meters).latest)).subjects([line], entry_ms)[0]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"time": ...},
        {"time": "2026-10-31T10:04:59.999999Z"},
        {"time": "2026-10-31T10:05:00Z"},
        {"time": "2026-09-26T10:00:00Z"},
        {"type": "unmetered", "data": {}},
        {"data": {"n": "12.5"}},
        {"data": {"n": 0.25}},
        {"data": {"n": "no quantity", "user": "u"}},
        {"data": {"deep": {"n": 7}}},
        {"extension": {"a": [1, 2]}, "datacontenttype": "application/json"},
        {"subject": "s" * 256, "id": "i" * 1024},
    ],
)
def test_plain_events_are_decided(changes: dict[str, Any]) -> None:
    line = text(**changes)
    assert look(line) == event(**changes)["subject"]
    assert look(b" \r\n" + line + b"\t") == event(**changes)["subject"]
    assert len(assert_paths_agree([line])) == 1


@pytest.mark.parametrize(
    "line",
    [
        text(subject="acmé"),
        text().replace(b'"acme"', b'"ac\\u006de"'),
        text(source="a\x7f"),
        text(time="2026-10-31T12:00:00+02:00"),
        text(time="2026-10-31T10:05:00.000001Z"),
        text(time="2026-09-26T09:59:59.999999Z"),
        text(time="2026-02-29T00:00:00Z"),
        text(subject=""),
        text(subject="s" * 257),
        text(data={"n": -1}),
        text(data={"n": True}),
        text(data={"n": "-1"}),
        text(data={"n": 10**15}),
        text(data=None),
        text(type="meterbridge.void"),
        text(type="meterbridge.control"),
        text(specversion="0.3"),
        text() + b"x",
        b"[" + text() + b"]",
        text(x=[[[]] * 130]),
        text(x="x" * (1 << 20)),
        b"",
    ],
)
def test_others_are_left(line: bytes) -> None:
    assert look(line) is None


def test_meters_with_filters_decide_nothing() -> None:
    filtered = (Meter(id="eu", event_type="call", aggregation="count", filter={"region": ("eu",)}),)
    assert look(text(), filtered) is None
    assert look(text(), (*filtered, Meter(id="all", event_type="call", aggregation="count"))) == "acme"


def test_the_time_without_one_is_that_of_arrival_to_the_millisecond() -> None:
    assert look(text(time="2026-10-31T10:05:00.001Z"), entry_ms=NOW_MS + 1) == "acme"
    assert look(text(time="2026-10-31T10:05:00.001001Z"), entry_ms=NOW_MS + 1) is None
