"""The files hold the events in order, and the sums expected of them are right."""

from pathlib import Path

import orjson
import polars as pl
import pytest

from bench import lines
from bench.peers import job_input
from bench.peers.answer import Sums

EVENTS = 5_000


def test_expected_sums_are_those_of_the_generator_and_of_a_group_by() -> None:
    made = lines.make(EVENTS)
    frame = pl.DataFrame([orjson.loads(line) for line in made.lines]).unnest("data").unique(["subject", "source", "id"])
    facts = frame.select("subject", "model", pl.col("time").str.to_datetime(time_zone="UTC").dt.truncate("1m"))
    assert job_input.expected(made.lines) == Sums(facts.n_unique(), made.accepted, made.tokens)


def test_the_first_of_an_identity_counts_and_other_sources_and_tenants_are_others() -> None:
    def line(subject: str, source: str, tokens: int) -> bytes:
        data = {"input_tokens": tokens, "model": "m"}
        return orjson.dumps(
            {"subject": subject, "source": source, "id": "1", "time": "2026-10-31T10:00:59.999Z", "data": data}
        )

    events = [line("a", "/s", 1), line("a", "/s", 5), line("a", "/t", 10), line("b", "/s", 100)]
    assert job_input.expected(events) == Sums(facts=2, events=3, tokens=111)


def test_files_are_read_in_the_order_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_input, "FILE_EVENTS", 300)
    made = lines.make(1_000).lines
    job_input.write(made, tmp_path / "open")
    assert len(list((tmp_path / "open").iterdir())) == 4
    assert job_input.read(tmp_path / "open") == made
    job_input.write(made, tmp_path / "closed", closing=True)
    assert job_input.read(tmp_path / "closed") == [*made, job_input.CLOSING]


def test_the_closing_event_is_later_than_every_window_of_a_long_input() -> None:
    last_ms = lines.START_MS + 10_000_000 * 1000 // lines.EVENTS_PER_SECOND
    closing = pl.Series([orjson.loads(job_input.CLOSING)["time"]]).str.to_datetime(time_zone="UTC")
    assert closing.dt.epoch("ms")[0] > last_ms + 86_400_000
