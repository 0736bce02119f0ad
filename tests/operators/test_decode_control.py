"""Control totals: what is one, what is refused, and that none is ever metered."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from config.checks import check
from config.meters import Meter
from config.revision import Configuration
from core.reasons import CONTROL_TYPE
from operators.decode_control import ControlTotal, control_totals
from tests.operators.decode_cases import METERS, assert_paths_agree, history, verdict

HOUR = int(datetime(2026, 10, 31, 10, tzinfo=UTC).timestamp()) // 3600
GOOD: dict[str, Any] = {
    "hour": "2026-10-31T10:00:00Z",
    "totals": [{"meter": "total", "events": 3, "sum": "12.5"}, {"meter": "eu", "events": 0}],
}


def event(data: Any, **other: Any) -> bytes:
    plain = {"specversion": "1.0", "id": "c-1", "source": "gw", "type": CONTROL_TYPE, "subject": "gw", "data": data}
    return orjson.dumps(plain | other)


def test_totals_are_read_exactly() -> None:
    assert control_totals(orjson.dumps(GOOD)) == [
        ControlTotal(HOUR, "total", 3, 12_500_000_000_000),
        ControlTotal(HOUR, "eu", 0, None),
    ]
    whole = {"hour": "2026-10-31T12:00:00+02:00", "totals": [{"meter": "total", "events": 1, "sum": -7}]}
    assert control_totals(orjson.dumps(whole)) == [ControlTotal(HOUR, "total", 1, -7 * 10**12)]


BAD: list[tuple[Any, str]] = [
    ({}, "hour"),
    (GOOD | {"hour": "2026-10-31T10:30:00Z"}, "full hour"),
    (GOOD | {"hour": "today"}, "full hour"),
    (GOOD | {"totals": []}, "totals"),
    (GOOD | {"more": 1}, "more"),
    (GOOD | {"totals": [{"meter": "total", "events": -1}]}, "events"),
    (GOOD | {"totals": [{"meter": "total", "events": 1.5}]}, "events"),
    (GOOD | {"totals": [{"meter": "total", "events": True}]}, "events"),
    (GOOD | {"totals": [{"meter": "total", "events": 1, "sum": 0.1}]}, "sum"),
    (GOOD | {"totals": [{"meter": "total", "events": 1, "sum": "a lot"}]}, "sum of total"),
    (GOOD | {"totals": [{"meter": "total", "events": 1}] * 2}, "twice"),
]


@pytest.mark.parametrize(("data", "named"), BAD, ids=[named for _, named in BAD])
def test_another_form_is_refused_and_named(data: Any, named: str) -> None:
    reason, detail = verdict(event(data))

    assert reason == "invalid_field"
    assert named in detail
    assert detail.startswith("data: ")


def test_both_paths_agree_and_no_meter_takes_it() -> None:
    lines = [event(GOOD), event(GOOD, time="2026-10-31T10:00:00Z"), *(event(data) for data, _ in BAD)]
    assert_paths_agree(lines)

    greedy = Meter(id="greedy", event_type=CONTROL_TYPE, aggregation="count")
    events = assert_paths_agree([event(GOOD)], history(meters=(*METERS, greedy)))
    assert len(events) == 1
    assert [name for name in events.columns if name[:2] in ("v:", "u:") and events[name][0] is not None] == []


def test_a_total_is_not_taken_back_but_replaced() -> None:
    original = orjson.loads(event(GOOD))
    reason, detail = verdict(event(original, type="meterbridge.void"))

    assert reason == "invalid_field"
    assert "the newest counts" in detail


def test_a_meter_of_a_reserved_type_is_refused() -> None:
    configuration = Configuration(meters=(Meter(id="m", event_type=CONTROL_TYPE, aggregation="count"),))

    assert [finding.location for finding in check(configuration)] == [("meters", 0, "event_type")]
