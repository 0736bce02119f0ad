"""Bodies as events: what the public libraries send, and what must not get through."""

import json
from typing import Any

import pytest
from cloudevents.conversion import to_binary, to_structured
from cloudevents.http import CloudEvent
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from console.cloudevents import BATCH, PLAIN, STRUCTURED, events_of
from console.problems import Problem

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=10)
DATA = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def _headers(**values: str) -> Headers:
    return Headers({name.replace("_", "-"): value for name, value in values.items()})


@given(st.dictionaries(TEXT, DATA, max_size=4))
def test_structured_and_binary_mode_of_the_public_library_mean_the_same(data: dict[str, Any]) -> None:
    attributes = {"source": "/a", "type": "t", "subject": "acme", "id": "1", "time": "2026-11-24T10:00:00+00:00"}
    event = CloudEvent(attributes, data)
    found = []
    for headers, body in (to_structured(event), to_binary(event)):
        named = Headers({"content-type": "application/json"} | dict(headers))
        (raw,) = events_of(named, body)
        plain = json.loads(raw)
        plain.pop("datacontenttype", None)
        found.append(plain)
    assert found[0] == found[1]
    assert found[0]["data"] == data


def test_percent_encoded_attributes_are_read() -> None:
    headers = _headers(ce_specversion="1.0", ce_id="a%20%E2%82%AC", ce_subject='"q"', content_type=PLAIN)
    assert json.loads(events_of(headers, b"{}")[0]) == {
        "specversion": "1.0", "id": "a €", "subject": "q", "datacontenttype": PLAIN, "data": {},
    }  # fmt: skip


@given(st.lists(st.dictionaries(TEXT, DATA, max_size=3), max_size=5), st.sampled_from([None, 2]))
def test_a_batch_is_taken_apart_into_its_events(events: list[dict[str, Any]], indent: int | None) -> None:
    body = json.dumps(events, indent=indent).encode()
    for media in (BATCH, f"{BATCH}; charset=UTF-8", PLAIN):
        assert [json.loads(raw) for raw in events_of(_headers(content_type=media), body)] == events


def test_one_event_is_handed_on_as_it_is() -> None:
    for media in (STRUCTURED, PLAIN, PLAIN.upper()):
        assert events_of(_headers(content_type=media), b'{"id": tru}') == [b'{"id": tru}']


@pytest.mark.parametrize("body", [b'1},"subject":"other"', b'{}},{"id":2', b"", b"{} {}", b"\xff", b"NaN"])
def test_data_cannot_break_out_of_the_event(body: bytes) -> None:
    headers = _headers(ce_specversion="1.0", ce_id="1", ce_subject="acme", content_type=PLAIN)
    with pytest.raises(Problem, match="malformed_body"):
        events_of(headers, body)


@pytest.mark.parametrize("body", [b"[", b"{}", b"[1,]", b"", b'[{"a":tru}]', b"[" * 100_000])
def test_what_is_no_array_is_no_batch(body: bytes) -> None:
    with pytest.raises(Problem, match="malformed_body"):
        events_of(_headers(content_type=BATCH), body)


@pytest.mark.parametrize(
    "headers",
    [
        _headers(),
        _headers(content_type="text/plain"),
        _headers(content_type="application/cloudevents+avro"),
        _headers(content_type=PLAIN, content_encoding="gzip"),
        _headers(ce_specversion="1.0", content_type="text/plain"),
        _headers(ce_specversion="1.0"),
    ],
)
def test_other_media_types_are_refused(headers: Headers) -> None:
    with pytest.raises(Problem, match="unsupported_media_type"):
        events_of(headers, b"{}")
