"""Alert rules, recording rules and their unit tests: with promtool where it is, and what can be told without it.

Every metric that a rule names has to be one that the product exports, with the labels that the rule uses.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY, Counter, Gauge, Histogram

from core import metrics
from core.reasons import REASONS
from tests.deploy.promql import Selector, selectors

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "docker" / "prometheus"
PROMTOOL = shutil.which("promtool")
RULE_FILES = sorted((PROMETHEUS / "rules").glob("*.yml"))
TEST_FILES = sorted((PROMETHEUS / "tests").glob("*.yml"))
METRICS = {name: one for name, one in vars(metrics).items() if isinstance(one, Counter | Gauge | Histogram)}
OF_PROMETHEUS = {"up": {"job", "instance"}, "process_start_time_seconds": {"job", "instance"}}
"""Series that Prometheus makes, or its client library does for every process."""


def _rules() -> list[dict[str, Any]]:
    groups = [group for path in RULE_FILES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def _unit_tests() -> list[dict[str, Any]]:
    return [group for path in TEST_FILES for group in yaml.safe_load(path.read_text())["tests"]]


ALERTS = {rule["alert"]: rule for rule in _rules() if "alert" in rule}
RECORDED = {rule["record"] for rule in _rules() if "record" in rule}


def exported() -> dict[str, set[str]]:
    """Return the name of every series that `core.metrics` exports, with its labels."""
    found: dict[str, set[str]] = {}
    for metric in METRICS.values():
        labels = set(metric._labelnames)
        for family in metric.describe():
            suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
            for suffix in suffixes:
                found[family.name + suffix] = labels | ({"le"} if suffix == "_bucket" else set()) | {"job", "instance"}
    return found


def test_the_names_are_those_of_the_real_registry() -> None:
    metrics.OUTBOX.labels(state="HELD")
    metrics.SINK_SECONDS.labels("usage_events").observe(0.1)
    samples = {sample.name for family in REGISTRY.collect() for sample in family.samples}
    ours = {name for name in samples if name.startswith("meterbridge_") and not name.endswith("_created")}
    assert ours <= exported().keys()
    assert {"meterbridge_outbox_documents", "meterbridge_sink_insert_seconds_bucket"} <= ours


@pytest.mark.parametrize("rule", _rules(), ids=lambda rule: str(rule.get("alert") or rule["record"]))
def test_every_series_of_a_rule_exists_with_its_labels(rule: dict[str, Any]) -> None:
    known = exported() | OF_PROMETHEUS
    found = selectors(rule["expr"])
    assert found
    for selector in found:
        assert selector.name in known or selector.name in RECORDED, selector.name
        if selector.name in known:
            assert selector.labels <= known[selector.name], selector


def test_every_metric_is_set_by_the_product() -> None:
    packages = [
        path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name not in {"core", "tests", "bench"}
    ]
    sources = [path.read_text() for package in packages for path in package.rglob("*.py")]
    for name in METRICS:
        assert any(re.search(rf"\b{name}\b", text) for text in sources), f"core.metrics.{name} is never set"


def test_every_alert_says_how_bad_what_and_where_to_read_on() -> None:
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in {"critical", "warning"}, name
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}, name
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"


def test_the_kinds_left_to_the_alert_on_refused_input_are_the_reason_codes() -> None:
    for name in ("MeterbridgeExceptionsOpen", "MeterbridgeExceptionsOld"):
        excluded = re.search(r'kind!~"([^"]+)"', ALERTS[name]["expr"])
        assert excluded
        assert [reason for reason in REASONS if not re.fullmatch(excluded[1], reason)] == [], name
        for kind in ("unrated", "posting_held", "unusable_value", "stream_loss", "cardinality_limit"):
            assert not re.fullmatch(excluded[1], kind)


def test_every_alert_has_a_unit_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    groups = _unit_tests()
    cases = [case for group in groups for case in group["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == ALERTS.keys()
    silent = [group for group in groups if not any(case["exp_alerts"] for case in group["alert_rule_test"])]
    assert {case["alertname"] for group in silent for case in group["alert_rule_test"]} == ALERTS.keys()


def test_the_unit_tests_use_series_that_exist() -> None:
    known = exported() | OF_PROMETHEUS
    for group in _unit_tests():
        for series in group["input_series"]:
            (selector,) = selectors(series["series"])
            assert selector.labels <= known[selector.name], series["series"]


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: apt install prometheus)")
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", *map(str, RULE_FILES)),
        ("test", "rules", *map(str, TEST_FILES)),
        ("check", "config", "--syntax-only", str(PROMETHEUS / "prometheus.yml")),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_promtool_accepts_it(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([str(PROMTOOL), *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_selectors_are_found_in_an_expression() -> None:
    text = 'sum by (job) (rate(a_total{x="1", y=~"b|c"}[5m])) / on (job) z:b:rate5m > 0 and time() - up{} < 3 * 1e3'
    assert selectors(text) == [
        Selector("a_total", frozenset({"x", "y"})),
        Selector("z:b:rate5m", frozenset()),
        Selector("up", frozenset()),
    ]
