"""Who may ask: tokens, sessions, roles, and whose page asked."""

from collections.abc import Callable

import httpx
import pytest

from console.auth import COOKIE, PERMISSIONS
from console.services import Services
from sinks.ledger import tokens
from sinks.ledger.tokens import ROLES
from tests.console.conftest import bearer, same_origin

MakeToken = Callable[..., str]


def test_every_role_has_permissions() -> None:
    assert set(PERMISSIONS) == set(ROLES)
    assert PERMISSIONS["admin"] == frozenset().union(*PERMISSIONS.values())
    assert PERMISSIONS["producer"] == {"ingest"}


def test_a_token_says_what_it_may_do(client: httpx.Client, token_text: MakeToken) -> None:
    answer = client.get("/api/v1/me", headers=bearer(token_text("operator", "acme", "globex")))
    assert answer.status_code == 200, answer.text
    plain = answer.json()
    assert (plain["role"], plain["permissions"]) == ("operator", ["operate", "read"])
    assert plain["tenants"] == ["acme", "globex"]


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer nonsense", "Basic {}", "{}"])
def test_without_a_token_in_force_nothing_is_told(
    client: httpx.Client, token_text: MakeToken, header: str | None
) -> None:
    text = token_text()
    headers = {} if header is None else {"Authorization": header.format(text)}
    answer = client.get("/api/v1/me", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["code"] == "unauthenticated"
    assert text not in answer.text


def test_a_role_may_do_its_own_only(client: httpx.Client, token_text: MakeToken) -> None:
    answer = client.get("/api/v1/me", headers=bearer(token_text("producer")))
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_a_revoked_token_ends(client: httpx.Client, services: Services, token_text: MakeToken) -> None:
    text = token_text()
    assert client.get("/api/v1/me", headers=bearer(text)).status_code == 200
    tokens.revoke(services.pool.engine, text.split("_")[1], actor="me", reason="lost", now=services.clock.now())
    services.authenticator.forget()
    assert client.get("/api/v1/me", headers=bearer(text)).status_code == 401


def test_a_token_has_its_rate(client: httpx.Client, token_text: MakeToken) -> None:
    first, second = token_text(), token_text()
    answers = [client.get("/api/v1/me", headers=bearer(first)).status_code for _ in range(250)]
    assert answers[:200] == [200] * 200
    assert 429 in answers
    refused = client.get("/api/v1/me", headers=bearer(first))
    if refused.status_code == 429:
        assert int(refused.headers["retry-after"]) >= 1
    assert client.get("/api/v1/me", headers=bearer(second)).status_code == 200


def test_a_browser_logs_in_and_out(client: httpx.Client, token_text: MakeToken) -> None:
    assert client.get("/").headers["location"] == "/login"
    assert client.get("/?a=1&b=2").headers["location"] == "/login?next=%2F%3Fa%3D1%26b%3D2"
    done = client.post("/login?next=%2F%3Fa%3D1", data={"token": token_text("viewer")}, headers=same_origin(client))
    assert (done.status_code, done.headers["location"]) == (303, "/?a=1")
    cookie = done.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert client.get("/").status_code == 200
    assert client.get("/api/v1/me").status_code == 200, "a page's scripts may ask the API"
    assert client.post("/logout").status_code == 403, "a page of another site may not log anybody out"
    assert client.post("/logout", headers=same_origin(client)).headers["location"] == "/login"
    assert client.get("/").status_code == 303


def test_a_session_ends_with_its_token(client: httpx.Client, services: Services, token_text: MakeToken) -> None:
    text = token_text("viewer")
    client.post("/login", data={"token": text}, headers=same_origin(client))
    assert client.get("/").status_code == 200
    tokens.revoke(services.pool.engine, text.split("_")[1], actor="me", reason="lost", now=services.clock.now())
    services.authenticator.forget()
    assert client.get("/").headers["location"] == "/login"
    assert COOKIE in client.cookies


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example", "evil", "/a\r\nX: y"])
def test_a_login_leads_to_this_console_only(client: httpx.Client, token_text: MakeToken, target: str) -> None:
    done = client.post("/login", params={"next": target}, data={"token": token_text()}, headers=same_origin(client))
    assert (done.status_code, done.headers["location"]) == (303, "/")


@pytest.mark.parametrize(
    ("role", "headers", "status"),
    [
        ("viewer", {}, 403),
        ("viewer", {"Origin": "http://evil.example"}, 403),
        ("producer", {"Origin": "http://{host}"}, 403),
    ],
)
def test_a_login_is_refused(
    client: httpx.Client, token_text: MakeToken, role: str, headers: dict[str, str], status: int
) -> None:
    sent = {name: value.format(host=client.base_url.netloc.decode()) for name, value in headers.items()}
    answer = client.post("/login", data={"token": token_text(role)}, headers=sent)
    assert answer.status_code == status
    assert "set-cookie" not in answer.headers


def test_wrong_logins_slow_down(client: httpx.Client) -> None:
    statuses = [client.post("/login", data={"token": "x"}, headers=same_origin(client)).status_code for _ in range(4)]
    assert statuses == [401, 401, 429, 429]
