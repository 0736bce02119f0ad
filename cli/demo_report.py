"""What the demo shows at its end: numbers read back from the stores, and checks that they agree."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table

from config.revision import Configuration
from config.settings import Settings
from core.currencies import exponent
from core.reasons import VOID_TYPE
from sinks import ledger
from sinks.clickhouse.client import connect
from sinks.erp.journal_balances import balances
from sinks.ledger import documents

TENANTS_SHOWN_MAX = 12


@dataclass(frozen=True, slots=True)
class Check:
    """One identity: what is compared, the two numbers, and whether they agree."""

    name: str
    left: str
    right: str

    @property
    def holds(self) -> bool:
        """Tell whether both sides are the same."""
        return self.left == self.right


@dataclass(slots=True)
class Report:
    """Everything the demo prints, as plain values (`--json` prints the same)."""

    entries: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    rejected_by_reason: dict[str, int] = field(default_factory=dict)
    usage: list[dict[str, Any]] = field(default_factory=list)
    corrections: list[dict[str, Any]] = field(default_factory=list)
    amounts: list[dict[str, Any]] = field(default_factory=list)
    unrated: list[dict[str, Any]] = field(default_factory=list)
    documents: dict[str, int] = field(default_factory=dict)
    books_title: str = ""
    books: list[dict[str, Any]] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Tell whether every check holds."""
        return all(check.holds for check in self.checks)


@dataclass(frozen=True, slots=True)
class Books:
    """What the ERP holds: rows with at least `account`, `currency` and `balance` (debit positive)."""

    title: str
    rows: list[dict[str, Any]]
    revenue_accounts: frozenset[str]


def journal_books(directory: Path) -> Books:
    """Return the balances in the journal."""
    found = sorted(balances(directory).items())
    rows = [{"account": account, "currency": currency, "balance": balance} for (account, currency), balance in found]
    income = frozenset(account for (account, _), _ in found if account.startswith("Income:"))
    return Books("The books (journal)", rows, income)


class Reader:
    """Reads the numbers of a finished run from ClickHouse and the ledger database, and compares them with the books."""

    def __init__(self, settings: Settings, configuration: Configuration, books: Books) -> None:
        self._books = books
        self._settings = settings
        self._configuration = configuration
        self._client = connect(settings.clickhouse)
        self._engine = ledger.connect(settings.ledger_url)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self._engine.dispose()

    def _rows(self, query: str, **parameters: Any) -> list[dict[str, Any]]:
        database = self._settings.clickhouse.database
        result = self._client.query(query.replace("@", f"{database}."), parameters=parameters)
        return [dict(zip(result.column_names, row, strict=True)) for row in result.result_rows]

    def report(self, sent: Mapping[str, int]) -> Report:
        """Read everything and check it against what was sent."""
        report = Report(entries=sent["entries"])
        intake = self._rows("SELECT outcome, reason, sum(events) AS events FROM @intake_counts_current GROUP BY ALL")
        for row in intake:
            report.outcomes[row["outcome"]] = report.outcomes.get(row["outcome"], 0) + int(row["events"])
            if row["outcome"] == "rejected":
                report.rejected_by_reason[row["reason"]] = int(row["events"])
        report.usage = self._usage()
        report.corrections = self._rows(
            "SELECT meter, sum(events) AS events, sum(value) AS value, count() AS facts,"
            " max(dateDiff('minute', usage_minute, booked_minute)) AS minutes_late_max"
            " FROM @usage_facts_current WHERE booked_minute > usage_minute AND meter IN {meters:Array(String)}"
            " GROUP BY meter ORDER BY meter",
            meters=self._additive(),
        )
        report.amounts = self._rows(
            "SELECT customer, currency, sumIf(r.amount, line_kind NOT IN ('fee', 'true_up', 'breakage')) AS usage,"
            " sumIf(r.amount, line_kind IN ('fee', 'true_up', 'breakage')) AS fees, sum(r.amount) AS total,"
            " sum(r.events) AS events FROM @rated_usage_current AS r WHERE status = 'sealed'"
            " GROUP BY customer, currency ORDER BY total DESC"
        )
        report.unrated = self._rows(
            "SELECT tenant, meter, sum(quantity) AS quantity FROM @rated_usage_current WHERE status = 'unrated'"
            " GROUP BY tenant, meter ORDER BY tenant, meter"
        )
        report.documents = documents.count_by_state(self._engine)
        report.books_title, report.books = self._books.title, self._books.rows
        report.checks = [*self._intake_checks(report, sent), *self._fact_checks(), *self._money_checks(report)]
        return report

    def _additive(self) -> list[str]:
        return [meter.id for meter in self._configuration.meters if meter.aggregation in ("count", "sum")]

    def _usage(self) -> list[dict[str, Any]]:
        meters = self._additive()
        columns = ", ".join(
            f"sumIf(value, meter = {{m{index}:String}}) AS `{name}`" for index, name in enumerate(meters)
        )
        return self._rows(
            f"SELECT tenant, {columns} FROM @usage_facts_current GROUP BY tenant"  # noqa: S608
            f" ORDER BY `{meters[0]}` DESC",
            **{f"m{index}": name for index, name in enumerate(meters)},
        )

    def _intake_checks(self, report: Report, sent: Mapping[str, int]) -> list[Check]:
        decided = sum(report.outcomes.values())
        events = self._rows("SELECT count() AS n FROM @usage_events_current")[0]["n"]
        checks = [
            Check("events sent = accepted + duplicates + conflicts + rejected", f"{sent['events']:,}", f"{decided:,}"),
            Check("accepted = rows in usage_events", f"{report.outcomes.get('accepted', 0):,}", f"{events:,}"),
        ]
        for outcome in ("accepted", "duplicate", "conflicting_duplicate", "rejected"):
            if outcome in sent:
                name = f"{outcome}: as the generator made them"
                checks.append(Check(name, f"{sent[outcome]:,}", f"{report.outcomes.get(outcome, 0):,}"))
        for meter in ("input_tokens", "output_tokens"):
            if meter in sent:
                metered = sum((Decimal(row[meter]) for row in report.usage if meter in row), Decimal(0))
                checks.append(
                    Check(f"{meter}: as sent, voids taken off = usage", f"{sent[meter]:,}", f"{metered:,.0f}")
                )
        return checks

    def _fact_checks(self) -> list[Check]:
        """Check per meter: accepted events of its type, less voids, less exceptions = events in facts."""
        accepted = {
            row["type"]: row["n"]
            for row in self._rows("SELECT type, count() AS n FROM @usage_events_current GROUP BY type")
        }
        voids = {
            row["original"]: row["n"]
            for row in self._rows(
                "SELECT JSONExtractString(data, 'data', 'type') AS original, count() AS n FROM @usage_events_current"
                " WHERE type = {void:String} GROUP BY original",
                void=VOID_TYPE,
            )
        }
        facts = {
            row["meter"]: row["n"]
            for row in self._rows("SELECT meter, sum(events) AS n FROM @usage_facts_current GROUP BY meter")
        }
        checks = []
        for meter in self._configuration.meters:
            if meter.filter:
                continue
            expected = accepted.get(meter.event_type, 0)
            if meter.aggregation in ("count", "sum"):
                expected -= voids.get(meter.event_type, 0)
            checks.append(Check(f"{meter.id}: events in facts", f"{expected:,}", f"{facts.get(meter.id, 0):,}"))
        return checks

    def _money_checks(self, report: Report) -> list[Check]:
        """Check that the rounded revenue of every charge and period is what the documents and the books hold."""
        chains = self._rows(
            "SELECT customer, contract, plan, plan_version, charge, price_row, period_start, currency,"
            " sum(revenue_amount) AS amount FROM @rated_usage_current WHERE status = 'sealed' GROUP BY ALL"
        )
        rated: dict[str, Decimal] = {}
        for row in chains:
            step = Decimal(1).scaleb(-exponent(row["currency"]))
            rounded = row["amount"].quantize(step, ROUND_HALF_UP)
            rated[row["currency"]] = rated.get(row["currency"], Decimal(0)) + rounded
        drafted = documents.net_totals(self._engine)
        checks = [
            Check(
                f"{currency}: revenue, rounded per charge and period = documents",
                f"{amount:,}",
                f"{drafted.get(currency, Decimal(0)):,}",
            )
            for currency, amount in sorted(rated.items())
        ]
        for currency, amount in sorted(drafted.items()):
            booked = sum(
                (
                    -row["balance"]
                    for row in report.books
                    if row["currency"] == currency and row["account"] in self._books.revenue_accounts
                ),
                Decimal(0),
            )
            checks.append(Check(f"{currency}: documents = revenue in the books", f"{amount:,}", f"{booked:,}"))
        seals = self._rows(
            "SELECT f.meter AS meter, f.value AS facts, r.quantity AS rated FROM"
            " (SELECT meter, sum(value) AS value FROM @usage_facts_current WHERE sealed = 1 GROUP BY meter) AS f"
            " INNER JOIN (SELECT meter, sum(quantity) AS quantity FROM @rated_usage_current"
            " WHERE status != 'provisional' AND line_kind IN ('usage', 'late_usage', 'void') GROUP BY meter) AS r"
            " ON f.meter = r.meter WHERE f.meter IN {meters:Array(String)} ORDER BY meter",
            meters=self._additive(),
        )
        checks.extend(
            Check(
                f"{row['meter']}: sealed facts = rated + unrated",
                f"{row['facts'].normalize():,f}",
                f"{row['rated'].normalize():,f}",
            )
            for row in seals
        )
        return checks


def rows_table(
    title: str, rows: list[dict[str, Any]], limit: int | None = None, hidden: Collection[str] = ()
) -> RenderableType:
    """Return rows of one shape for a person, numbers to the right, without the columns of those names."""
    if not rows:
        return Group(f"[bold]{title}[/]", "  none")
    table = Table()
    shown = [name for name in rows[0] if name not in hidden]
    for name in shown:
        table.add_column(name.replace("_", " "), justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows[:limit]:
        digits = exponent(row["currency"]) if "currency" in row else None
        values = (row[name] for name in shown)
        table.add_row(*(value if isinstance(value, str) else _number(value, digits) for value in values))
    if limit is not None and len(rows) > limit:
        table.add_row(f"... {len(rows) - limit} more", *[""] * (len(shown) - 1))
    return Group(f"[bold]{title}[/]", table)


def _number(value: Any, digits: int | None) -> str:
    """Return a number for people: money with its currency's digits, other decimals with two or none."""
    if isinstance(value, Decimal):
        if digits is not None:
            return f"{value.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP):,}"
        return f"{value.quantize(Decimal('0.01')):,}" if value % 1 else f"{value.quantize(Decimal(1)):,}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def show(console: Console, report: Report) -> None:
    """Print the report for a person."""
    intake = [{"outcome": name, "events": number} for name, number in sorted(report.outcomes.items())]
    intake += [{"outcome": f"  rejected: {name}", "events": n} for name, n in sorted(report.rejected_by_reason.items())]
    console.print(rows_table(f"Intake of {report.entries:,} stream entries", intake))
    console.print(rows_table("Usage per tenant", report.usage, TENANTS_SHOWN_MAX))
    console.print(rows_table("Late usage, booked when it arrived", report.corrections))
    console.print(
        rows_table("Amounts per customer (fees: what is due whatever the usage, since billing began)", report.amounts)
    )
    console.print(rows_table("Usage nobody pays for yet", report.unrated))
    console.print(rows_table("Documents by state", [{"state": k, "documents": v} for k, v in report.documents.items()]))
    console.print(rows_table(report.books_title, report.books))
    console.print(checks_table(report.checks))


def checks_table(checks: Iterable[Check]) -> RenderableType:
    """Return the checks for a person."""
    found = Table()
    for name in ("check", "one side", "other side", ""):
        found.add_column(name, justify="left" if name in ("check", "") else "right")
    for check in checks:
        found.add_row(check.name, check.left, check.right, "[green]yes[/]" if check.holds else "[red]NO[/]")
    return Group("[bold]Do all these agree?[/]", found)
