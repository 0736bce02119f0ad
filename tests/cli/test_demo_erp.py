"""The ERP demo: its configuration and company fit, its checks see what is wrong, and it runs to the trial balance."""

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from typer.testing import CliRunner

from cli import demo_erp
from cli.demo_erp_books import ErpInvoice, MoveLine, trial_balance, unbilled_by_party
from cli.demo_erp_report import ErpNumbers, checks, customer_rows
from cli.main import app
from config.checks import check
from config.loader import examine
from config.revision import Configuration
from core.errors import InvalidRequest
from sources.workload_events import DEMO_SUBJECTS
from stack.tryton_database import Company
from stack.tryton_stack import RunningTryton

OCTOBER, NOVEMBER = date(2026, 10, 1), date(2026, 11, 1)
CUTOFF = date(2026, 11, 2)


@pytest.mark.parametrize(
    ("now", "month_end"),
    [
        (datetime(2026, 11, 24, 21, 5, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)),
        (datetime(2026, 11, 2, 0, 5, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)),
        (datetime(2026, 11, 1, 23, 44, tzinfo=UTC), datetime(2026, 10, 1, tzinfo=UTC)),
        (datetime(2026, 1, 1, tzinfo=UTC), datetime(2025, 12, 1, tzinfo=UTC)),
    ],
)
def test_only_the_month_end_s_own_invoices_are_due_and_all_usage_is_over(now: datetime, month_end: datetime) -> None:
    assert demo_erp.last_month_end(now) == month_end
    assert month_end + demo_erp.CUT_OFF < now < next_month(month_end) + demo_erp.CUT_OFF
    first, last = demo_erp.usage_span(month_end, now)
    assert first < month_end < last < now.replace(minute=0)
    assert (last == month_end + demo_erp.USAGE_AFTER) or last + timedelta(minutes=65) > now


def next_month(month: datetime) -> datetime:
    return (month + timedelta(days=32)).replace(day=1)


@pytest.mark.parametrize("minute", [datetime(2026, 11, 1, 23, 45, tzinfo=UTC), datetime(2026, 11, 2, 0, 4, tzinfo=UTC)])
def test_minutes_in_which_more_invoices_become_due_are_refused(minute: datetime) -> None:
    with pytest.raises(InvalidRequest, match="the invoices of 2026-10 become due"):
        demo_erp.last_month_end(minute)


@pytest.fixture
def raw() -> dict[str, Any]:
    return dict(yaml.safe_load(demo_erp.EXAMPLE.read_text()))


def test_the_shipped_configuration_is_good_and_knows_the_generated_subjects() -> None:
    found = examine(demo_erp.EXAMPLE)
    assert (found.problems, found.warnings) == ((), ())
    assert found.configuration is not None
    subjects = {subject.id for customer in found.configuration.customers for subject in customer.subjects}
    assert set(DEMO_SUBJECTS) - subjects == {"trial-anonymous"}
    (entity,) = found.configuration.entities
    assert entity.invoicing.grace == demo_erp.CUT_OFF < demo_erp.USAGE_AFTER
    taxes = entity.erp.mappings.taxes
    assert taxes is not None
    assert taxes["saas"] == f"Tax {demo_erp.TAX_RATE}"
    categories = {charge["accounting"]["tax_category"] for plan in found.configuration.plans
                  for version in plan.versions for charge in version.charges}  # fmt: skip
    assert categories == set(taxes)


def test_tryton_gets_what_the_configuration_names(raw: dict[str, Any], tmp_path: Path) -> None:
    month_end = datetime(2026, 1, 1, tzinfo=UTC)
    made = demo_erp.specification(raw, month_end, datetime(2026, 2, 1, tzinfo=UTC))
    assert made["years"] == [2025, 2026]
    assert {one["code"] for one in made["accounts"]} == set(raw["entities"][0]["accounts"].values())
    assert [one["code"] for one in made["accounts"] if one.get("unbilled")] == ["1150"]
    assert set(made["customers"]) == {one["erp"]["customer"] for one in raw["customers"]}
    tryton = RunningTryton("http://127.0.0.1:1234", "erp", Company(1, "secret"), tmp_path / "key")
    filled = demo_erp.filled(raw, tryton, month_end)
    assert "secret" not in str(filled)
    configuration = Configuration.model_validate(filled)
    assert [one for one in check(configuration) if not one.is_warning] == []
    assert configuration.rules.books_open_at == datetime(2025, 12, 1, tzinfo=UTC)
    assert configuration.entities[0].erp.options["url"] == "http://127.0.0.1:1234"
    assert raw["entities"][0]["erp"]["options"]["url"] != "http://127.0.0.1:1234"


def test_another_configuration_is_refused() -> None:
    result = CliRunner().invoke(app, ["--config", "config/meterbridge.yaml", "demo-erp"])
    assert isinstance(result.exception, InvalidRequest)
    assert "demo-erp has a configuration of its own" in str(result.exception)


def line(account: str, amount: str, party: str = "", period: date = OCTOBER, day: date | None = OCTOBER) -> MoveLine:
    value = Decimal(amount)
    return MoveLine(account, f"Account {account}", party, max(value, Decimal(0)), max(-value, Decimal(0)), period, day)


LINES = [
    line("1150", "100.00", "C1"), line("4001", "-100.00"),
    line("1150", "5.00", "C1", day=NOVEMBER), line("4001", "-5.00", day=NOVEMBER),  # late, before the cut-off
    line("1150", "3.00", "C1", day=CUTOFF), line("4001", "-3.00", day=CUTOFF),  # late, after it
    line("1150", "7.00", "C1", NOVEMBER, NOVEMBER), line("4001", "-7.00", "", NOVEMBER, NOVEMBER),
    line("1150", "-105.00", "C1", NOVEMBER, None), line("2200", "-10.50", "", NOVEMBER, None),
    line("1200", "115.50", "C1", NOVEMBER, None),
]  # fmt: skip
BILL = ErpInvoice("1", "posted", "C1", Decimal("105.00"), Decimal("10.50"), Decimal("115.50"))


def numbers(lines: list[MoveLine], **changes: Any) -> ErpNumbers:
    made = ErpNumbers(
        currency="USD",
        revenue_accounts=frozenset({"4001"}),
        receivable_account="1200",
        lines=lines,
        invoices=[BILL],
        unbilled=unbilled_by_party(lines, "1150", OCTOBER, CUTOFF),
        customers={"acme": "C1", "nobody": "C2"},
        run=[{"customer": "acme", "net": "105.00"}],
        not_invoiced={"acme": Decimal("10.00")},
        reconciled=[{"name": "one", "broken": 0}],
    )
    return replace(made, **changes)


def test_unbilled_is_cut_at_the_invoice_and_the_trial_balance_adds_up() -> None:
    (row,) = customer_rows(numbers(LINES))
    amounts = {name: str(value) for name, value in row.items()}
    assert amounts == {
        "customer": "acme", "accrued": "105.00", "invoiced": "105.00", "unbilled": "0.00", "tax": "10.50",
        "to pay": "115.50", "later": "10.00", "currency": "USD",
    }  # fmt: skip
    books = trial_balance(LINES, "USD", frozenset({"4001"}))
    assert {row["account"]: str(row["balance"]) for row in books.rows} == {
        "1150": "10.00", "1200": "115.50", "2200": "-10.50", "4001": "-115.00",
    }  # fmt: skip
    assert [one for one in checks(numbers(LINES)) if not one.holds] == []


@pytest.mark.parametrize(
    ("changed", "broken"),
    [
        ({"lines": [*LINES, line("4001", "-0.01")]}, "trial balance: debits = credits"),
        ({"lines": [*LINES, line("4001", "-5.00", day=None)]}, "revenue that invoices credited again"),
        ({"lines": [*LINES, line("1200", "1.00"), line("9", "-1.00")]}, "net and tax of the invoices = receivable"),
        ({"invoices": [replace(BILL, state="draft")]}, "invoices made by the run = posted in Tryton"),
        ({"run": [{"customer": "acme", "net": "105.01"}]}, "net of the run's invoices = net in Tryton"),
        ({"unbilled": unbilled_by_party([line("1150", "0.01", "C1"), *LINES], "1150", OCTOBER, CUTOFF)},
         "acme: unbilled of what was invoiced"),
        ({"not_invoiced": {"acme": Decimal("10.01")}}, "acme: unbilled in our ledger = in Tryton"),
        ({"unbilled": unbilled_by_party([line("1150", "1.00", "C2"), *LINES], "1150", OCTOBER, CUTOFF)},
         "customers with something due = customers invoiced"),
        ({"reconciled": [{"name": "one", "broken": 2}]}, "checks of `reconcile --erp` = those that hold"),
    ],
)  # fmt: skip
def test_each_difference_breaks_its_check(changed: dict[str, Any], broken: str) -> None:
    found = [one.name for one in checks(numbers(**({"lines": LINES} | changed))) if not one.holds]
    assert any(name.startswith(broken) for name in found), found


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_month_end_on_a_real_tryton(tmp_path: Path) -> None:
    root = demo_erp.ROOT
    environment = {name: value for name, value in os.environ.items() if not name.startswith("METERBRIDGE_")}
    environment |= {"METERBRIDGE_STATE_DIR": str(tmp_path), "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "cli", "demo-erp", "--events", "3000", "--json"],
        cwd=root, env=environment, capture_output=True, text=True, timeout=1400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = orjson.loads(done.stdout)
    assert report["agrees"] is True
    assert {one["unbilled"] for one in report["customers"]} == {"0.00"}
    assert any(Decimal(one["later"]) > 0 for one in report["customers"])
    books = {one["account"]: Decimal(one["balance"]) for one in report["usage"]["books"]}
    assert sum(books.values()) == 0
    assert books["4002"] <= Decimal(-5000)  # two fees
    assert books["1200"] == sum(Decimal(one["to pay"]) for one in report["customers"])
    assert books["1150"] == sum(Decimal(one["later"]) for one in report["customers"])
    assert books["2200"] == -sum(Decimal(one["tax"]) for one in report["customers"])
