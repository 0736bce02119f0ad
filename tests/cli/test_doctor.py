"""`doctor` against real servers: what is well, what is missing, what is away."""

import json
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import SecretStr
from typer.testing import CliRunner

from cli import doctor_checks
from cli.doctor_checks import Finding
from cli.main import app
from config.settings import ClickHouseSettings, LedgerSettings, RedisSettings, Settings
from core.directory_lock import DirectoryLock
from core.errors import Unreachable
from sinks import ledger
from sinks.clickhouse import schema
from sources.stream_commands import COMMANDS_NEEDED

NOWHERE = "127.0.0.1:1"
NEEDED = tuple(f"+{name.lower()}" for name in COMMANDS_NEEDED)


def _states(findings: Any) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def test_redis_without_persistence_is_a_warning_and_missing_streams_too(redis_url: str) -> None:
    found = _states(doctor_checks.redis(RedisSettings(url=redis_url)))
    assert {name: finding.state for name, finding in found.items()} == {
        "reachable": "ok",
        "version": "ok",
        "clock": "ok",
        "rights": "ok",
        "fence": "ok",
        "appendonly": "warn",
        "eviction": "ok",
        "streams": "warn",
    }
    assert "the flow makes them" in found["streams"].fix
    with redis.Redis.from_url(redis_url) as client:
        assert client.keys("*") == []


def test_redis_streams_and_dangerous_settings(redis_url: str) -> None:
    settings = RedisSettings(url=redis_url, streams=("a", "b"))
    with redis.Redis.from_url(redis_url) as client:
        client.xadd("a", {"event": "1"})
        client.set("b", "no stream")
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("appendonly", "yes")
        client.config_set("appendfsync", "no")
        try:
            found = _states(doctor_checks.redis(settings))
        finally:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("appendonly", "no")
            client.config_set("appendfsync", "everysec")
    assert (found["streams"].state, found["streams"].detail) == ("fail", "b is a string")
    assert found["eviction"].state == "fail"
    assert (found["appendonly"].state, found["appendfsync"].state) == ("ok", "warn")


def test_a_user_who_may_do_no_more_than_the_flow_needs(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.execute_command("ACL", "SETUSER", "narrow", "on", ">pw", "~*", "-@all", *NEEDED, "+xadd")
        try:
            settings = RedisSettings(url=redis_url, username="narrow", password=SecretStr("pw"))
            found = _states(doctor_checks.redis(settings))
        finally:
            client.execute_command("ACL", "DELUSER", "narrow")
    assert not [finding for finding in found.values() if finding.state == "fail"]
    assert {found[name].state for name in ("version", "durability", "streams")} == {"warn"}


def test_redis_rights(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.execute_command("ACL", "SETUSER", "narrow", "on", ">pw", "~*", "+@all", "-xsetid")
        try:
            settings = RedisSettings(url=redis_url, username="narrow", password=SecretStr("pw"))
            found = _states(doctor_checks.redis(settings))
            ticking = _states(doctor_checks.redis(settings.model_copy(update={"fence": "tick"})))
        finally:
            client.execute_command("ACL", "DELUSER", "narrow")
    assert found["rights"].state == "ok"
    assert found["fence"].state == "fail"
    assert "XSETID" in found["fence"].detail
    assert "set METERBRIDGE_REDIS__FENCE=tick" in found["fence"].fix
    assert ticking["fence"].state == "ok"
    assert "tick mode: an idle stream gets `tick` entries (XSETID is not permitted)" in ticking["fence"].detail


def test_redis_rights_other_than_the_fence_are_told_apart(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.execute_command("ACL", "SETUSER", "narrow", "on", ">pw", "~*", "+@all", "-xsetid", "-xrange", "-del")
        try:
            found = _states(
                doctor_checks.redis(RedisSettings(url=redis_url, username="narrow", password=SecretStr("pw")))
            )
        finally:
            client.execute_command("ACL", "DELUSER", "narrow")
    assert found["rights"].state == "fail"
    assert found["probe"].state == "warn"
    assert "XRANGE" in found["rights"].detail
    assert "XSETID" not in found["rights"].detail
    assert found["fence"].state == "fail"


def test_redis_away_names_address_cause_and_setting() -> None:
    with pytest.raises(Unreachable, match=rf"{NOWHERE}.*refused.*METERBRIDGE_REDIS__URL"):
        list(doctor_checks.redis(RedisSettings(url=f"redis://{NOWHERE}/0", connect_timeout_s=1)))


def test_clickhouse_before_and_after_migrate(clickhouse_settings: ClickHouseSettings) -> None:
    before = _states(doctor_checks.clickhouse(clickhouse_settings))
    assert before["database"].state == "warn"
    schema.migrate(clickhouse_settings)
    after = _states(doctor_checks.clickhouse(clickhouse_settings))
    assert {name: finding.state for name, finding in after.items()} == {
        "reachable": "ok",
        "version": "ok",
        "rights": "ok",
        "schema": "ok",
    }


def test_ledger_states(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    assert _states(doctor_checks.ledger(settings))["reachable"].state == "warn"
    assert not (tmp_path / "ledger.sqlite").exists()
    (tmp_path / "ledger.sqlite").touch()
    assert _states(doctor_checks.ledger(settings))["schema"].state == "warn"
    ledger.migrate(settings.ledger_url)
    assert _states(doctor_checks.ledger(settings))["schema"].state == "ok"
    away = Settings(state_dir=tmp_path, ledger=LedgerSettings(url=f"postgresql://u:hunter2@{NOWHERE}/x"))
    finding = _states(doctor_checks.ledger(away))["reachable"]
    assert finding.state == "fail"
    assert NOWHERE in finding.detail
    assert "METERBRIDGE_LEDGER__URL" in finding.fix
    assert "hunter2" not in finding.detail


@pytest.mark.parametrize(("url", "check"), [("nonsense", "reachable"), ("mongodb://u:hunter2@h/x", "driver")])
def test_ledger_urls_that_cannot_be_used(tmp_path: Path, url: str, check: str) -> None:
    unchecked = LedgerSettings().model_copy(update={"url": SecretStr(url)})
    settings = Settings(state_dir=tmp_path).model_copy(update={"ledger": unchecked})
    finding = _states(doctor_checks.ledger(settings))[check]
    assert finding.state == "fail"
    assert finding.fix
    assert "hunter2" not in finding.detail


def test_state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(state_dir=tmp_path / "new" / "deep")
    found = _states(doctor_checks.state(settings))
    assert found["directory"].state == "ok"
    assert "will be created" in found["directory"].detail
    assert not settings.state_dir.exists()
    monkeypatch.setattr(doctor_checks, "DISK_FREE_BYTES_WARN", 1 << 60)
    assert _states(doctor_checks.state(settings))["disk"].state == "warn"
    monkeypatch.setattr(doctor_checks, "DISK_FREE_BYTES_FAIL", 1 << 60)
    assert _states(doctor_checks.state(settings))["disk"].state == "fail"
    settings.state_dir.mkdir(parents=True)
    with DirectoryLock(settings.state_dir / "flow-0.lock"):
        assert "is locked by process" in _states(doctor_checks.state(settings))["lock"].detail
    assert "no flow runs" in _states(doctor_checks.state(settings))["lock"].detail


def test_the_command_reports_everything_and_exits_1(
    redis_url: str, clickhouse_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METERBRIDGE_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("METERBRIDGE_CLICKHOUSE__URL", clickhouse_url)
    monkeypatch.setenv("METERBRIDGE_REDIS__URL", redis_url)
    good = CliRunner().invoke(app, ["doctor", "--json"])
    assert good.exit_code == 0, good.output
    assert json.loads(good.stdout)["counts"]["fail"] == 0
    monkeypatch.setenv("METERBRIDGE_REDIS__URL", f"redis://:hunter2@{NOWHERE}/0")
    bad = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "200"})
    assert bad.exit_code == 1
    assert NOWHERE in bad.stdout
    assert "hunter2" not in bad.output
    assert "ledger" in bad.stdout
