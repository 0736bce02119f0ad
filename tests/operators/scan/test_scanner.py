"""What the compiled path takes and what it leaves; that it agrees is in `test_decode_agreement`."""

import json
from pathlib import Path

import pytest

pytest.importorskip("numba")

from operators.decode import Decoder
from operators.decode_entries import lines_of
from operators.decode_plan import RevisionPlan
from operators.decode_scan import Compiled
from tests.operators.decode_cases import COMPILED, STREAMS, assert_paths_agree, batch_of, event, history, text


def taken(lines: list[bytes]) -> list[int]:
    """Return the places of the lines that the compiled path decodes."""
    plan = RevisionPlan(history().latest)
    scanner = COMPILED.scanner(plan, len(lines), at_once=True)
    assert scanner is not None
    batch = batch_of(lines)
    found = scanner.decode(lines_of(batch, 0, len(lines), 1 << 20, 1000))
    return [] if found is None else sorted(row for row in found.rows.tolist() if row < len(lines))


PLAIN = [
    text(),
    text(time=None),
    text(time="2026-10-31T10:00:00.123456Z"),
    text(time="2026-10-31T12:00:00+02:00"),
    text(type="other", data={"x": [1, {"y": [[], {}]}, None, True, -0.5]}),
    text(subject="Zoë", source="日本", id="😀"),
    text(dataschema="https://example.org/s", datacontenttype="application/json", trace={"a": [1, "b"]}),
    text(data={"n": "12.500000000001", "deep": {"n": -3}, "model": True, "user": 5, "region": "eu"}),
    text(data={"n": 0.25, "model": "x" * 500}),
    json.dumps(event()).encode(),
    text(id="x" * 300),
]


def test_what_plain_producers_send_is_taken() -> None:
    assert taken(PLAIN) == list(range(len(PLAIN)))
    assert_paths_agree(PLAIN * 3)


LEFT = [
    text(id='a"b'),
    text(id=""),
    text(subject="a\x80b"),
    text(time="2026-10-31t10:00:00z"),
    text(time="2026-12-31T10:00:00Z"),
    text(type="meterbridge.void", data={}),
    text(data={"n": 1e30}),
    text(data={"n": "many"}),
    text(data={"n": 1, "model": 1.5}),
    text(data={"n": 1, "model": {}}),
    text().replace(b'"id"', b'"id":"first","id"'),
    text()[:-1],
    text() + b" x",
    b"",
    b"{}",
]


def test_what_is_left_is_decoded_by_the_others() -> None:
    assert taken(LEFT) == []
    mixed = [line for pair in zip(PLAIN, LEFT, strict=False) for line in pair]
    assert taken(mixed) == list(range(0, len(mixed), 2))
    assert_paths_agree(mixed * 2)


def test_lines_that_are_not_utf8_leave_the_ascii_ones() -> None:
    bad = text(id="e").replace(b'"e"', b'"\xff"')
    assert taken([text(), bad, text(subject="Zoë"), text()]) == [0, 3]
    # A sequence begun in one line and ended in the next makes both invalid.
    assert taken([text()[:-1] + b"\xc3", b"\xa9" + text(), text()]) == [2]


def test_it_is_loaded_once_that_pays(tmp_path: Path) -> None:
    plan = RevisionPlan(history().latest)
    compiled = Compiled(tmp_path, lines_before=1000)
    assert compiled.scanner(plan, 999) is None
    assert compiled.scanner(plan, 10) is None, "a small batch gains nothing"
    assert compiled.scanner(plan, 1_000) is not None


def test_without_it_everything_is_decoded_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        message = "no numba here"
        raise ImportError(message)

    monkeypatch.setattr("operators.decode_scan.keep_in", refuse)
    decoder = Decoder(history(), STREAMS, 1, path="scan", compiled=Compiled(tmp_path))
    for _ in range(2):
        [(_, batch)] = decoder.decode(batch_of(PLAIN))
        assert len(batch.events) == len(PLAIN)
