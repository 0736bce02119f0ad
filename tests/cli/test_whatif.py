"""`meterbridge whatif` as table, JSON and CSV."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cli.main import app
from config.settings import Settings
from core.errors import InvalidRequest
from tests.flows.test_whatif import CHARGES, plans, settings

__all__ = ["settings"]


@pytest.fixture
def config(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in os.environ:
        if name.startswith("METERBRIDGE_"):
            monkeypatch.delenv(name)
    section = {
        "state_dir": str(settings.state_dir),
        "clickhouse": {"url": settings.clickhouse.url, "database": settings.clickhouse.database},
    }
    path = tmp_path / "meterbridge.yaml"
    path.write_text(yaml.safe_dump({"settings": section}))
    return path


def whatif(config: Path, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["--config", str(config), "whatif", *arguments], env={"COLUMNS": "160"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_table_json_and_csv(config: Path, tmp_path: Path) -> None:
    path = str(plans(tmp_path, CHARGES[0], CHARGES[1] | {"unit_amount": "1.0005"}))
    # calls: 7 x 1.0005 = 7.0035 in place of the minimum of 5
    text = whatif(config, "--plans", path, "--limit", "2")
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]
    assert cells == [
        ["acme c1", "peak", "2024-01-01", "0", "18.00", "0.00", "-18.00", "USD"],
        ["acme c1", "calls", "2024-01-01", "7", "5.00", "7.00", "2.00", "USD"],
        ["USD", "38.75", "22.75", "-16.00"],
    ]
    target = tmp_path / "out.csv"
    data: dict[str, Any] = json.loads(whatif(config, "--plans", path, "--csv", str(target), "--json"))
    assert data["window"] == {"from": "2024-01-01T00:00:00+00:00", "to": "2024-02-02T00:00:00+00:00"}
    assert data["totals"]["USD"]["difference"] == "-15.996500000000"
    assert len(data["rows"]) == 5
    assert data["unpriced"] == [{"customer": "", "tenant": "nobody", "meter": "calls", "events": 3}]
    with target.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    calls = next(row for row in rows if (row["customer"], row["charge"]) == ("acme", "calls"))
    assert calls == {
        "customer": "acme",
        "contract": "c1",
        "charge": "calls",
        "period_start": "2024-01-01T00:00:00Z",
        "currency": "USD",
        "quantity_booked": "7",
        "quantity_whatif": "7",
        "amount_booked": "5",
        "amount_whatif": "7.0035",
        "difference": "2.0035",
    }


def test_a_window_is_given_in_whole_hours(config: Path, tmp_path: Path) -> None:
    path = str(plans(tmp_path, *CHARGES))
    text = whatif(config, "--plans", path, "--from", "2024-01-03", "--to", "2024-01-03T01", "--json")
    assert [(row["charge"], row["amount_booked"]) for row in json.loads(text)["rows"]] == [("input", "2.600000000000")]
    with pytest.raises(InvalidRequest, match="not a whole hour"):
        whatif(config, "--plans", path, "--from", "2024-01-03T00:30")
    with pytest.raises(InvalidRequest, match="--to 'soon' is not a time"):
        whatif(config, "--plans", path, "--to", "soon")
    with pytest.raises(InvalidRequest, match="cannot write"):
        whatif(config, "--plans", path, "--csv", str(tmp_path / "missing" / "out.csv"))
