"""The Grafana dashboard: a panel for each part of the way, and only series that exist."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.promql import selectors
from tests.deploy.test_alert_rules import OF_PROMETHEUS, RECORDED, ROOT, exported

GRAFANA = ROOT / "docker" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "dashboards" / "meterbridge.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
PROMTOOL = shutil.which("promtool")
KNOWN = OF_PROMETHEUS | {"ALERTS": {"alertname", "alertstate"}}


def test_there_are_panels_for_each_part_of_the_way() -> None:
    named = {name for _, query in QUERIES for name in (selector.name for selector in selectors(query))}
    assert {
        "meterbridge_events_total",
        "meterbridge_lag_seconds",
        "meterbridge:watermark_age_seconds:max",
        "meterbridge:sealed_hour_timestamp_seconds:min",
        "meterbridge_outbox_documents",
        "meterbridge_erp_waiting_since_timestamp_seconds",
        "meterbridge_exceptions_open",
        "meterbridge_reconcile_breaks",
    } <= named


@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_every_series_of_a_panel_exists_with_its_labels(title: str, query: str) -> None:
    known = exported() | KNOWN
    for selector in selectors(query):
        assert selector.name in known or selector.name in RECORDED, (title, selector.name)
        assert selector.labels <= known.get(selector.name, selector.labels | {"stage"}), (title, selector)


def test_panels_have_ids_of_their_own_do_not_overlap_and_use_the_provisioned_source() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells), panel["title"]
        taken |= cells
    source = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())
    uids = {target["datasource"]["uid"] for panel in PANELS for target in panel["targets"]}
    assert uids == {source["datasources"][0]["uid"]}


def test_grafana_finds_the_dashboard_where_compose_puts_it() -> None:
    provider = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "meterbridge.yml").read_text())
    path = provider["providers"][0]["options"]["path"]
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]
    assert f"./docker/grafana/dashboards:{path}:ro" in service["volumes"]
    assert service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == f"{path}/meterbridge.json"


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: apt install prometheus)")
def test_promtool_reads_every_query(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": re.sub(r"\$__(rate_interval|range)", "5m", query)}
        for number, (_, query) in enumerate(QUERIES)
    ]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run([str(PROMTOOL), "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
