"""Traces as load: the same tenant for the same row, times cut to microseconds, bad rows named."""

from datetime import datetime
from pathlib import Path

import orjson
import pytest
import xxhash

from core.errors import InvalidRequest
from sources.trace import trace_workload
from sources.workload_events import DEMO_SUBJECTS, zipf_bounds

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"


def _write(directory: Path, name: str, *rows: str, header: str = HEADER) -> Path:
    path = directory / name
    path.write_text(header + "".join(f"{row}\r\n" for row in rows), newline="")
    return path


def test_rows_become_events_in_order_of_time_over_files(tmp_path: Path) -> None:
    code = _write(tmp_path, "code.csv", "2023-11-16 18:17:03.9799699,4808,10", "2023-11-16 18:17:05,1,2")
    conv = _write(tmp_path, "conv.csv", "2023-11-16 18:17:04.5,374,44")
    workload = trace_workload([code, conv])
    records = list(workload)
    events = [orjson.loads(payload) for _, _, payload in records]
    assert [event["id"] for event in events] == ["code-00000001", "conv-00000001", "code-00000002"]
    assert [event["time"] for event in events] == [
        "2023-11-16T18:17:03.979969Z",
        "2023-11-16T18:17:04.500000Z",
        "2023-11-16T18:17:05.000000Z",
    ]
    assert [event["data"]["model"] for event in events] == ["gpt-4", "gpt-4-mini", "gpt-4"]
    assert (events[0]["data"]["input_tokens"], events[0]["data"]["output_tokens"]) == (4808, 10)
    for (arrival_ms, subject, _), event in zip(records, events, strict=True):
        assert arrival_ms == int(datetime.fromisoformat(event["time"]).timestamp() * 1000)
        assert subject == event["subject"]
        assert event["type"] == "llm.completion"
    assert workload.expected["input_tokens"] == 4808 + 374 + 1
    assert workload.expected["events"] == workload.expected["accepted"] == 3
    assert list(workload) == records


def test_the_tenant_is_the_documented_hash_of_the_row(tmp_path: Path) -> None:
    rows = [f"2023-11-16 18:00:{second:02d}.0000000,{second},7" for second in range(60)]
    subjects = [subject for _, subject, _ in trace_workload([_write(tmp_path, "other.csv", *rows)])]
    for row, subject in zip(rows, subjects, strict=True):
        share = xxhash.xxh3_64_intdigest(row.encode()) / 2**64
        bounds = zipf_bounds(len(DEMO_SUBJECTS)).tolist()
        assert subject == DEMO_SUBJECTS[next(place for place, bound in enumerate(bounds) if share < bound)]
    assert len(set(subjects)) > 5


@pytest.mark.parametrize(
    "row",
    [
        "2023-11-16,1,2",
        "2023-11-16 18:17:03.12x,1,2",
        "2023-11-16 18:17:03,1",
        "2023-11-16 18:17:03,-1,2",
        "2023-11-16 18:17:03,1.5,2",
        "2023-11-16 18:17:02,1,2",  # before the row above it
    ],
)
def test_bad_rows_are_named_by_line(tmp_path: Path, row: str) -> None:
    path = _write(tmp_path, "code.csv", "2023-11-16 18:17:03,1,2", row)
    with pytest.raises(InvalidRequest, match=r"code\.csv:3: the row "):
        list(trace_workload([path]))


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="columns must be"):
        list(trace_workload([_write(tmp_path, "code.csv", header="a,b\n")]))
    with pytest.raises(InvalidRequest, match="cannot be read"):
        list(trace_workload([tmp_path / "none.csv"]))
    with pytest.raises(InvalidRequest, match="no file"):
        trace_workload([])
    with pytest.raises(InvalidRequest, match="two files are called code"):
        trace_workload([tmp_path / "code.csv", tmp_path / "a" / "code.csv"])
