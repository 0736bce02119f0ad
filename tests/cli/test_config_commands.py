"""`config check`, `config schema` and `config show`."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from cli.main import app
from config import schema
from config.loader import load
from config.revision import Revision
from config.schema import json_schema
from core.errors import InvalidRequest
from sinks import ledger
from sinks.ledger.revisions import record_revision

CONFIG = Path(schema.__file__).parent


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("METERBRIDGE_"):
            monkeypatch.delenv(name)


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_check_of_the_default_file() -> None:
    result = _run("config", "check", str(CONFIG / "meterbridge.yaml"))
    assert result.exit_code == 0
    assert "meterbridge.yaml: good (7 meters, 3 plans, 2 entities, 12 customers; 0 warning(s))" in result.stdout


def test_check_reports_problems_and_exits_1(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("rules: {grace_s: -1}\ncustomers: [{id: x, subjects: [s]}]\n")
    result = _run("config", "check", str(path))
    assert result.exit_code == 1
    assert f"error: {path}:1: rules.grace_s: " in result.stdout
    assert f"warning: {path}:2: customers[x]: has no erp.customer" in result.stdout
    parsed = json.loads(_run("--config", str(path), "config", "check", "--json").stdout)
    assert parsed["ok"] is False
    assert len(parsed["problems"]) == len(parsed["warnings"]) == 1
    assert parsed["counts"]["customers"] == 1


def test_check_against_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METERBRIDGE_STATE_DIR", str(tmp_path / "state"))
    path = tmp_path / "c.yaml"
    text = "meters:\n  - id: m\n    event_type: t\n    aggregation: sum\n    value: $.x\n"
    path.write_text(text)
    unmigrated = _run("config", "check", str(path), "--against-ledger")
    assert isinstance(unmigrated.exception, InvalidRequest)
    assert "run `meterbridge migrate`" in str(unmigrated.exception)

    url = f"sqlite:///{tmp_path / 'state' / 'ledger.sqlite'}"
    ledger.migrate(url)
    engine = ledger.connect(url)
    record_revision(engine, Revision(load(path)), datetime.now(UTC))
    engine.dispose()
    same = _run("config", "check", str(path), "--against-ledger")
    assert same.exit_code == 0
    assert "compared with 1 revision(s) in the ledger" in same.stdout

    path.write_text(text.replace("sum", "max"))
    assert _run("config", "check", str(path)).exit_code == 0
    changed = _run("config", "check", str(path), "--against-ledger")
    assert changed.exit_code == 1
    assert f"error: {path}:4: meters[m].aggregation: was sum and is max now" in changed.stdout
    parsed = json.loads(_run("config", "check", str(path), "--against-ledger", "--json").stdout)
    assert (parsed["ok"], parsed["compared_revisions"]) == (False, 1)


def test_show_hides_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METERBRIDGE_REDIS__URL", "redis://u:hunter2@h:1/0")
    monkeypatch.setenv("METERBRIDGE_CLICKHOUSE__PASSWORD", "hunter2")
    monkeypatch.setenv("METERBRIDGE_LEDGER__URL", "postgresql://u:hunter2@h/db")
    result = _run("config", "show", "--json")
    assert "hunter2" not in result.stdout
    assert json.loads(result.stdout)["redis.url"] == "redis://u:***@h:1/0"


def _fits(value: Any, rule: dict[str, Any], root: dict[str, Any]) -> bool:
    """Check a value against the part of JSON Schema that tells known from unknown fields, required and types."""
    if "$ref" in rule:
        return _fits(value, root["$defs"][rule["$ref"].rsplit("/", 1)[1]], root)
    for key in ("anyOf", "oneOf"):
        if key in rule:
            return any(_fits(value, inner, root) for inner in rule[key])
    kind = rule.get("type")
    if kind == "object":
        if not isinstance(value, dict) or not set(rule.get("required", ())) <= value.keys():
            return False
        known, more = rule.get("properties", {}), rule.get("additionalProperties", True)
        if more is False and not value.keys() <= known.keys():
            return False
        inner_rule = more if isinstance(more, dict) else {}
        return all(_fits(item, known.get(name, inner_rule), root) for name, item in value.items())
    if kind == "array":
        return isinstance(value, list) and all(_fits(item, rule.get("items", {}), root) for item in value)
    if "enum" in rule:
        return value in rule["enum"]
    types: dict[Any, Any] = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None)}
    return kind not in types or isinstance(value, types[kind])


def _example() -> dict[str, Any]:
    parsed = yaml.load((CONFIG / "meterbridge.example.yaml").read_text(), Loader=yaml.BaseLoader)  # noqa: S506  # text only
    loaded: dict[str, Any] = yaml.safe_load((CONFIG / "meterbridge.example.yaml").read_text())
    for section in ("plans", "customers", "rules"):  # times stay text, as in JSON
        loaded[section] = _with_text_times(loaded[section], parsed[section])
    return loaded


def _with_text_times(value: Any, text: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_text_times(item, text[key]) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_text_times(item, other) for item, other in zip(value, text, strict=True)]
    return text if hasattr(value, "isoformat") else value


def test_schema_accepts_the_example_and_refuses_misspellings() -> None:
    root = json.loads(_run("config", "schema").stdout)
    assert root == json.loads(json.dumps(json_schema()))
    example = _example()
    assert _fits(example, root, root)
    for path in (
        ("settings", "redis"),
        ("rules",),
        ("meters", 0),
        ("plans", 0, "versions", 0, "charges", 0),
        ("customers", 0),
    ):
        changed = json.loads(json.dumps(example))
        target: Any = changed
        for part in path:
            target = target[part]
        target["mispelt"] = 1
        assert not _fits(changed, root, root), path
