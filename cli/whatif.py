"""`meterbridge whatif`: what the booked usage would have come to under other plans."""

import csv
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.context import context
from cli.output import emit, note, progress, table
from core.errors import InvalidRequest

if TYPE_CHECKING:
    from flows.whatif import Report

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_COLUMNS: Final = (
    "customer",
    "contract",
    "charge",
    "period_start",
    "currency",
    "quantity_booked",
    "quantity_whatif",
    "amount_booked",
    "amount_whatif",
    "difference",
)


def whatif(
    plans: Annotated[Path, typer.Option(help="YAML file with `plans:`, and `customers:` if contracts change.")],
    begins: Annotated[
        str | None, typer.Option("--from", help="First booked hour, such as 2026-10-01T00; default: the first of all.")
    ] = None,
    ends: Annotated[
        str | None, typer.Option("--to", help="First booked hour left out; default: up to the last complete one.")
    ] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write all rows to this file, exact.")] = None,
    limit: Annotated[int, typer.Option(min=0, max=10_000, help="Rows shown, largest difference first.")] = 30,
) -> None:
    """Re-rate booked usage under other plans, and show the difference. Nothing stored is changed."""
    from flows import whatif as flow  # noqa: PLC0415

    first, last = _hour("--from", begins), _hour("--to", ends)
    with progress("Rating facts", None) as advance:
        report = flow.whatif(context().settings, plans, first, last, advance)
    rows = rows_of(report)
    if csv_file is not None:
        write_csv(csv_file, rows)
    totals = report.totals()
    window = {"from": _time(report.window.begins), "to": _time(report.window.ends)}
    data = {
        "window": window,
        "config_version": report.config_version,
        "facts": report.facts,
        "totals": totals,
        "rows": rows,
        "unpriced": report.unpriced.to_dicts(),
    }
    emit(data, *([] if context().json else [differences_table(report, rows, limit), totals_table(totals)]))
    if len(rows) > limit:
        where = f"; all are in {csv_file}" if csv_file else ": --csv FILE writes all"
        note(f"{len(rows) - limit:,} more rows{where}.")
    for customer, tenant, meter, events in report.unpriced.iter_rows():
        owner = f"of customer {customer}" if customer else "without a customer"
        note(f"No price under these plans: {events:,} events of {meter}, subject {tenant}, {owner}.")


def rows_of(report: "Report") -> list[dict[str, Any]]:
    """Return all rows as plain values."""
    return [
        row | {"period_start": _EPOCH + timedelta(microseconds=row.pop("period_start_us"))}
        for row in report.rows.iter_rows(named=True)
    ]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write all rows, exact.

    :raises InvalidRequest: the file cannot be written.
    """
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            for row in rows:
                writer.writerow([_cell(row[name]) for name in _COLUMNS])
    except OSError as error:
        message = f"cannot write {path}: {error.strerror}; choose another file with --csv"
        raise InvalidRequest(message) from error


def _cell(value: Any) -> str:
    if isinstance(value, Decimal):
        return _exact(value)
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%SZ}"
    text = str(value)
    # A spreadsheet would run a text that begins like a formula.
    return f"'{text}" if text[:1] in {"=", "+", "-", "@"} else text


def _exact(value: Decimal) -> str:
    """Return the number without an exponent and without zeros at its end."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def differences_table(report: "Report", rows: list[dict[str, Any]], limit: int) -> Any:
    """Return the rows with the largest differences as a table."""
    title = (
        f"Booked from {_time(report.window.begins):%Y-%m-%d %H:00} to {_time(report.window.ends):%Y-%m-%d %H:00} UTC"
    )
    largest = sorted(rows, key=lambda row: abs(row["difference"]), reverse=True)[:limit]
    numeric = ("quantity", "booked", "what if", "difference")
    cells = [
        [
            f"{row['customer']} {row['contract']}",
            row["charge"],
            f"{row['period_start']:%Y-%m-%d}",
            _exact(row["quantity_whatif"]),
            *(_money(row[name], row["currency"]) for name in ("amount_booked", "amount_whatif", "difference")),
            row["currency"],
        ]
        for row in largest
    ]
    return table(title, ("customer, contract", "charge", "period", *numeric, "currency"), cells, right=numeric)


def totals_table(totals: dict[str, dict[str, Decimal]]) -> Any:
    """Return the sums by currency as a table."""
    numeric = ("booked", "what if", "difference")
    cells = [[currency, *(_money(value, currency) for value in sums.values())] for currency, sums in totals.items()]
    return table("Totals", ("currency", *numeric), cells, right=numeric)


def _money(amount: Decimal, currency: str) -> str:
    """Return the amount for a person, rounded as documents round."""
    from operators.cents import cents  # noqa: PLC0415

    return f"{cents(amount, currency):,f}"


def _time(hour: int) -> datetime:
    return _EPOCH + timedelta(hours=hour)


def _hour(option: str, text: str | None) -> int | None:
    """Return a whole UTC hour as hours since 1970."""
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        message = f"{option} {text!r} is not a time such as 2026-10-01T00 or 2026-10-01T00:00Z"
        raise InvalidRequest(message) from error
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    hour, rest = divmod(when - _EPOCH, timedelta(hours=1))
    if rest:
        message = f"{option} {text} is not a whole hour: usage is booked by the hour"
        raise InvalidRequest(message)
    return hour
