"""`meterbridge quote` on a small configuration."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from core.errors import InvalidRequest

CONFIG = """
rules: {books_open_at: 2023-01-01T00:00:00Z}
meters: [{id: tokens, event_type: t, aggregation: sum, value: $.tokens}, {id: paid, event_type: t, aggregation: count}]
plans:
  - id: payg
    versions:
      - effective_from: 2023-01-01T00:00:00Z
        currency: USD
        charges:
          - {id: input, meter: tokens, model: graduated, unit: token,
             tiers: [{up_to: "100", unit_amount: "0.10"}, {up_to: null, unit_amount: "0.055"}], minimum: "3"}
          - {id: card, meter: paid, model: percentage, rate_percent: "1", fixed_amount: "0.3"}
          - {id: seat, meter: paid, model: per_unit, unit_amount: "1", minimum: "31"}
entities: [{id: US01, functional_currency: USD, timezone: UTC, accounts: {unbilled_receivable: "1", usage_revenue: "2",
  shortfall_revenue: "3"}, erp: {adapter: journal, company: US01}}]
customers:
  - id: acme
    subjects: [acme]
    erp: {customer: A}
    contracts: [{id: acme-1, plan: payg, entity: US01, from: 2023-01-01T00:00:00Z,
                 overrides: [{charge: input, set: {discount_percent: "50"}}]}]
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in os.environ:
        if name.startswith("METERBRIDGE_"):
            monkeypatch.delenv(name)
    path = tmp_path / "meterbridge.yaml"
    path.write_text(CONFIG)
    return path


def quote(config: Path, text: str) -> str:
    result = CliRunner().invoke(app, ["--config", str(config), "quote", *text.split()])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_quantity_as_text(config: Path) -> None:
    # 100 x 0.10 + 50.1 x 0.055 = 12.7555
    assert quote(config, "--plan payg --charge input --quantity 150.1").splitlines() == [
        "Plan payg, version 1 (from 2023-01-01), charge input",
        "Quantity to date                    150.1 token",
        "Each tier's part at its own price:",
        "  tier 1: from 0 up to 100          100 x 0.1 = 10",
        "  tier 2: over 100                  50.1 x 0.055 = 2.7555",
        "  sum                               12.7555",
        "Minimum of 3                        12.7555 reaches it",
        "Amount                              12.7555 USD",
        "Rounded, as documents do: 12.76 USD",
    ]


def test_a_difference_rounds_the_amounts_to_date(config: Path) -> None:
    # 10.055 rounds to 10.06 and 10.11 stays: the document has 0.05, the exact difference is 0.055
    text = quote(config, "--plan payg --charge input --quantity 102 --from 101")
    assert text.splitlines()[-2:] == [
        "Amount after less amount before  10.11 - 10.055 = 0.055 USD",
        "Documents round the amounts to date: 10.11 - 10.06 = 0.05 USD",
    ]


def test_json_has_plan_version_tiers_and_amounts(config: Path) -> None:
    data: dict[str, Any] = json.loads(quote(config, "--json --plan payg --charge input --quantity 150.1"))
    assert (data["plan"], data["plan_version"], data["currency"]) == ("payg", 1, "USD")
    assert [(line["quantity"], line["price"], line["amount"]) for line in data["parts"]] == [
        ("100", "0.1", "10"),
        ("50.1", "0.055", "2.7555"),
    ]
    assert (data["amount"], data["amount_rounded"]) == ("12.7555", "12.76")
    step = json.loads(quote(config, "--json --plan payg --charge input --quantity 102 --from 101"))
    assert (step["amount"], step["amount_rounded"]) == ("0.055", "0.05")


def test_a_contract_brings_its_own_prices(config: Path) -> None:
    text = quote(config, "--contract acme/acme-1 --charge input --quantity 100")
    assert "charge input, contract acme/acme-1\n" in text
    assert "Discount of 50 %" in text
    assert text.endswith("5.00 USD\n")


def test_events_running_periods_and_shares(config: Path) -> None:
    # 1 % of 600, and 0.30 for each of two events
    assert quote(config, "--plan payg --charge card --values 100,500").endswith("6.60 USD\n")
    assert quote(config, "--plan payg --charge card --quantity 600 --events 2").endswith("6.60 USD\n")
    assert quote(config, "--plan payg --charge seat --quantity 4 --running").endswith("4.00 USD\n")
    assert quote(config, "--plan payg --charge seat --quantity 4 --share 10/31").endswith("10.00 USD\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--plan payg --charge input", "either --quantity, or --values"),
        ("--plan payg --charge input --quantity 1 --values 1", "either --quantity, or --values"),
        ("--plan payg --charge input --values 1 --from 1", "--from goes with --quantity"),
        ("--plan payg --charge input --quantity 1,000", "'1,000' is not a quantity"),
        ("--plan payg --charge input --quantity 1 --share 3/2", "not between 0 and 1"),
        ("--plan payg --charge input --quantity 1 --share x", "not a fraction"),
        ("--plan payg --charge input --quantity 1 --at yesterday", "not a time"),
        ("--plan nope --charge input --quantity 1", "no plan 'nope': known are payg"),
    ],
)
def test_what_cannot_be_quoted_is_said(config: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        quote(config, text)
