"""Plans: versions and what changed between them, and what another price would have come to on booked usage."""

import difflib
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import yaml
from starlette.responses import Response

from config.plans import Plan, PlanVersion
from console.pages import asked, exporting
from console.pages.base import Page, Values, Visit
from console.problems import Problem
from core.errors import MeterbridgeError
from flows import whatif
from queries.stores import EPOCH, Stores

TEXT_MAX: Final = 60_000
_ROWS_MAX: Final = 300
_CUSTOMERS_MAX: Final = 200
_COLUMNS: Final = (
    "customer", "contract", "charge", "period_start", "currency", "quantity_booked", "quantity_whatif",
    "amount_booked", "amount_whatif", "difference",
)  # fmt: skip


async def show(visit: Visit) -> Values:
    """Return the plans, and one of them with its versions."""
    return await visit.services.pool.ask(lambda stores: _values(visit, stores, {}))


async def act(visit: Visit) -> Values | Response:
    """Rate booked usage under the text that was sent; nothing stored is changed."""
    form = await visit.form()
    text = str(form.get("text", "")).replace("\r\n", "\n")
    begins, ends = str(form.get("from", "")), str(form.get("to", ""))
    if not text.strip() or len(text) > TEXT_MAX:
        raise Problem("invalid_request", f"plans: needed, at most {TEXT_MAX:,} characters")
    first, last = _hour("from", begins), _hour("to", ends)
    sent = {"text": text, "from": begins, "to": ends}
    try:
        report = await visit.services.pool.ask_ledger(
            lambda _engine: _run(visit, text, first, last)  # it opens connections of its own
        )
    except MeterbridgeError as error:
        message = str(error)
        return await visit.services.pool.ask(lambda stores: _values(visit, stores, sent | {"trouble": message}))
    rows = rows_of(report)
    if file := str(form.get("format", "")):
        if file not in exporting.FORMATS:
            raise Problem("invalid_request", "format: csv or parquet")
        return exporting.file_of("what-if", file, _COLUMNS, rows)
    shown = sent | {"report": report, "rows": rows[:_ROWS_MAX], "more": max(0, len(rows) - _ROWS_MAX)}
    customers = by_customer(rows)
    shown |= {
        "customers": customers[:_CUSTOMERS_MAX],
        "more_customers": max(0, len(customers) - _CUSTOMERS_MAX),
        "totals": report.totals(),
    }
    return await visit.services.pool.ask(lambda stores: _values(visit, stores, shown))


def _values(visit: Visit, stores: Stores, result: Mapping[str, Any]) -> Values:
    configuration = stores.history.latest.configuration
    plans = {plan.id: plan for plan in configuration.plans}
    chosen = asked.text(visit.request, "plan", 200)
    plan = plans.get(chosen) if chosen else next(iter(plans.values()), None)
    if plan is None and chosen:
        raise Problem("not_found", f"no plan {chosen!r} in the configuration that is in force")
    contracts = defaultdict(list)
    for customer in configuration.customers:
        for contract in customer.contracts:
            contracts[contract.plan].append(customer.id)
    return {
        "plans": [(one, len(contracts[one.id])) for one in plans.values()],
        "plan": plan,
        "versions": versions_of(plan) if plan else [],
        "customers_of": sorted(set(contracts[plan.id])) if plan else [],
        "text": result.get("text") or (text_of(plan) if plan else ""),
        "revision": stores.history.latest.version,
        "result": result,
        "chart": chart_of(result.get("customers", [])),
    }


def text_of(plan: Plan) -> str:
    """Return the plan as the YAML that a what-if takes."""
    return _yaml({"plans": [plan.model_dump(mode="json", exclude_unset=True)]})


def versions_of(plan: Plan) -> list[dict[str, Any]]:
    """Return the versions, newest first, each with its charges and how it differs from the one before."""
    found = []
    for index, version in enumerate(plan.versions):
        before = _lines(plan.versions[index - 1]) if index else []
        lines = _lines(version)
        changes = list(difflib.unified_diff(before, lines, lineterm="", n=1))[2:] if index else []
        found.append({"number": index + 1, "version": version, "changes": changes, "text": "\n".join(lines)})
    return found[::-1]


def _lines(version: PlanVersion) -> list[str]:
    return _yaml(version.model_dump(mode="json", exclude_unset=True)).splitlines()


def _yaml(plain: Any) -> str:
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)


def _run(visit: Visit, text: str, first: int | None, last: int | None) -> whatif.Report:
    with tempfile.TemporaryDirectory(prefix="whatif-") as directory:
        path = Path(directory) / "plans.yaml"
        path.write_text(text, encoding="utf-8")
        return whatif.whatif(visit.services.settings, path, first, last)


def rows_of(report: whatif.Report) -> list[dict[str, Any]]:
    """Return the rows with times, the largest difference first."""
    rows = []
    for row in report.rows.iter_rows(named=True):
        start = EPOCH + timedelta(microseconds=row.pop("period_start_us"))
        rows.append(row | {"period_start": start})
    return sorted(rows, key=lambda row: (-abs(row["difference"]), row["customer"], row["charge"]))


def by_customer(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the amounts of each customer and currency, the largest difference first."""
    names = ("amount_booked", "amount_whatif", "difference")
    sums: dict[tuple[str, str], dict[str, Decimal]] = {}
    for row in rows:
        one = sums.setdefault((row["customer"], row["currency"]), dict.fromkeys(names, Decimal(0)))
        for name in names:
            one[name] += row[name]
    found = [{"customer": customer, "currency": currency, **one} for (customer, currency), one in sums.items()]
    return sorted(found, key=lambda row: (-abs(row["difference"]), row["customer"]))


def chart_of(customers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for each customer the widths of bars in per cent of the largest amount, or change, of its currency."""
    largest: dict[str, Decimal] = defaultdict(lambda: Decimal(1))
    changed: dict[str, Decimal] = defaultdict(Decimal)
    for row in customers:
        currency = row["currency"]
        largest[currency] = max(largest[currency], abs(row["amount_booked"]), abs(row["amount_whatif"]))
        changed[currency] = max(changed[currency], abs(row["difference"]))
    return [
        row
        | {
            "booked_width": round(float(abs(row["amount_booked"]) * 100 / largest[row["currency"]]), 2),
            "whatif_width": round(float(abs(row["amount_whatif"]) * 100 / largest[row["currency"]]), 2),
            "difference_width": round(float(abs(row["difference"]) * 100 / (changed[row["currency"]] or 1)), 2),
        }
        for row in customers
    ]


def _hour(name: str, text: str) -> int | None:
    if not text:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise Problem("invalid_request", f"{name}: {text!r} is no time such as 2026-10-05T14:00") from None
    when = when.replace(tzinfo=EPOCH.tzinfo) if when.tzinfo is None else when
    return int((when - EPOCH).total_seconds()) // 3600


PAGE = Page("/plans", "plans", "Plans", "plans.html", show, act=act, whole=True)
