"""The frame around every request: ids, problems, headers, pages, health."""

from collections.abc import Callable

import httpx
import pytest

from console.app import STATIC
from console.pages.base import TEMPLATES
from tests.console.conftest import bearer, same_origin

MakeToken = Callable[..., str]


def test_an_unknown_path_is_a_problem(client: httpx.Client) -> None:
    answer = client.get("/api/v1/nothing")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    plain = answer.json()
    assert plain["code"] == "not_found"
    assert plain["request_id"] == answer.headers["x-request-id"]


def test_a_wrong_method_is_a_problem(client: httpx.Client) -> None:
    answer = client.put("/api/v1/me")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize("given", ["build-42/7", "a" * 128])
def test_the_callers_request_id_is_kept(client: httpx.Client, given: str) -> None:
    assert client.get("/health/live", headers={"X-Request-Id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a" * 129, "a b", "ä", '"'])
def test_an_unusable_request_id_is_replaced(client: httpx.Client, given: str) -> None:
    found = client.get("/health/live", headers={b"X-Request-Id": given.encode("utf-8")}).headers["x-request-id"]
    assert len(found) == 32


def test_an_unknown_parameter_is_no_secret_typing_error(client: httpx.Client, token_text: MakeToken) -> None:
    answer = client.get("/api/v1/me?tenat=acme", headers=bearer(token_text()))
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert "tenat" in answer.json()["detail"]


def test_answers_are_safe_for_browsers(client: httpx.Client) -> None:
    for path in ("/login", "/api/v1/me", "/static/console.css", "/health/live"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


def test_templates_hold_no_inline_script_style_or_foreign_address() -> None:
    for path in [*TEMPLATES.rglob("*.html"), *STATIC.rglob("*.css")]:
        text = path.read_text()
        for forbidden in ("style=", "<style", "onclick=", "onload=", "javascript:", "<script>", "https://", "//cdn"):
            assert forbidden not in text, (path.name, forbidden)


def test_health(client: httpx.Client) -> None:
    assert client.get("/health/live").json() == {"live": True}
    assert client.get("/health/ready").json() == {"ready": True}


def test_a_page_without_clickhouse_is_a_page_that_says_so(client: httpx.Client, token_text: MakeToken) -> None:
    client.post("/login", data={"token": token_text()}, headers=same_origin(client))
    answer = client.get("/")
    assert answer.status_code == 503
    assert "a viewer &middot; viewer" in answer.text
    assert "Try again" in answer.text


def test_the_openapi_document_names_what_is_served(client: httpx.Client) -> None:
    document = client.get("/api/v1/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    operation = document["paths"]["/api/v1/me"]["get"]
    assert operation["operationId"] == "get_me"
    assert set(operation["responses"]) >= {"200", "401", "403", "429"}
    assert "Me" in document["components"]["schemas"]
