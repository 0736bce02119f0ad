"""What a failed exchange proves, against real sockets and a real HTTP client."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from config.erp_options import Credential, RestAuth
from core.errors import ConfigError
from sinks.erp.http_calls import Answer, Authorization, HttpCalls, authorization, failed, retry_after_s
from sinks.erp.port import NotSent, Throttled, Unknown

SECRET = "s3cret-value"  # noqa: S105


def serving(answer: bytes) -> tuple[str, Callable[[], None]]:
    """Listen on a free port and answer every connection with these bytes; return URL and the end."""
    server = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    threading.Thread(target=run, daemon=True).start()
    return f"http://127.0.0.1:{server.getsockname()[1]}", server.close


def calls(url: str, timeout_s: float = 2) -> HttpCalls:
    return HttpCalls(url, lambda: Authorization({"Authorization": f"Bearer {SECRET}"}, (SECRET,)), timeout_s)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
    ],
)
def test_an_answer_that_is_not_whole_is_unknown(answer: bytes) -> None:
    url, end = serving(answer)
    try:
        assert isinstance(calls(url).send("POST", "/x", body=b"{}"), Unknown)
    finally:
        end()


def test_no_connection_proves_that_nothing_was_sent() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{server.getsockname()[1]}"
    server.close()
    outcome = calls(url).send("POST", "/x", body=b"{}")
    assert isinstance(outcome, NotSent)
    assert "cannot be reached" in outcome.why
    assert isinstance(calls("http://name-that-does-not-exist.invalid").send("GET", "/"), NotSent)


def test_a_credential_no_header_can_carry_is_neither_sent_nor_shown() -> None:
    for secret in ("sécret-ключ", "two\nlines"):
        proof = Authorization({"Authorization": f"Bearer {secret}"}, (secret,))
        outcome = HttpCalls("http://127.0.0.1:9", lambda proof=proof: proof, 1).send("GET", "/")  # type: ignore[misc]
        assert isinstance(outcome, NotSent)
        assert secret not in outcome.why


def test_a_silent_server_is_unknown() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    try:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert isinstance(calls(url, timeout_s=0.2).send("POST", "/x", body=b"{}"), Unknown)
    finally:
        server.close()


def test_a_secret_that_comes_back_is_hidden() -> None:
    text = f"Authorization: Bearer {SECRET}".encode()
    url, end = serving(b"HTTP/1.1 401 No\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
    try:
        answer = calls(url).send("GET", "/")
        assert isinstance(answer, Answer)
        assert SECRET not in answer.shown + answer.raw + repr(answer) + str(failed(answer))
        assert isinstance(failed(answer), NotSent)
    finally:
        end()


def test_too_large_an_answer_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sinks.erp.http_calls.ANSWER_BYTES_MAX", 10)
    url, end = serving(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n" + b"x" * 20)
    try:
        outcome = calls(url).send("GET", "/")
        assert isinstance(outcome, Unknown)
        assert "larger than 10 bytes" in outcome.why
    finally:
        end()


def test_a_missing_credential_sends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auth = RestAuth(credential=Credential(file=tmp_path / "token"))
    sent: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json={})

    client = HttpCalls("http://erp", lambda: authorization(auth), 1, transport=httpx.MockTransport(handler))
    outcome = client.send("GET", "/")
    assert isinstance(outcome, NotSent)
    assert str(tmp_path / "token") in outcome.why
    assert sent == []
    (tmp_path / "token").write_text("one\n")
    assert isinstance(client.send("GET", "/"), Answer)
    (tmp_path / "token").write_text("two\n")  # renewed: read anew for every call
    client.send("GET", "/")
    assert [request.headers["authorization"] for request in sent] == ["Bearer one", "Bearer two"]
    monkeypatch.setenv("ERP_TOKEN", "three")
    named = Credential(environment="ERP_TOKEN")
    assert authorization(RestAuth(kind="basic", username="u", credential=named)).headers == {
        "Authorization": "Basic dTp0aHJlZQ=="
    }
    assert authorization(RestAuth(kind="header", header="X-Key", credential=named)).headers == {"X-Key": "three"}
    assert authorization(RestAuth(kind="none")).headers == {}
    monkeypatch.delenv("ERP_TOKEN")
    with pytest.raises(ConfigError, match="ERP_TOKEN"):
        named.read()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, None), (204, None), (400, None), (404, None), (409, None), (422, None),
        (401, NotSent), (403, NotSent), (407, NotSent),
        (423, Throttled), (425, Throttled), (429, Throttled),
        (302, Unknown), (408, Unknown), (500, Unknown), (502, Unknown), (503, Unknown), (504, Unknown),
    ],
)  # fmt: skip
def test_what_a_status_alone_proves(status: int, kind: type | None) -> None:
    found = failed(Answer(status, {}, "body"))
    assert found is None if kind is None else isinstance(found, kind)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "999999"}, 3600.0),
        ({"retry-after": "Tue, 24 Nov 2026 10:00:30 GMT", "date": "Tue, 24 Nov 2026 10:00:00 GMT"}, 30.0),
        ({"retry-after": "Tue, 24 Nov 2026 09:00:00 GMT", "date": "Tue, 24 Nov 2026 10:00:00 GMT"}, 0.0),
        ({"retry-after": "Tue, 24 Nov 2026 10:00:30 GMT"}, None),
        ({"retry-after": "soon"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(Answer(429, headers, "")) == seconds
