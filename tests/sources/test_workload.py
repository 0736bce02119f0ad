"""The load generator: the same bytes every time, in order of arrival, and the exact counts it promises."""

import itertools
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import orjson
import pytest

from core.errors import InvalidRequest
from core.reasons import REASONS
from sources.workload import Record, Workload
from sources.workload_events import DEMO_SUBJECTS, mixed, zipf_bounds

START = datetime(2026, 11, 2, tzinfo=UTC)
DAY_MS = 86_400_000


def _workload(events: int = 40_000, days: float = 3, seed: int = 5, **more: Any) -> Workload:
    shares = {
        "duplicate_share": 0.05,
        "conflict_share": 0.02,
        "void_share": 0.03,
        "malformed_share": 0.03,
        "late_share": 0.1,
    }
    return Workload(
        seed, more.pop("tenants", 14), events, start=START, end=START + timedelta(days=days), **(shares | more)
    )


class _Intake:
    """A naive intake written from the design: outcomes of records in the order given."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()
        self._content: dict[tuple[str, str], bytes] = {}
        self._arrival_ms: dict[tuple[str, str], int] = {}
        self._voided: dict[tuple[str, str], tuple[str, str]] = {}

    def take(self, arrival_ms: int, payload: bytes) -> None:
        self.counts["events"] += 1
        reason = self._reason(arrival_ms, payload)
        if reason:
            self.rejected[reason] += 1

    def _reason(self, arrival_ms: int, payload: bytes) -> str:
        try:
            event = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return "malformed_json"
        if not {"specversion", "id", "source", "type", "subject", "data"} <= event.keys():
            return "missing_field"
        try:
            time_ms = datetime.fromisoformat(event["time"]).timestamp() * 1000
        except ValueError:
            return "invalid_field"
        if time_ms > arrival_ms + 300_000:
            return "future_time"
        if time_ms < arrival_ms - 35 * DAY_MS:
            return "too_old"
        if event["type"] == "storage.level":
            try:
                float(event["data"]["gib"])
            except ValueError:
                return "invalid_quantity"
        return self._void(event) if event["type"] == "meterbridge.void" else self._new(event, arrival_ms)

    def _new(self, event: dict[str, Any], arrival_ms: int) -> str:
        identity = (event["source"], event["id"])
        content = orjson.dumps([event["subject"], event["type"], event["time"], event["data"]])
        if identity not in self._content:
            self._content[identity] = content
            self._arrival_ms[identity] = arrival_ms
            self.counts["accepted"] += 1
            self._add(event, 1)
        else:
            assert arrival_ms - self._arrival_ms[identity] < 35 * DAY_MS
            self.counts["duplicates" if self._content[identity] == content else "conflicts"] += 1
        return ""

    def _void(self, event: dict[str, Any]) -> str:
        original = event["data"]
        identity = (original["source"], original["id"])
        if identity not in self._content:
            return "unmatched_void"
        if identity in self._voided:
            assert self._voided[identity] != (event["source"], event["id"])
            return "already_voided"
        assert event["subject"] == original["subject"]
        content = orjson.dumps([original["subject"], original["type"], original["time"], original["data"]])
        assert content == self._content[identity]
        assert original["type"] == "llm.completion"
        self._voided[identity] = (event["source"], event["id"])
        self.counts["accepted"] += 1
        self.counts["voids"] += 1
        self._add(original, -1)
        return ""

    def _add(self, event: dict[str, Any], sign: int) -> None:
        if event["type"] == "llm.completion":
            self.tokens["requests"] += sign
            self.tokens["input_tokens"] += sign * event["data"]["input_tokens"]
            self.tokens["output_tokens"] += sign * event["data"]["output_tokens"]


@pytest.fixture(scope="module")
def workload() -> Workload:
    return _workload()


@pytest.fixture(scope="module")
def records(workload: Workload) -> list[Record]:
    return list(workload)


def test_expected_is_what_a_naive_intake_finds(workload: Workload, records: list[Record]) -> None:
    intake = _Intake()
    for arrival_ms, _, payload in records:
        intake.take(arrival_ms, payload)
    expected = workload.expected
    assert dict(intake.rejected) == expected["rejected_by_reason"]
    assert sum(intake.rejected.values()) == expected["rejected"]
    for name in ("events", "accepted", "duplicates", "conflicts", "voids"):
        assert intake.counts[name] == expected[name], name
    for name in ("requests", "input_tokens", "output_tokens"):
        assert intake.tokens[name] == expected[name], name
    assert expected["events"] == sum(expected[n] for n in ("accepted", "duplicates", "conflicts", "rejected"))
    assert min(expected[name] for name in ("duplicates", "conflicts", "voids", "late", "rejected")) > 100
    assert len(expected["rejected_by_reason"]) == 8
    assert expected["rejected_by_reason"].keys() <= set(REASONS)


def test_same_arguments_same_bytes_and_another_seed_other_ids(records: list[Record]) -> None:
    assert list(_workload()) == records
    workload = _workload()
    assert list(workload) == list(workload)
    ids = {orjson.loads(payload)["id"] for _, _, payload in _workload(2000, malformed_share=0.0)}
    others = {orjson.loads(payload)["id"] for _, _, payload in _workload(2000, seed=6, malformed_share=0.0)}
    assert not ids & others


def test_arrivals_are_ordered_and_within_bounds(records: list[Record]) -> None:
    arrivals = [arrival_ms for arrival_ms, _, _ in records]
    start_ms = int(START.timestamp() * 1000)
    assert arrivals == sorted(arrivals)
    assert start_ms <= arrivals[0]
    assert arrivals[-1] <= start_ms + 3 * DAY_MS
    assert len(arrivals) == 40_000


def test_events_have_the_promised_size_and_their_own_subject(records: list[Record]) -> None:
    plain = list(_workload(20_000, malformed_share=0.0, void_share=0.0, conflict_share=0.0))
    sizes = [len(payload) for _, _, payload in plain]
    assert min(sizes) >= 180
    assert max(sizes) <= 260
    assert sum(size >= 200 for size in sizes) > 0.98 * len(sizes)
    for _, subject, payload in records:
        if payload.endswith(b"}}"):  # not one that was cut
            assert b'"subject":"%b"' % subject.encode() in payload


def test_times_follow_arrival_within_seconds_or_are_late() -> None:
    delays_s = []
    only_new: dict[str, Any] = {
        "malformed_share": 0.0,
        "void_share": 0.0,
        "duplicate_share": 0.0,
        "conflict_share": 0.0,
    }
    for arrival_ms, _, payload in _workload(20_000, **only_new):
        time_ms = datetime.fromisoformat(orjson.loads(payload)["time"]).timestamp() * 1000
        delays_s.append((arrival_ms - time_ms) / 1000)
    late = [delay for delay in delays_s if delay > 21]
    assert min(delays_s) >= 0
    assert max(delays_s) <= 5 * 86_400 + 1
    assert 0.08 < len(late) / len(delays_s) < 0.13
    assert min(late) >= 119


def test_tenants_differ_in_size_and_days_have_a_rhythm() -> None:
    week = list(_workload(60_000, days=7))
    sizes = Counter(subject for _, subject, _ in week)
    assert set(sizes) == set(DEMO_SUBJECTS)
    assert sizes[DEMO_SUBJECTS[0]] > 10 * sizes[DEMO_SUBJECTS[-1]]
    hours = Counter(datetime.fromtimestamp(arrival_ms / 1000, UTC).hour for arrival_ms, _, _ in week)
    assert hours[15] > 2.5 * hours[3]
    days = Counter(datetime.fromtimestamp(arrival_ms / 1000, UTC).weekday() for arrival_ms, _, _ in week)
    assert days[2] > 1.6 * days[6]


def test_many_tenants() -> None:
    names = {subject for _, subject, _ in _workload(30_000, tenants=1000)}
    assert "tenant-00999" in names or len(names) > 900
    assert zipf_bounds(1000)[-1] == 1.0


def test_ids_are_distinct_and_the_mixing_is_pinned() -> None:
    assert [f"{int(value):016x}" for value in mixed(np.arange(2, dtype=np.uint64), 0)] == [
        f"{_splitmix(number + 0x632BE59BD9B4E019):016x}" for number in range(2)
    ]
    assert len(set(mixed(np.arange(100_000, dtype=np.uint64), 3).tolist())) == 100_000


def _splitmix(value: int) -> int:
    mask = (1 << 64) - 1
    value &= mask
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & mask
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & mask
    return value ^ (value >> 31)


def test_copies_never_come_too_late_over_months() -> None:
    """Given 200 days of traffic; then the naive intake (which checks the horizon) still agrees."""
    workload = _workload(30_000, days=200)
    intake = _Intake()
    for arrival_ms, _, payload in workload:
        intake.take(arrival_ms, payload)
    assert intake.counts["duplicates"] == workload.expected["duplicates"] > 500
    assert dict(intake.rejected) == workload.expected["rejected_by_reason"]


def test_nothing_and_one() -> None:
    assert list(_workload(0)) == []
    assert len(list(_workload(1))) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"end": START},
        {"start": datetime(2026, 1, 1)},  # noqa: DTZ001  # the very thing that is refused
        {"tenants": 0},
        {"events": -1},
        {"duplicate_share": 0.95},
        {"void_share": -0.1},
    ],
)
def test_wrong_arguments_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        Workload(**({"start": START, "end": START + timedelta(days=1)} | wrong))


def test_it_is_fast_enough() -> None:
    workload = _workload(300_000, duplicate_share=0.01, conflict_share=0.001, void_share=0.002, malformed_share=0.002)
    began_s = time.process_time()
    count = sum(1 for _ in itertools.islice(workload, 300_000))
    assert count / (time.process_time() - began_s) > 150_000
