"""Who may ask: tokens, sessions, roles, and whose page asked."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import httpx
import pytest
from sqlalchemy.event import listen

from config.settings import Settings
from console.auth import COOKIE, PERMISSIONS, WRONG_PER_S, Authenticator
from console.limits import BURST_S
from console.problems import Problem
from console.services import Services, open_services
from core.clock import ManualClock, SystemClock
from sinks import ledger
from sinks.ledger import tokens
from sinks.ledger.tokens import ROLES
from tests.console.conftest import bearer, make_token, same_origin
from tests.console.server import serving

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


def test_a_token_has_its_rate(settings: Settings) -> None:
    ledger.migrate(settings.ledger_url)
    slow = settings.console.model_copy(update={"requests_per_s_max": 0.01})
    services = open_services(settings.model_copy(update={"console": slow}), SystemClock())
    with serving(services) as address, httpx.Client(base_url=address) as client:
        first, second = make_token(services), make_token(services)
        assert client.get("/api/v1/me", headers=bearer(first)).status_code == 200
        refused = client.get("/api/v1/me", headers=bearer(first))
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
        assert 90 <= int(refused.headers["retry-after"]) <= 101
        assert client.get("/api/v1/me", headers=bearer(second)).status_code == 200


def test_a_browser_logs_in_and_out(client: httpx.Client, token_text: MakeToken) -> None:
    assert client.get("/").headers["location"] == "/login"
    assert client.get("/?a=1&b=2").headers["location"] == "/login?next=%2F%3Fa%3D1%26b%3D2"
    done = client.post("/login?next=%2F%3Fa%3D1", data={"token": token_text("viewer")}, headers=same_origin(client))
    assert (done.status_code, done.headers["location"]) == (303, "/?a=1")
    cookie = done.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert client.get("/").status_code != 303, "it is a page, and not the way to the login"
    assert client.get("/api/v1/me").status_code == 200, "a page's scripts may ask the API"
    assert client.post("/logout").status_code == 403, "a page of another site may not log anybody out"
    assert client.post("/logout", headers=same_origin(client)).headers["location"] == "/login"
    assert client.get("/").status_code == 303


def test_a_session_ends_with_its_token(client: httpx.Client, services: Services, token_text: MakeToken) -> None:
    text = token_text("viewer")
    client.post("/login", data={"token": text}, headers=same_origin(client))
    assert client.get("/api/v1/me").status_code == 200
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


def test_logins_that_succeed_do_not_slow_down(client: httpx.Client, token_text: MakeToken) -> None:
    text = token_text("viewer")
    done = [client.post("/login", data={"token": text}, headers=same_origin(client)).status_code for _ in range(6)]
    assert done == [303] * 6


@pytest.mark.parametrize(("proxies", "another"), [(("127.0.0.1",), 401), ((), 429)])
def test_callers_behind_a_proxy_are_told_apart_if_it_is_named(
    settings: Settings, proxies: tuple[str, ...], another: int
) -> None:
    ledger.migrate(settings.ledger_url)
    behind = settings.console.model_copy(update={"proxies": proxies})
    services = open_services(settings.model_copy(update={"console": behind}), SystemClock())
    with serving(services) as address, httpx.Client(base_url=address) as client:

        def log_in(caller: str) -> int:
            headers = same_origin(client) | {"X-Forwarded-For": caller}
            return client.post("/login", data={"token": "x"}, headers=headers).status_code

        assert [log_in("198.51.100.1") for _ in range(3)] == [401, 401, 429]
        assert log_in("198.51.100.2") == another


async def _try_unknown(authenticator: Authenticator) -> int:
    for number in range(1000):
        try:
            assert await authenticator.token_named(f"mb_{'a' * 12}_{number:043d}", "here") is None
        except Problem as problem:
            return number if problem.code == "too_many_requests" else -1
    return 1000


def test_trying_unknown_tokens_slows_down_only_those(settings: Settings) -> None:
    ledger.migrate(settings.ledger_url)
    clock = ManualClock(datetime(2026, 11, 24, tzinfo=UTC))
    services = open_services(settings, clock)
    good = make_token(services)
    authenticator = services.authenticator

    async def tries() -> tuple[int, int]:
        assert await authenticator.token_named(good, "here") is not None
        tried = await _try_unknown(authenticator)
        assert await authenticator.token_named(good, "here") is not None, "who is known goes on"
        assert await authenticator.token_named("no token at all", "here") is None
        assert await authenticator.token_named(f"mb_{'b' * 12}_{0:043d}", "elsewhere") is None
        clock.sleep(10)
        assert await authenticator.token_named(f"mb_{'c' * 12}_{0:043d}", "here") is None
        return tried, len(authenticator._remembered)

    tried, remembered = asyncio.run(tries())
    services.close()
    assert tried == WRONG_PER_S * BURST_S
    assert remembered <= tried + 3


def test_who_ask_at_the_same_time_ask_the_ledger_once(services: Services) -> None:
    text = make_token(services)
    asked: list[str] = []
    listen(services.pool.engine, "before_cursor_execute", lambda *args: asked.append(args[2]))

    async def together() -> set[str]:
        found = await asyncio.gather(*(services.authenticator.token_named(text, "here") for _ in range(20)))
        return {token.id for token in found if token is not None}

    assert len(asyncio.run(together())) == 1
    assert len([statement for statement in asked if "api_tokens" in statement]) == 1
    services.close()


def test_what_was_asked_before_something_ended_is_not_remembered(services: Services) -> None:
    text = make_token(services)
    authenticator = services.authenticator

    async def scene() -> tuple[bool, int]:
        asking = asyncio.ensure_future(authenticator.token_named(text, "here"))
        await asyncio.sleep(0)  # it asks
        authenticator.forget()
        return await asking is not None, len(authenticator._remembered)

    assert asyncio.run(scene()) == (True, 0)
    services.close()


def test_a_caller_that_goes_away_takes_the_answer_from_nobody(services: Services) -> None:
    text = make_token(services)

    async def scene() -> bool:
        first, second = (asyncio.ensure_future(services.authenticator.token_named(text, "here")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        return await second is not None

    assert asyncio.run(scene())
    services.close()
