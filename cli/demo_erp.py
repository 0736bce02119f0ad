"""`meterbridge demo-erp`: a month end with a real Tryton as the ERP, from nothing to its trial balance.

Usage before and after a month's end is sent, metered, rated and posted every hour; an invoice run bills the month; then
everything is read back from Tryton. Runs in a state directory of its own (`.meterbridge/demo-erp`), empty at first,
with the configuration `config/examples/demo_erp.yaml`. All servers end with it.
"""

import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
import typer
import yaml

from cli import demo_erp_books as tryton_books
from cli import demo_erp_report, demo_report
from cli import demo_steps as steps
from cli.context import context
from cli.output import emit, note, progress
from core.errors import Disagreement, InvalidRequest

if TYPE_CHECKING:
    from config.revision import Configuration
    from config.settings import Settings
    from stack.tryton_stack import RunningTryton

DEMO_DIRECTORY: Final = "demo-erp"
ROOT: Final = Path(__file__).resolve().parents[1]
EXAMPLE: Final = ROOT / "config" / "examples" / "demo_erp.yaml"
USAGE_BEFORE: Final = timedelta(hours=30)
USAGE_AFTER: Final = timedelta(hours=30)
"""Past the invoice's cut-off, so that some usage is left for the next invoice."""
CUT_OFF: Final = timedelta(days=1)
"""The entity's `invoicing.grace`."""
RUN_MAX: Final = timedelta(minutes=15)
SETTLED: Final = timedelta(minutes=5)
TAX_RATE: Final = "0.10"
"""Tryton names the tax after it; the configuration maps a tax category to that name."""
_LIKE: Final = {
    "unbilled_receivable": "cash",
    "contract_asset": "cash",
    "accounts_receivable": "receivable",
    "contract_liability": "tax",
    "tax_payable": "tax",
    "usage_revenue": "revenue",
    "subscription_revenue": "revenue",
    "shortfall_revenue": "revenue",
}
"""Which account of Tryton's chart has the type for a role."""


def demo_erp(
    events: Annotated[int, typer.Option(min=1_000, max=1_000_000, help="Events to generate.")] = 30_000,
    seed: Annotated[int, typer.Option(help="Seed of the generated workload.")] = 7,
) -> None:
    """Show a month end with Tryton as the ERP: accruals, invoices, trial balance, and that it all agrees.

    The first run of a checkout installs Tryton into an environment of its own and sets up a company.
    """
    from core.clock import SystemClock  # noqa: PLC0415
    from stack.supervisor import Stack  # noqa: PLC0415

    cli = context()
    if cli.config is not None:
        message = f"demo-erp has a configuration of its own, {EXAMPLE}: call it without --config"
        raise InvalidRequest(message)
    cli.config = EXAMPLE
    started_s, now = time.monotonic(), SystemClock().now()
    settings = steps.settings_of(cli.settings, DEMO_DIRECTORY)
    settings = settings.model_copy(update={"state_dir": settings.state_dir.resolve()})
    month_end = last_month_end(now)
    stack = Stack(settings)
    with _ended_by_sigterm():
        try:
            steps.start_empty(stack, settings)
            note(f"Started Valkey at {settings.redis.url} and ClickHouse at {settings.clickhouse.url}.")
            report = _run(settings, month_end, now, events, seed)
        finally:
            stack.stop()
    _show(report, time.monotonic() - started_s)
    if not report.agrees:
        broken = [f"{check.name}: {check.left} is not {check.right}" for check in report.broken]
        raise Disagreement("\n".join(["the demo's numbers do not agree:", *broken]))


def last_month_end(now: datetime) -> datetime:
    """Return the newest month's end (UTC) whose invoices are due, and the only one's: the run bills all that are due.

    :raises InvalidRequest: a month's invoices become due in these minutes.
    """
    end = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    if now < end + CUT_OFF - RUN_MAX:
        return _month_before(end)
    if now < end + CUT_OFF + SETTLED:
        message = f"the invoices of {_month_before(end):%Y-%m} become due in these minutes: try again in 20 minutes"
        raise InvalidRequest(message)
    return end


def _month_before(month: datetime) -> datetime:
    return (month - timedelta(days=1)).replace(day=1)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the demo as Ctrl-C does, so that it stops its servers."""
    before = signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(settings: "Settings", month_end: datetime, now: datetime, events: int, seed: int) -> demo_erp_report.ErpReport:
    from config.loader import load  # noqa: PLC0415
    from sources.workload import Workload  # noqa: PLC0415
    from stack.tryton_stack import running_tryton  # noqa: PLC0415

    raw = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    folder = settings.state_dir / "tryton"
    note("Setting up Tryton; the first run of a checkout takes a few minutes ...")
    with running_tryton(ROOT, folder, specification(raw, month_end, now)) as tryton:
        note(f"Started Tryton at {tryton.url}.")
        path = settings.state_dir / "meterbridge.yaml"
        path.write_text(yaml.safe_dump(filled(raw, tryton, month_end), sort_keys=False), encoding="utf-8")
        environment = steps.environment_of(settings, path)
        steps.call(environment, "migrate")
        start, end = usage_span(month_end, now)
        sent = steps.send(settings, Workload(seed=seed, events=events, start=start, end=end), events)
        steps.meter(environment, settings, sent["entries"])
        run = _book(environment)
        return _read(settings, load(path), environment, month_end, sent, run)


def specification(raw: Mapping[str, Any], month_end: datetime, now: datetime) -> dict[str, Any]:
    """Return the company that the configuration's entity posts to."""
    from core.currencies import exponent  # noqa: PLC0415

    (entity,) = raw["entities"]
    currency = entity["functional_currency"]
    accounts = [
        {"code": code, "name": role.replace("_", " ").capitalize(), "like": _LIKE[role]}
        | ({"unbilled": True, "party": True} if role == "unbilled_receivable" else {})
        for role, code in entity["accounts"].items()
    ]
    return {
        "company": entity["erp"]["company"],
        "currency": currency,
        "currencies": {currency: [exponent(currency), "1"]},
        "years": sorted({_month_before(month_end).year, month_end.year, now.year}),
        "closed": [],
        "accounts": accounts,
        "tax": TAX_RATE,
        "tax_account": entity["accounts"]["tax_payable"],
        "customers": {one["erp"]["customer"]: one["id"].capitalize() for one in raw["customers"]},
        "login": "usage",
    }


def filled(raw: Mapping[str, Any], tryton: "RunningTryton", month_end: datetime) -> dict[str, Any]:
    """Return the configuration with the place of this Tryton and the month in which the books open."""
    made: dict[str, Any] = orjson.loads(orjson.dumps(raw, default=str))  # a copy without YAML's own times
    made["rules"]["books_open_at"] = _month_before(month_end).isoformat()
    (entity,) = made["entities"]
    entity["erp"]["options"] |= {
        "url": tryton.url,
        "database": tryton.database,
        "credential": {"file": str(tryton.key_file)},
    }
    return made


def usage_span(month_end: datetime, now: datetime) -> tuple[datetime, datetime]:
    """Return when the first and the last usage arrives, all of it in hours that are over."""
    over = now.replace(minute=0, second=0, microsecond=0) - timedelta(minutes=5)
    return month_end - USAGE_BEFORE, min(month_end + USAGE_AFTER, over)


def _book(environment: dict[str, str]) -> list[dict[str, Any]]:
    """Post the hours, make the invoices that are due, post them, and return what the run made."""
    with progress("Posting to Tryton", 4) as advance:
        steps.call(environment, "erp", "pull")
        advance(1)
        posted = orjson.loads(steps.call(environment, "post", "--once", "--json"))
        advance(1)
        made: list[dict[str, Any]] = orjson.loads(steps.call(environment, "erp", "invoice", "--json"))["invoices"]
        advance(1)
        billed = orjson.loads(steps.call(environment, "post", "--once", "--json"))
        advance(1)
    note(f"Tryton took {posted['posted']:,} postings of usage and {billed['posted']:,} of invoices.")
    return made


def _read(
    settings: "Settings",
    configuration: "Configuration",
    environment: dict[str, str],
    month_end: datetime,
    sent: Mapping[str, int],
    run: list[dict[str, Any]],
) -> demo_erp_report.ErpReport:
    from config.erp_options import TrytonOptions  # noqa: PLC0415
    from sinks.erp.tryton_client import TrytonClient  # noqa: PLC0415

    (entity,) = configuration.entities
    revenue = frozenset(code for role, code in entity.accounts.items() if role.endswith("_revenue"))
    reconciled = _asked(environment, "reconcile", "--erp")
    ours = _asked(environment, "report", "unbilled", "--erp")
    client = TrytonClient(TrytonOptions.model_validate(entity.erp.options), entity.erp.company)
    lines = tryton_books.move_lines(client)
    numbers = demo_erp_report.ErpNumbers(
        currency=entity.functional_currency,
        revenue_accounts=revenue,
        receivable_account=entity.accounts["accounts_receivable"],
        lines=lines,
        invoices=tryton_books.invoices(client),
        unbilled=tryton_books.unbilled_by_party(
            lines,
            entity.accounts["unbilled_receivable"],
            _month_before(month_end).date(),
            (month_end + entity.invoicing.grace).date(),
        ),
        customers={one.id: one.erp.customer or "" for one in configuration.customers},
        run=run,
        not_invoiced={one["customer"]: Decimal(one["closing"]) for one in ours["customers"]},
        reconciled=reconciled["checks"],
    )
    books = tryton_books.trial_balance(lines, entity.functional_currency, revenue)
    reader = demo_report.Reader(settings, configuration, books)
    try:
        usage = reader.report(sent)
    finally:
        reader.close()
    return demo_erp_report.ErpReport(
        f"{_month_before(month_end):%Y-%m}",
        usage,
        demo_erp_report.customer_rows(numbers),
        demo_erp_report.checks(numbers),
    )


def _asked(environment: dict[str, str], *arguments: str) -> dict[str, Any]:
    """Return what a command says as JSON, also where it says that something differs."""
    answer: dict[str, Any] = orjson.loads(
        steps.call(environment, *arguments, "--json", good=(0, Disagreement.exit_code))
    )
    return answer


def _show(report: demo_erp_report.ErpReport, seconds: float) -> None:
    cli = context()
    if cli.json:
        plain = orjson.loads(orjson.dumps(asdict(report), default=str))
        emit(plain | {"agrees": report.agrees, "seconds": round(seconds, 1)})
        return
    demo_erp_report.show(cli.console, report)
    agreed = "All numbers agree." if report.agrees else "SOME NUMBERS DO NOT AGREE."
    cli.console.print(f"\n[bold]{agreed}[/] Took {seconds:.0f} s.")
