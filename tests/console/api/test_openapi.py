"""The OpenAPI document is complete and true: generated requests get documented answers only, real answers fit it."""

import re
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from console.api import ENDPOINTS
from console.api.openapi import document
from console.endpoint import API, Endpoint
from tests.console.api.conftest import World
from tests.console.api.test_isolation import SPAN, Known, _routes, known

__all__ = ["known"]

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
ENDLESS = {"get_live"}
EXAMPLES = 12


@pytest.fixture(scope="module")
def api_schema(world: World) -> Any:
    plain = document(endpoint for endpoint in ENDPOINTS if endpoint.handler.__name__ not in ENDLESS)
    schema = schemathesis.openapi.from_dict(plain)
    schema.config.update(base_url=str(world.client.base_url).rstrip("/"))
    return schema


@pytest.mark.parametrize(
    "endpoint",
    [one for one in ENDPOINTS if one.handler.__name__ not in ENDLESS],
    ids=lambda endpoint: endpoint.handler.__name__,
)
def test_generated_requests_get_documented_answers(
    world: World, known: Known, api_schema: Any, endpoint: Endpoint
) -> None:
    headers = {"Authorization": world.client.headers["Authorization"]}
    real = {"customer": known.customer, "key": known.document if "documents" in endpoint.path else known.group}
    real |= known.period
    strategy = api_schema[endpoint.path][endpoint.method].as_strategy()
    answered: list[int] = []

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def run(case: Any) -> None:
        answered.append(case.call_and_validate(headers=headers, checks=CHECKS, timeout=30).status_code)
        # Names that exist lead further into the code than generated ones do; acts are left alone.
        if case.path_parameters and case.method == "GET":
            case.path_parameters = {name: real[name] for name in case.path_parameters}
            answered.append(case.call_and_validate(headers=headers, checks=CHECKS, timeout=30).status_code)

    run()
    assert 200 <= max(answered, default=0) < 500, "nothing was asked, or the service failed"


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.handler.__name__)
def test_real_answers_fit_the_document(world: World, known: Known, endpoint: Any) -> None:
    plain = world.client.get(f"{API}/openapi.json").json()
    path = re.sub(r"{(\w+):\w+}", r"{\1}", endpoint.path)
    for asked in _routes(known, known.tenant).get(endpoint.handler.__name__, []):
        if asked.parameters.get("tenant") == known.tenant and "exceptions" in path:
            continue
        url = re.sub(r"{(\w+)}", lambda match, asked=asked: asked.path[match[1]], path)  # type: ignore[misc]
        answer = world.client.get(url, params=asked.parameters)
        assert answer.status_code == 200, answer.text
        operation = plain["paths"][path][endpoint.method.lower()]
        answer_schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        validator = jsonschema_rs.validator_for(answer_schema | {"components": plain["components"]})
        problems = [f"{list(error.instance_path)}: {error.message}" for error in validator.iter_errors(answer.json())]
        assert not problems, problems[:5]


def test_every_answer_that_is_an_error_is_a_documented_problem(world: World) -> None:
    plain = world.client.get(f"{API}/openapi.json").json()
    codes = set(plain["components"]["schemas"]["Problem"]["properties"]["code"]["enum"])
    answer = world.get("/usage", meter="nothing", **SPAN)
    assert answer.json()["code"] in codes
    for path, operations in plain["paths"].items():
        for method, operation in operations.items():
            for status, one in operation["responses"].items():
                assert one["description"], (path, method, status)
                if int(status) >= 400:
                    assert "application/problem+json" in one["content"]
            assert operation["summary"], (path, method)
            assert {"400", "401", "403", "429", "503"} <= set(operation["responses"])


def test_the_document_does_not_change_by_itself() -> None:
    assert document(ENDPOINTS) == document(ENDPOINTS)
