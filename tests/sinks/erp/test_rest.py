"""The generic adapter without a rule to help: what answers mean by themselves, and how a batch ends."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.errors import ConfigError, Unreachable
from sinks.erp.port import Accepted, ErpEntry, NotSent, Posted, Rejected, Throttled, Unknown
from sinks.erp.rest import RestAdapter
from tests.sinks.erp.contract.harness import fresh_hour
from tests.sinks.erp.contract.harness import lines as balanced
from tests.sinks.erp.rest_options import options
from tests.sinks.erp.samples import posting

Answers = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., RestAdapter]:
    """Return a maker of adapters of a kind whose server is a function."""
    (tmp_path / "token").write_text("t")

    def made(kind: str, submit: Answers, **changes: Any) -> RestAdapter:
        def answer(request: httpx.Request) -> httpx.Response:
            if request.method == "GET" and request.url.path == "/entries":
                return httpx.Response(200, json={"result": []})
            return submit(request)

        chosen = options(kind, "http://erp.invalid", tmp_path / "token", **changes)
        return RestAdapter(chosen, "1", transport=httpx.MockTransport(answer))

    return made


def one(number: int = 1) -> Any:
    return posting(number, lines=balanced(), booked_hour=fresh_hour())


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, '{"result": {"id": 7}}', Posted),
        (200, '{"result": {"id": ""}}', Unknown),
        (200, '{"result": {"id": null}}', Unknown),
        (200, "{}", Unknown),
        (201, '{"result": {"id": 7}}', Unknown),  # no rule for 201: not good by itself
        (200, "<html>", Unknown),
        (302, "", Unknown),
        (400, "who knows", Rejected),
        (422, "{}", Rejected),
        (404, "", NotSent),
        (405, "", NotSent),
        (409, "", Unknown),
        (401, "", NotSent),
        (403, "", NotSent),
        (429, "", Throttled),
        (500, "", Unknown),
    ],
)
def test_an_answer_without_a_rule(make: Callable[..., RestAdapter], status: int, body: str, kind: type) -> None:
    adapter = make("plain", lambda _: httpx.Response(status, text=body))
    (outcome,) = adapter.submit([one()], "a")
    assert type(outcome) is kind


def test_success_without_the_erps_number_is_unknown_whatever_the_rule_says(make: Callable[..., RestAdapter]) -> None:
    rules = [{"status": [200], "outcome": "posted", "number": "result.id"}]
    adapter = make("plain", lambda _: httpx.Response(200, json={"result": {}}), outcomes=rules)
    (outcome,) = adapter.submit([one()], "a")
    assert isinstance(outcome, Unknown)
    assert "without a number" in outcome.why


def test_the_first_call_that_tells_nothing_ends_the_batch(make: Callable[..., RestAdapter]) -> None:
    answers = [httpx.Response(200, json={"result": {"id": 1}}), httpx.Response(500), httpx.Response(200)]
    adapter = make("plain", lambda _: answers.pop(0))
    outcomes = adapter.submit([one(1), one(2), one(3), one(4)], "a")
    assert [type(outcome) for outcome in outcomes] == [Posted, Unknown, NotSent, NotSent]
    assert len(answers) == 1  # the third was never sent


def test_a_batch_ends_before_the_lease_does(make: Callable[..., RestAdapter], monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = make("plain", lambda _: httpx.Response(200, json={"result": {"id": 1}}))
    times = iter(range(0, 1000, 20))
    monkeypatch.setattr(adapter, "_monotonic_s", lambda: next(times))
    outcomes = adapter.submit([one(1), one(2), one(3)], "a")
    assert [type(outcome) for outcome in outcomes] == [Posted, Posted, NotSent]


def test_a_lookup_that_fails_sends_nothing(make: Callable[..., RestAdapter], tmp_path: Path) -> None:
    sent: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.method)
        return httpx.Response(500)

    chosen = options("plain", "http://erp.invalid", tmp_path / "token")
    adapter = RestAdapter(chosen, "1", transport=httpx.MockTransport(answer))
    (outcome,) = adapter.submit([one()], "a")
    assert isinstance(outcome, NotSent)
    assert sent == ["GET"]
    with pytest.raises(Unreachable, match="500"):
        adapter.lookup(["K"])


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, {"state": "running"}, Accepted),
        (200, {"number": 5}, Posted),
        (200, {"state": "failed", "error": "the accounting period is closed"}, Rejected),
        (503, {}, Unknown),
        (404, {}, Accepted),  # asked again: a wrong address says nothing about the job
        (401, {}, Accepted),
        (429, {}, Accepted),
        (400, {"error": "who knows"}, Unknown),  # held and released, it would be booked twice
        (409, {}, Unknown),
    ],
)
def test_what_a_poll_says(make: Callable[..., RestAdapter], status: int, body: dict[str, Any], kind: type) -> None:
    adapter = make("jobs", lambda _: httpx.Response(status, json=body))
    (outcome,) = adapter.poll(["77"])
    assert type(outcome) is kind
    assert not isinstance(outcome, Accepted) or outcome.job == "77"


def test_an_entry_whose_lines_cannot_be_read_can_be_reversed(make: Callable[..., RestAdapter]) -> None:
    adapter = make(
        "plain",
        lambda _: httpx.Response(200, json={"result": {"id": 7}}),
        entry={"key": "key", "number": "id", "digest": "digest"},
    )
    original = one()
    swapped = tuple(replace(line, side="credit" if line.side == "debit" else "debit") for line in original.lines)
    opposite = replace(original, key="OPPOSITE", reverses=original.key, lines=swapped)
    assert isinstance(adapter.reverse(ErpEntry(original.key, "6", original.digest), opposite), Posted)


def test_balances_are_read_as_configured(make: Callable[..., RestAdapter]) -> None:
    rows = [{"a": "1150", "c": "USD", "b": "1,000.50"}, {"a": "1150", "c": "USD", "b": 1.25}]
    call = {"path": "/balances", "items": "rows", "account": "a", "currency": "c", "balance": "b"}
    adapter = make("plain", lambda _: httpx.Response(200, json={"rows": rows}), balances=call)
    assert adapter.balances() == {("1150", "USD"): Decimal("1001.75")}
    broken = make("plain", lambda _: httpx.Response(200, json={"rows": [{"a": "1150"}]}), balances=call)
    with pytest.raises(Unreachable):
        broken.balances()
    with pytest.raises(ConfigError, match="balances"):
        make("plain", lambda _: httpx.Response(200), balances=None).balances()
