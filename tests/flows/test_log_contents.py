"""What the logs of flow and poster hold: JSON with stream positions and posting keys; no payload and no secret."""

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis

from core.logging import configure
from tests.flows.conftest import Deploy
from tests.flows.poster_world import BY_CUSTOMER, World, many, postings_of
from tests.sinks.ledger.samples import HOUR

PAYLOAD = "payload-marker-7fe1"
SECRET = "hidden-marker-93ab"  # noqa: S105 - made up, to look for it


class Everything(dict[str, str]):
    """A mapping that has every key, with one value."""

    def __init__(self, value: str) -> None:
        super().__init__()
        self._value = value

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: str) -> str:
        return self._value

    def get(self, key: str, default: Any = None) -> str:
        return self._value


@pytest.fixture
def locked_redis_url(redis_url: str) -> Iterator[str]:
    """The session's Valkey with a password, which stands in its URL; open again behind the test."""
    with redis.Redis.from_url(redis_url) as client:
        client.config_set("requirepass", SECRET)
    locked = redis_url.replace("://", f"://default:{SECRET}@")
    yield locked
    with redis.Redis.from_url(locked) as client:
        client.config_set("requirepass", "")


def _event(number: int, **changed: Any) -> bytes:
    event = {
        "specversion": "1.0",
        "id": f"{PAYLOAD}-{number}",
        "source": f"/{PAYLOAD}",
        "type": "llm.completion",
        "subject": "acme",
        "data": {"input_tokens": "12", "output_tokens": "3", "model": PAYLOAD, "region": "eu"},
    }
    return orjson.dumps(event | changed)


def _send(url: str) -> None:
    """Send good events, each kind of broken ones, a conflict and what no meter knows."""
    numbers = {"input_tokens": "many " + PAYLOAD, "output_tokens": "3", "model": "x", "region": "eu"}
    broken = [
        b'{"id": "' + PAYLOAD.encode(),
        _event(10, time=f"yesterday {PAYLOAD}"),
        _event(11, data=numbers),
        _event(12, data=PAYLOAD),
        _event(13, time="2020-01-01T00:00:00Z"),
        _event(14, type="meterbridge.void", data={"id": PAYLOAD}),
        _event(15, specversion=PAYLOAD),
        _event(16, type=PAYLOAD),
        _event(1, data={"input_tokens": "13", "output_tokens": "3", "model": PAYLOAD, "region": "eu"}),
        _event(17, subject=f"nobody-{PAYLOAD}"),
    ]
    with redis.Redis.from_url(url) as client:
        for payload in [*(_event(number) for number in range(5)), *broken]:
            client.xadd("usage:0", {"event": payload})
        client.xadd("usage:0", {"nothing": PAYLOAD})


def _lines(text: str) -> list[dict[str, Any]]:
    """Return the log's lines; each is an object, whoever wrote it."""
    return [json.loads(line) for line in text.splitlines()]


def test_no_payload_and_no_secret_is_in_the_logs_of_flow_and_poster(deployment: Deploy, locked_redis_url: str) -> None:
    deployed = deployment()
    own = {
        "METERBRIDGE_REDIS__URL": locked_redis_url,
        "METERBRIDGE_CLICKHOUSE__PASSWORD": SECRET,
        "METERBRIDGE_LOG__FORMAT": "json",
    }
    _send(locked_redis_url)
    said = []
    for arguments in (("run", "--drain"), ("post", "--once")):
        process = deployed.start(*arguments, **own)
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        said += [out, errors]
        assert _lines(errors) is not None
    outcomes = deployed.outcomes()
    assert outcomes["accepted", ""] >= 5
    assert sum(events for (outcome, _), events in outcomes.items() if outcome != "accepted") >= 7
    begun = [line for line in _lines(said[1]) if line["event"] == "Reading begins behind these positions."]
    assert begun[0]["positions"]["usage:0"] == "0-0"
    assert not [text for text in said if PAYLOAD in text or SECRET in text]


def test_servers_that_are_away_are_told_without_their_passwords(deployment: Deploy, locked_redis_url: str) -> None:
    deployed = deployment()
    _send(locked_redis_url)
    away = {
        "METERBRIDGE_REDIS__URL": locked_redis_url,
        "METERBRIDGE_CLICKHOUSE__URL": "http://127.0.0.1:9",
        "METERBRIDGE_CLICKHOUSE__PASSWORD": SECRET,
        "METERBRIDGE_LOG__FORMAT": "json",
    }
    process = deployed.start("run", **away)
    late = threading.Timer(90, process.kill)
    late.start()
    try:
        assert process.stderr is not None
        errors = ""
        while "ClickHouse did not take rows; repeating until it does." not in errors:
            line = process.stderr.readline()
            assert line, errors
            errors += line
        process.send_signal(signal.SIGTERM)
        out, rest = process.communicate()
        errors += rest
    finally:
        late.cancel()
    assert _lines(errors)
    wrong = {"METERBRIDGE_REDIS__URL": locked_redis_url.replace(SECRET, SECRET + "x")}
    refused = deployed.start("run", **wrong)
    ledger = deployed.start("post", "--once", METERBRIDGE_LEDGER__URL=f"postgresql://me:{SECRET}@127.0.0.1:9/ledger")
    for one in (refused, ledger):
        more, why = one.communicate(timeout=60)
        assert one.returncode
        assert "error:" in why
        out, errors = out + more, errors + why
    assert SECRET not in out + errors
    assert PAYLOAD not in out + errors


def test_a_posting_is_named_by_its_key_where_it_waits_or_its_adapter_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("json")
    world = World(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    world.configure(BY_CUSTOMER)
    world.book(*many(1))
    world.erp.script = ["raises"]
    world.poster().pass_once()
    (posting,) = postings_of(world)
    (failed,) = [line for line in _lines(capsys.readouterr().err) if line["level"] == "error"]
    assert (failed["entity"], failed["postings"], failed["count"]) == ("US01", [posting.key], 1)
    world.book(*many(2, start=5, booked_hour=HOUR + 1), complete_hour=HOUR + 2)
    world.erp.bad_keys = Everything("unknown_account")
    world.clock.sleep(600)
    world.poster().pass_once()
    held = {row.key for row in postings_of(world) if row.state == "HELD"}
    waits = [line for line in _lines(capsys.readouterr().err) if line["event"] == "Postings wait for a person."]
    assert {key for line in waits for key in line["postings"]} == held != set()
    assert {(line["entity"], line["state"]) for line in waits} == {("US01", "HELD")}
    world.engine.dispose()
