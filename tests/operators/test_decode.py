"""Entries, attributes, times, reasons and shards of decode, each checked on both paths."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from config.revision import Configuration, History, Revision, Rules
from core import digests
from core.frames import EVENT_SCHEMA, REJECT_SCHEMA
from core.reasons import RAW_BYTES_MAX
from operators.decode import Decoder
from operators.items import EVENT, EVENTS, MALFORMED, RawBatch
from tests.operators.decode_cases import (
    METERS,
    NOW,
    NOW_MS,
    STREAMS,
    batch_of,
    decode_one_shard,
    history,
    path_of,
    text,
    verdict,
)

BOTH = pytest.mark.parametrize("only_slow", [False, True], ids=["fast", "slow"])
NOW_US = NOW_MS * 1000


@BOTH
def test_a_good_event(only_slow: bool) -> None:
    raw = b" \r\n" + text(time="2026-10-31T09:59:30.250Z") + b"\n"
    events, rejects = decode_one_shard(batch_of([raw]), only_slow=only_slow)
    assert not len(rejects)
    assert events.columns[: len(EVENT_SCHEMA)] == list(EVENT_SCHEMA)
    row = events.row(0, named=True)
    assert row["raw"] == raw.strip().decode()
    assert (row["source"], row["id"], row["type"], row["tenant"]) == ("/api", "e-1", "call", "acme")
    assert row["event_time_us"] == row["usage_time_us"] == NOW_US - 29_750_000
    assert (row["identity_hi"], row["identity_lo"]) == digests.identity("/api", "e-1")
    compact = '{"n":5,"model":"m","region":"eu","user":"u","deep":{"n":"1.5","zone":"z"}}'
    assert row["content"] == digests.content("acme", "call", "2026-10-31T09:59:30.250Z", compact)
    assert (row["sign"], row["void_content"]) == (1, 0)


@BOTH
def test_without_time_the_entry_time_counts_and_content_knows_it(only_slow: bool) -> None:
    absent = [text(time=...), text(time=None)]
    events, _ = decode_one_shard(batch_of([*absent, text()]), only_slow=only_slow)
    assert events["event_time_us"].to_list() == [NOW_US] * 3
    assert events["content"].n_unique() == 2
    assert events["content"][0] == events["content"][1]


@BOTH
def test_whitespace_is_no_content_but_key_order_is(only_slow: bool) -> None:
    plain = text(data={"a": 1, "b": "x y"})
    spaced = plain.replace(b'{"a":1,"b":"x y"}', b'{ "a" :\t1 ,\r\n "b":"x y" }')
    turned = plain.replace(b'{"a":1,"b":"x y"}', b'{"b":"x y","a":1}')
    inside = plain.replace(b"x y", b"x  y")
    events, _ = decode_one_shard(batch_of([plain, spaced, turned, inside]), history(()), only_slow=only_slow)
    contents = events["content"].to_list()
    assert contents[0] == contents[1]
    assert len({contents[0], contents[2], contents[3]}) == 3


REASONS: list[tuple[bytes, str, str]] = [
    (b"", "malformed_json", ""),
    (b"[]", "malformed_json", "not a JSON object"),
    (b"\xef\xbb\xbf" + text(), "malformed_json", ""),
    (text()[:-1], "malformed_json", ""),
    (text(id="\x00").replace(b"\\u0000", b"\xff"), "malformed_json", "not UTF-8"),
    (text(data={"n": "N"}).replace(b'"N"', b"NaN"), "malformed_json", "NaN"),
    (text(data={"n": "N"}).replace(b"N", b"\\ud800"), "malformed_json", "surrogate"),
    (text(data={"n": 1, "x": 0}).replace(b'"x":0', b'"x":' + b"[" * 127 + b"]" * 127), "malformed_json", "128"),
    (text(specversion=...), "missing_field", "specversion"),
    (text(specversion="0.3"), "invalid_field", "specversion"),
    (text(specversion=1.0), "invalid_field", "specversion"),
    (text(id=...), "missing_field", "id"),
    (text(id=None), "missing_field", "id"),
    (text(id=""), "invalid_field", "id"),
    (text(id=5), "invalid_field", "id"),
    (text(id="x" * 1025), "invalid_field", "id"),
    (text(source="a\x00b"), "invalid_field", "source"),
    (text(source="a\x7fb"), "invalid_field", "source"),
    (text(source="a\x80b"), "invalid_field", "source"),
    (text(type=[]), "invalid_field", "type"),
    (text(subject="é" * 257), "invalid_field", "subject"),
    (text(subject=...), "missing_field", "subject"),
    (text(time="yesterday"), "invalid_field", "time"),
    (text(time="2026-10-31T10:00:00"), "invalid_field", "time"),
    (text(time=5), "invalid_field", "time"),
    (text(dataschema=5), "invalid_field", "dataschema"),
    (text(data=...), "missing_field", "data"),
    (text(data=None), "invalid_field", "data"),
    (text(data=[]), "invalid_field", "data"),
    (text(data="x"), "invalid_field", "data"),
    (text(time="2026-10-31T10:05:00.000001Z"), "future_time", "300 s"),
    (text(time="2026-09-26T09:59:59.999999Z"), "too_old", "35 days"),
    (text(data={"n": "x"}, type="load"), "invalid_quantity", "peak"),
    # the order of the checks
    (text(id=5, specversion="2"), "invalid_field", "specversion"),
    (text(time="9999-01-01T00:00:00Z", subject=5), "invalid_field", "subject"),
    (text(time="9999-01-01T00:00:00Z", data={}), "future_time", ""),
    (text(time="0001-01-01T00:00:00Z", data={}), "too_old", ""),
]


@BOTH
@pytest.mark.parametrize(("line", "reason", "detail"), REASONS)
def test_reasons(line: bytes, reason: str, detail: str, only_slow: bool) -> None:
    found, said = verdict(line, only_slow=only_slow)
    assert found == reason
    assert detail in said
    events, rejects = decode_one_shard(batch_of([text(), line, text()]), only_slow=only_slow)
    assert len(events) == 2
    assert rejects.filter("counted")["reason"].to_list() == [reason]
    assert rejects.filter("counted")["raw"].to_list() == [line.strip()]


@BOTH
@pytest.mark.parametrize(
    "line",
    [
        text(time="2026-10-31T10:05:00Z"),
        text(time="2026-09-26T10:00:00Z"),
        text(time="2026-10-31t10:00:00.123456789012z"),
        text(id="x" * 1024, source="é" * 1024, subject="é" * 256),
        text(dataschema="https://example.org/schema", datacontenttype="application/json", trace=[1, {}]),
        text(data={"n": 1, "x": 0}).replace(b'"x":0', b'"x":' + b"[" * 126 + b"]" * 126),
        text().replace(b'"id":"e-1"', b'"id":5,"id":"e-1"'),
        text(data={"n": 1, "model": "[" * 300}),
    ],
)
def test_accepted_at_the_limits(line: bytes, only_slow: bool) -> None:
    assert verdict(line, only_slow=only_slow) == ("accepted", "")


@BOTH
def test_large_events_are_refused_and_their_raw_bytes_cut(only_slow: bool) -> None:
    fits = text(data={"n": 1, "x": "y" * 199_000})
    line = text(data={"n": 1, "x": "y" * 200_000})
    used = history(event_bytes_max=len(line) - 1)
    assert verdict(fits, used, only_slow=only_slow) == ("accepted", "")
    _, rejects = decode_one_shard(batch_of([line]), used, only_slow=only_slow)
    assert rejects["reason"].to_list() == ["too_large"]
    assert rejects["raw"][0] == line[:RAW_BYTES_MAX]
    assert f"cut at {RAW_BYTES_MAX} of {len(line)} bytes" in rejects["detail"][0]


@BOTH
def test_entries_of_many_lines(only_slow: bool) -> None:
    many = b"\n" + text(id="a") + b"\r\n\n" + b"oops\n" + text(id="b") + b"\n"
    payloads = [text(id="z"), many, b"\n \n", b"", text() + b"\n" + text()]
    batch = batch_of(payloads, [EVENT, EVENTS, EVENTS, MALFORMED, EVENT])
    batch.details[3] = "no field"
    events, rejects = decode_one_shard(batch, only_slow=only_slow)
    assert events.select("id", "entry_seq", "entry_index", "stream").rows() == [
        ("z", 0, 0, 0),
        ("a", 1, 1, 0),
        ("b", 1, 4, 0),
    ]
    assert rejects.select("entry_seq", "entry_index", "reason").rows() == [
        (1, 3, "malformed_json"),
        (2, 0, "malformed_entry"),
        (3, 0, "malformed_entry"),
        (4, 0, "malformed_json"),
    ]
    assert rejects["detail"][2] == "no field"


@BOTH
def test_entries_beyond_the_limits_are_refused_whole(only_slow: bool) -> None:
    line = text(data={"n": 1, "x": "y" * 500})
    used = history(events_per_entry_max=3, entry_bytes_max=5 * len(line))
    good = b"\n".join([line] * 3) + b"\n"
    long = b"\n".join([line, b" " * 5 * len(line)])
    batch = batch_of([good, good + line, long], [EVENTS] * 3)
    events, rejects = decode_one_shard(batch, used, only_slow=only_slow)
    assert len(events) == 3
    rejects = rejects.filter("counted")
    assert rejects.select("entry_seq", "reason").rows() == [(1, "malformed_entry"), (2, "malformed_entry")]
    assert "at most 3" in rejects["detail"][0]
    assert "bytes" in rejects["detail"][1]


@BOTH
def test_shards_hold_everything_once_in_position_order(only_slow: bool) -> None:
    lines = [text(id=str(number)) if number % 7 else b"{}" for number in range(200)]
    decoded = Decoder(history(), STREAMS, 4, path=path_of(only_slow)).decode(batch_of(lines))
    assert [shard for shard, _ in decoded] == [0, 1, 2, 3]
    for shard, batch in decoded:
        assert (batch.events["identity_lo"] % 4 == shard).all()
        assert (batch.rejects["stream"] % 4 == shard).all()
        assert batch.events["entry_seq"].is_sorted()
        assert batch.rejects["entry_seq"].is_sorted()
        assert batch.rejects.schema == pl.Schema(REJECT_SCHEMA)
        assert batch.events.schema == decoded[0][1].events.schema
    seen = [seq for _, batch in decoded for seq in batch.events["entry_seq"].to_list()]
    refused = [seq for _, batch in decoded for seq in batch.rejects["entry_seq"].to_list()]
    assert sorted(seen + refused) == list(range(200))
    assert sorted(refused) == list(range(0, 200, 7))


@BOTH
def test_exception_rows_go_with_their_event_so_that_dedupe_can_drop_them(only_slow: bool) -> None:
    lines = [text(id=str(number), data={"n": -5, "user": "u", "deep": {"n": 1}}) for number in range(100)]
    decoded = Decoder(history(), STREAMS, 4, path=path_of(only_slow)).decode(batch_of([*lines, b"{}"]))
    assert [shard for shard, _ in decoded] == [0, 1, 2, 3]
    for _, batch in decoded:
        exceptions = batch.rejects.filter(~pl.col("counted"))
        assert exceptions["entry_seq"].to_list() == batch.events["entry_seq"].to_list()
    assert [shard for shard, batch in decoded if batch.rejects["counted"].any()] == [3]


def test_batch_boundaries_change_nothing() -> None:
    lines = [text(id=str(number), data={"n": number}) if number % 5 else b'{"id":' for number in range(60)]
    whole = Decoder(history(), STREAMS, 3, path="fast").decode(batch_of(lines))

    def rows(decoded: list[Any]) -> list[tuple[Any, ...]]:
        return sorted(
            (shard, *row) for shard, batch in decoded for row in batch.events.select(pl.exclude("x")).iter_rows()
        )

    full = batch_of(lines)
    parts: list[Any] = []
    for start in range(0, 60, 7):
        end = min(60, start + 7)
        part = RawBatch(
            full.stream[start:end],
            full.entry_ms[start:end],
            full.entry_seq[start:end],
            full.kinds[start:end],
            full.payloads[start:end],
            {},
        )
        parts.extend(Decoder(history(), STREAMS, 3, path="fast").decode(part))
    assert rows(parts) == rows(whole)


@BOTH
def test_a_batch_is_split_where_a_revision_begins(only_slow: bool) -> None:
    first = Revision(Configuration(meters=METERS[:1]))
    second = Revision(Configuration(meters=METERS[1:2], rules=Rules(future_s=0)), known_from_ms=NOW_MS + 2)
    lines = [text(id=str(number), time="2026-10-31T10:01:00Z") for number in range(4)]
    lines[3] = text(id="3", time=NOW)
    batch = batch_of(lines, entry_ms=[NOW_MS, NOW_MS + 1, NOW_MS + 2, NOW_MS + 3])
    decoded = Decoder(History([second, first]), STREAMS, 1, path=path_of(only_slow)).decode(batch)
    assert [shard for shard, _ in decoded] == [0, 0]
    assert decoded[0][1].events["id"].to_list() == ["0", "1"]
    assert decoded[0][1].events.columns[len(EVENT_SCHEMA) :] == ["v:total", "d:total"]
    assert decoded[1][1].events["id"].to_list() == ["3"]
    assert decoded[1][1].events.columns[len(EVENT_SCHEMA) :] == ["v:signed", "d:signed"]
    assert decoded[1][1].rejects["reason"].to_list() == ["future_time"]


def test_by_default_the_size_of_a_batch_changes_nothing() -> None:
    lines = [text(id=str(number), data={"n": number, "x": "y" * number}) for number in range(400)]
    by_default: list[tuple[Any, ...]] = []
    for start, end in ((0, 1), (1, 32), (32, 64), (64, 400)):
        for _, batch in Decoder(history(), STREAMS, 1).decode(batch_of(lines[start:end])):
            by_default.extend(batch.events.select("id", "content", "identity_lo", "v:total", "d:total").rows())
    whole = Decoder(history(), STREAMS, 1, path="slow").decode(batch_of(lines))[0][1].events
    assert by_default == whole.select("id", "content", "identity_lo", "v:total", "d:total").rows()


def test_empty_batches_and_batches_of_rejects() -> None:
    assert Decoder(history(), STREAMS, 4, path="fast").decode(batch_of([])) == []
    decoded = Decoder(history(), STREAMS, 4, path="fast").decode(batch_of([b"x"]))
    assert [(shard, len(batch.events), len(batch.rejects)) for shard, batch in decoded] == [(0, 0, 1)]
    assert np.isin(list(EVENT_SCHEMA), decoded[0][1].events.columns).all()
