"""Ingest against a real Valkey: by the public clients of OpenMeter and CloudEvents, and by hand."""

import datetime as dt
import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import redis
import structlog
from cloudevents.conversion import to_binary, to_structured
from cloudevents.http import CloudEvent
from corehttp.exceptions import HttpResponseError
from openmeter import Client
from openmeter.models import Event

from config.settings import RedisSettings
from console.intake import FORBIDDEN_TENANT
from console.services import Services, open_services
from core.clock import SystemClock
from sources.sending import stream_of
from tests.console.conftest import bearer, make_token
from tests.console.server import serving

Stored = list[tuple[str, str, dict[str, Any]]]
"""Stream, request id, event."""


def _event(number: int, subject: str = "acme", **more: Any) -> dict[str, Any]:
    now = dt.datetime.now(dt.UTC).isoformat()
    plain = {"specversion": "1.0", "id": f"e-{number}", "source": "/test", "type": "llm.completion"}
    return plain | {"subject": subject, "time": now, "data": {"input_tokens": number, "model": "m"}} | more


@pytest.fixture
def stored(redis_url: str) -> Iterator[Any]:
    """Read what the streams hold."""
    with redis.Redis.from_url(redis_url) as client:

        def read() -> Stored:
            found: Stored = []
            for stream in RedisSettings().streams:
                for _, fields in client.xrange(stream):
                    lines = fields.get(b"events", fields.get(b"event", b"")).split(b"\n")
                    request = fields[b"request"].decode()
                    found += [(stream, request, json.loads(line)) for line in lines]
            return found

        yield read


def test_the_openmeter_client_works_unchanged(live_services: Services, stored: Any) -> None:
    with serving(live_services) as address:
        client = Client(endpoint=address, token=make_token(live_services, "producer"))
        one = Event(id="om-1", source="sdk", specversion="1.0", type="llm.completion", subject="acme",
                    time=dt.datetime.now(dt.UTC), data={"input_tokens": 5, "model": "m"})  # fmt: skip
        many = [
            Event(
                id=f"om-{number}",
                source="sdk",
                specversion="1.0",
                type="llm.completion",
                subject=f"t{number}",
                data={"input_tokens": number},
            )
            for number in range(2, 40)
        ]
        client.events.ingest_event(one)
        client.events.ingest_events(many)
        client.events.ingest_events_json(one)
        bad = Event(id="om-99", source="sdk", specversion="1.0", type="llm.completion", subject="", data={})
        with pytest.raises(HttpResponseError):
            client.events.ingest_event(bad)
        with pytest.raises(HttpResponseError):
            client.events.ingest_events([one, bad])
    found = stored()
    assert sorted({event["id"] for _, _, event in found}, key=lambda name: int(name[3:])) == [
        f"om-{number}" for number in range(1, 40)
    ]
    for stream, _, event in found:
        assert stream == stream_of(event["subject"], RedisSettings().streams)


@pytest.mark.parametrize("form", [to_structured, to_binary])
def test_the_cloudevents_library_works_unchanged(
    live_services: Services, live_client: httpx.Client, stored: Any, form: Any
) -> None:
    attributes = {"type": "llm.completion", "source": "/sdk", "subject": "acmé €"}
    event = CloudEvent(attributes, {"input_tokens": 7, "model": "m"})
    headers, body = form(event)
    headers = {
        name: value.encode() for name, value in (dict(headers) | bearer(make_token(live_services, "producer"))).items()
    }
    if form is to_binary:
        headers = dict(headers) | {"content-type": b"application/json", "ce-subject": b"acm%C3%A9%20%E2%82%AC"}
    answer = live_client.post("/api/v1/events", headers=headers, content=body)
    assert answer.status_code == 204, answer.text
    ((_, _, plain),) = stored()
    assert (plain["id"], plain["subject"], plain["data"]["input_tokens"]) == (event["id"], "acmé €", 7)


def _post(client: httpx.Client, token: str, events: Any, **headers: str) -> httpx.Response:
    sent = bearer(token) | {"Content-Type": "application/json"} | headers
    body = events if isinstance(events, bytes) else json.dumps(events).encode()
    return client.post("/api/v1/events", headers=sent, content=body)


def test_bad_ones_are_named_and_good_ones_kept(live_services: Services, live_client: httpx.Client, stored: Any) -> None:
    token = make_token(live_services, "producer")
    late = (dt.datetime.now(dt.UTC) - dt.timedelta(days=400)).isoformat()
    events = [
        _event(0),
        _event(1, subject=""),
        {"id": "e-2"},
        _event(3, data=[1]),
        _event(4, time=late),
        5,
        _event(6, time=(dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).isoformat()),
        _event(7, "globex"),
    ]
    answer = _post(live_client, token, events, **{"X-Request-Id": "req-7"})
    assert answer.status_code == 207, answer.text
    plain = answer.json()
    assert plain["accepted"] == 2
    assert [(one["index"], one["id"], one["reason"]) for one in plain["refused"]] == [
        (1, "e-1", "invalid_field"),
        (2, "e-2", "missing_field"),
        (3, "e-3", "invalid_field"),
        (4, "e-4", "too_old"),
        (5, None, "malformed_json"),
        (6, "e-6", "future_time"),
    ]
    assert sorted((request, event["id"]) for _, request, event in stored()) == [("req-7", "e-0"), ("req-7", "e-7")]


def test_none_good_is_an_error(live_services: Services, live_client: httpx.Client, stored: Any) -> None:
    answer = _post(live_client, make_token(live_services, "producer"), _event(1, time="yesterday"))
    assert (answer.status_code, answer.json()["code"]) == (400, "events_refused")
    assert answer.json()["refused"][0]["reason"] == "invalid_field"
    assert stored() == []


def test_a_token_of_single_tenants_sends_for_them_only(
    live_services: Services, live_client: httpx.Client, stored: Any
) -> None:
    token = make_token(live_services, "producer", "acme")
    # Of equal keys the last counts: what is checked is what the flow will read.
    twice = b'{"subject": "acme", ' + json.dumps(_event(3, "globex")).encode()[1:]
    events = b"[" + b",".join([json.dumps(_event(1)).encode(), json.dumps(_event(2, "globex")).encode(), twice]) + b"]"
    answer = _post(live_client, token, events)
    assert answer.status_code == 207
    assert [(one["index"], one["reason"]) for one in answer.json()["refused"]] == [
        (1, FORBIDDEN_TENANT), (2, FORBIDDEN_TENANT),
    ]  # fmt: skip
    assert [event["id"] for _, _, event in stored()] == ["e-1"]
    void = _event(4, type="meterbridge.void", data=_event(2, "globex"))
    refused = _post(live_client, token, void)
    assert (refused.status_code, refused.json()["refused"][0]["reason"]) == (400, "invalid_field")


@pytest.mark.parametrize("role", ["viewer", "operator", "approver"])
def test_other_roles_may_not_send(live_services: Services, live_client: httpx.Client, role: str) -> None:
    assert _post(live_client, make_token(live_services, role), _event(1)).status_code == 403


def test_limits_are_said(live_services: Services, live_client: httpx.Client) -> None:
    token, limits = make_token(live_services, "producer"), live_services.settings.console
    large = _post(live_client, token, b" " * (limits.body_bytes_max + 1))
    assert (large.status_code, large.json()["code"]) == (413, "body_too_large")
    many = _post(live_client, token, b"[" + b",".join([b"{}"] * (limits.batch_events_max + 1)) + b"]")
    assert (many.status_code, many.json()["code"]) == (413, "body_too_large")
    assert _post(live_client, token, b"x", **{"Content-Type": "text/csv"}).status_code == 415
    assert _post(live_client, token, b"[").status_code == 400
    assert _post(live_client, token, []).status_code == 204


def test_too_many_events_are_asked_to_come_later(live_services: Services) -> None:
    slow = live_services.settings.console.model_copy(update={"events_per_s_max": 10.0})
    live_services.close()
    services = open_services(live_services.settings.model_copy(update={"console": slow}), SystemClock())
    with serving(services) as address, httpx.Client(base_url=address) as client:
        token = make_token(services, "producer")
        assert _post(client, token, [_event(number) for number in range(40)]).status_code == 204
        refused = _post(client, token, [_event(number) for number in range(40)])
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
        assert 1 <= int(refused.headers["retry-after"]) <= 5


def test_redis_away_is_503_and_nothing_pretended(live_services: Services) -> None:
    away = RedisSettings(url="redis://127.0.0.1:9/0", connect_timeout_s=1)
    live_services.close()
    services = open_services(live_services.settings.model_copy(update={"redis": away}), SystemClock())
    with serving(services) as address, httpx.Client(base_url=address) as client:
        answer = _post(client, make_token(services, "producer"), [_event(1)])
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert "retry-after" in answer.headers
        assert "127.0.0.1:9" in answer.json()["detail"]


def test_many_at_once_are_answered_each_for_itself(
    live_services: Services, live_client: httpx.Client, stored: Any
) -> None:
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    token = make_token(live_services, "producer")

    def one(number: int) -> tuple[int, list[int]]:
        events = [_event(number * 10 + place, f"t{place}") for place in range(5)]
        if number % 3 == 0:
            events[number % 5]["type"] = ""
        answer = _post(live_client, token, events)
        refused = [one["index"] for one in answer.json()["refused"]] if answer.status_code == 207 else []
        return answer.status_code, refused

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(one, range(60)))
    for number, (status, refused) in enumerate(answers):
        assert (status, refused) == ((207, [number % 5]) if number % 3 == 0 else (204, []))
    assert len(stored()) == 60 * 5 - 20


def test_a_body_that_does_not_come_is_not_waited_for(live_services: Services) -> None:
    impatient = live_services.settings.console.model_copy(update={"request_s_max": 0.3})
    live_services.close()
    services = open_services(live_services.settings.model_copy(update={"console": impatient}), SystemClock())
    with serving(services) as address:
        token = make_token(services, "producer")
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(
                f"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
                f"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n[".encode()
            )
            answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"code":"too_slow"' in answer


def test_a_caller_that_goes_away_is_no_failure(
    live_services: Services, live_client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    token = make_token(live_services, "producer")
    place = (live_client.base_url.host, live_client.base_url.port or 0)
    with structlog.testing.capture_logs() as logs:
        with socket.create_connection(place, timeout=10) as connection:
            connection.sendall(
                f"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
                f"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n[".encode()
            )
        assert _post(live_client, token, [_event(1)]).status_code == 204, "the service goes on"
    assert not [one for one in logs if one["log_level"] in ("error", "critical")]
    assert not caplog.records
