"""Explanations of the rows of a finished run, and the command that prints them."""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cli.main import app
from core.errors import InvalidRequest, InvariantViolation
from queries import rated_rows
from queries.rated_rows import Selection, explained, of_document
from tests.queries.conftest import Finished


@pytest.fixture
def altered(finished: Finished) -> Iterator[str]:
    """The name of a customer one of whose rows says another quantity; put right again behind the test."""
    deployed = finished.deployment
    customer, amount = deployed.query(
        "SELECT customer, max(amount) FROM @rated_usage_current WHERE status = 'sealed' GROUP BY customer LIMIT 1"
    )[0]
    where = f"WHERE customer = '{customer}' AND amount = {amount} AND status = 'sealed' SETTINGS mutations_sync = 2"
    table = f"{deployed.settings.clickhouse.database}.rated_usage"
    deployed.query_command(f"ALTER TABLE {table} UPDATE quantity = quantity + 1000 {where}")
    yield customer
    deployed.query_command(f"ALTER TABLE {table} UPDATE quantity = quantity - 1000 {where}")


def test_every_row_of_the_run_ties(finished: Finished) -> None:
    customers = [row["customer"] for row in finished.stores.rows("SELECT DISTINCT customer FROM @rated_usage_current")]
    kinds = set()
    for customer in filter(None, customers):
        rows, total = explained(finished.stores, Selection(customer), limit=1000)
        assert len(rows) == total > 0
        assert [one.row for one in rows if not one.ties] == []
        kinds |= {one.row["line_kind"] for one in rows}
    assert kinds >= {"usage", "late_usage"}


def test_a_document_is_explained_by_its_rows(finished: Finished) -> None:
    documents = finished.stores.rows("SELECT key, lines FROM @financial_documents_current ORDER BY total DESC LIMIT 3")
    for document in documents:
        rows, total = explained(finished.stores, of_document(finished.stores, document["key"]), limit=1000)
        assert len(rows) == total
        lines = json.loads(document["lines"])
        exact = sum(Decimal(line["amount_exact"]) for line in lines if line["side"] == "debit")
        assert sum(one.row["amount"] for one in rows) == exact
        assert sum(one.expected or Decimal(0) for one in rows) == exact


def test_a_selection_narrows(finished: Finished) -> None:
    customer = finished.stores.rows("SELECT customer FROM @rated_usage_current WHERE status = 'sealed' LIMIT 1")[0]
    everything, total = explained(finished.stores, Selection(customer["customer"]), limit=1000)
    one = everything[-1].row
    chosen = Selection(
        one["customer"], one["contract"], one["charge"], None, None, one["booked_hour"], one["usage_hour"],
        one["line_kind"],
    )  # fmt: skip
    rows, count = explained(finished.stores, chosen, limit=1000)
    assert 0 < len(rows) == count < total
    assert one in [found.row for found in rows]
    assert all(found.ties for found in rows)
    first, count = explained(finished.stores, Selection(customer["customer"]), limit=1)
    assert (len(first), count) == (1, total)


def test_what_cannot_be_explained_is_said(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequest, match="no document 'NOPE'"):
        of_document(finished.stores, "NOPE")
    customer = finished.stores.rows("SELECT customer FROM @rated_usage_current WHERE status = 'sealed' LIMIT 1")[0]
    monkeypatch.setattr(rated_rows, "CHAIN_ROWS_MAX", 0)
    with pytest.raises(InvalidRequest, match="more than 0 rows"):
        explained(finished.stores, Selection(customer["customer"]), limit=1)


# --- the command ---------------------------------------------------------------------------------------


def run(finished: Finished, directory: Path, *arguments: str) -> str:
    settings = finished.deployment.settings
    section = {
        "state_dir": str(settings.state_dir),
        "clickhouse": {"url": settings.clickhouse.url, "database": settings.clickhouse.database},
    }
    path = directory / "meterbridge.yaml"
    path.write_text(yaml.safe_dump({"settings": section}))
    result = CliRunner().invoke(app, ["--config", str(path), "explain", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_the_command_prints_text_and_json(finished: Finished, tmp_path: Path) -> None:
    key = finished.stores.rows("SELECT key FROM @financial_documents_current ORDER BY total DESC LIMIT 1")[0]["key"]
    text = run(finished, tmp_path, "--document", key, "--limit", "1")
    assert "Difference, part by part" in text
    assert text.endswith(": ties\n")
    data = json.loads(run(finished, tmp_path, "--document", key, "--json"))
    row = data["rows"][0]
    assert row["ties"] is True
    assert Decimal(row["row"]["amount"]) == Decimal(row["amount_expected"])
    assert row["step"]["after"]["charge"] == row["row"]["charge"]
    assert data["rows_in_all"] >= len(data["rows"])


def test_a_row_that_differs_ends_with_an_error(altered: str, finished: Finished, tmp_path: Path) -> None:
    with pytest.raises(InvariantViolation, match="differ from their calculation"):
        run(finished, tmp_path, "--customer", altered, "--limit", "1000")


def test_the_command_says_what_to_give(finished: Finished, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="either --document KEY or --customer ID"):
        run(finished, tmp_path)
    with pytest.raises(InvalidRequest, match="no sealed row fits"):
        run(finished, tmp_path, "--customer", "nobody")
    with pytest.raises(InvalidRequest, match="--booked 'then' is not a time"):
        run(finished, tmp_path, "--customer", "acme", "--booked", "then")
