"""How traces look to a person."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from rich.console import RenderableType

from cli.output import key_values, table
from queries.document_events import Summary
from queries.document_trace import ChargeTrace, DocumentTrace
from queries.event_times import TimedStep
from queries.event_trace import EventTrace, MeterTrace
from queries.stores import of_hour


def _time(value: datetime | None) -> str:
    return "" if value is None else f"{value:%Y-%m-%d %H:%M:%S}"


def event_parts(trace: EventTrace) -> list[RenderableType]:
    """Return what `trace event` prints."""
    parts: list[RenderableType] = [f"[bold]{trace.outcome.upper()}[/]  {trace.source}  {trace.id}"]
    if trace.accepted is not None:
        row = trace.accepted
        parts.append(
            key_values(
                {
                    "type": row["type"],
                    "tenant": row["tenant"],
                    "event time": _time(row["event_time"]),
                    "arrived": f"{_time(row['ingest_time'])}, {row['stream']} {row['entry_id']} [{row['entry_index']}]",
                    "booked": f"{_time(row['booked_minute'])}{_lateness(row)}",
                    "event": row["data"],
                }
                | ({"request": trace.request} if trace.request else {})
            )
        )
    if trace.refused:
        rows = [
            (_time(row["ingest_time"]), f"{row['stream']} {row['entry_id']}", row["reason"], row["detail"])
            for row in trace.refused
        ]
        parts.append(table("Refused, or not usable by a meter", ("arrived", "position", "reason", "detail"), rows))
    if trace.voids:
        void_rows = [(_time(row["ingest_time"]), row["source"], row["id"]) for row in trace.voids]
        parts.append(table("Taken back by", ("arrived", "source", "id"), void_rows))
    for meter in trace.meters:
        parts.extend(_meter_parts(meter))
    return parts


def times_parts(steps: Sequence[TimedStep]) -> list[RenderableType]:
    """Return when each step was, and how long it took."""
    rows = [(step.step, _time(step.at), "" if step.took is None else _duration(step.took)) for step in steps]
    return [table("Times", ("step", "UTC", "took"), rows, right=("took",))]


def _duration(took: timedelta) -> str:
    """Return a duration to the millisecond under a minute, else to the second."""
    if abs(took) < timedelta(minutes=1):
        return f"{took.total_seconds():.3f} s"
    rounded = timedelta(seconds=round(took.total_seconds()))
    return str(rounded) if rounded >= timedelta(0) else f"-{-rounded}"


def _value(meter: MeterTrace) -> str:
    return _plain(meter.value) if isinstance(meter.value, Decimal) else str(meter.value)


def _lateness(row: dict[str, Any]) -> str:
    late = row["booked_minute"] - row["event_time"].replace(second=0, microsecond=0)
    return "" if late.total_seconds() <= 0 else f"  (late by {late}: booked when it arrived)"


def _meter_parts(meter: MeterTrace) -> list[RenderableType]:
    dimensions = ", ".join(f"{name}={value}" for name, value in meter.dimensions.items())
    parts: list[RenderableType] = [
        f"\n[bold]{meter.meter}[/] ({meter.aggregation}) {_value(meter)}  {dimensions}"
        f"  used {_time(meter.usage_minute)}"
    ]
    for fact in meter.facts:
        state = "sealed" if fact["sealed"] else "open"
        value = f"{fact['value'].normalize():,f}"
        parts.append(f"  fact        {value} of {fact['events']} events, {state}, version {fact['version']}")
    parts.extend(
        f"  rated       {row['charge']} ({row['plan']} v{row['plan_version']}) {row['line_kind']}:"
        f" {row['quantity'].normalize():,f} in the hour = {row['amount'].normalize():,f} {row['currency']},"
        f" {row['status']}, booked {_time(row['booked_hour'])}"
        for row in meter.rated
    )
    if not meter.rated:
        parts.append("  rated       by no charge")
    for row in meter.documents:
        parts.append(f"  document    {row['key']}  {row['total'].normalize():,f} {row['currency']}  {row['state']}")
        posting = row["posting"]
        if posting:
            numbers = ", ".join(entry["number"] for entry in posting["erp_entries"]) or "no ERP number yet"
            reason = f" ({posting['reason']}: {posting['detail']})" if posting["reason"] else ""
            parts.append(
                f"  posting     {posting['key']} {posting['state']}{reason} in {posting['adapter']}: {numbers},"
                f" {len(posting['attempts'])} attempt(s), last change {_time(posting['changed_at'])}"
            )
    return parts


def document_parts(trace: DocumentTrace, events: Sequence[Summary]) -> list[RenderableType]:
    """Return what `trace document` prints."""
    head = trace.document
    parts: list[RenderableType] = [
        f"[bold]{head['key']}[/]  {head['total']} {head['currency']}  {trace.state}",
        key_values(
            {
                "customer": f"{head['customer']} ({head['contract']})",
                "entity": head["entity"],
                "booked hour": _time(of_hour(head["booked_hour"])),
                "accounting period": head["accounting_period"],
                "configuration": head["config_version"],
                "digest of rows": head["source_digest"],
            }
            | _posting_facts(trace)
        ),
    ]
    if trace.correction is not None:
        parts.extend(_correction_parts(trace.correction))
    by_charge = {(summary.charge, summary.meter): summary for summary in events}
    for charge in trace.charges:
        parts.extend(_charge_parts(charge, by_charge.get((charge.name[2], charge.name[4]))))
    return parts


def _correction_parts(correction: dict[str, Any]) -> list[RenderableType]:
    parts: list[RenderableType] = [
        f"corrects prices: {correction['id']} ({correction['reason_code']}), plan {correction['plan']} from"
        f" {correction['from']}, approved by {correction['approved_by']}: {correction['reason']}"
    ]
    rows = [
        (one["document"], one["charge"], _time(one["booked_hour"]), one["accounting_period"], _plain(one["amount"]))
        for one in correction["corrects"]
    ]
    columns = ("document", "charge", "booked hour", "accounting period", "amount")
    title = f"Corrects what was booked before, {correction['corrected']:,} documents and charges"
    return [*parts, table(title, columns, rows, right=("amount",))]


def _posting_facts(trace: DocumentTrace) -> dict[str, str]:
    if trace.posting is None:
        return {"posting": "none yet"}
    posting = trace.posting
    numbers = ", ".join(entry["number"] for entry in posting["erp_entries"]) or "no ERP number yet"
    return {
        "posting": f"{posting['key']} {posting['state']} with {posting['documents']} document(s)",
        "ERP": f"{posting['adapter']}: {numbers}",
    }


def _charge_parts(charge: ChargeTrace, summary: Summary | None) -> list[RenderableType]:
    plan, version, name, price_row, meter, start = charge.name
    row = f" {price_row}" if price_row else ""
    parts: list[RenderableType] = [f"\n[bold]{name}{row}[/]  {plan} v{version}  {meter}  period from {_time(start)}"]
    rows = [
        (
            entry["kind"],
            _span(entry),
            _plain(Decimal(entry["quantity"])),
            _plain(Decimal(entry["cumulative_before"])),
            _plain(Decimal(entry["amount_exact"])),
            _plain(Decimal(entry["cumulative_after"])),
        )
        for entry in charge.entries
    ]
    numeric = ("quantity", "before", "exact amount", "after")
    parts.append(table("", ("kind", "service", *numeric), rows, right=numeric))
    parts.append(f"  rated rows  {len(charge.rated):,}, amounts tie: {_said(charge.amounts_tie)}")
    if charge.facts:
        quantity = "values do not add up by nature" if charge.quantities_tie is None else _said(charge.quantities_tie)
        parts.append(f"  facts       {len(charge.facts):,}, quantity ties: {quantity}")
    if summary is not None and summary.expired and not summary.ties:
        parts.append(
            f"  events      expired by policy; {summary.events:,} of {summary.facts_events:,} are still there, totals"
            " of all are kept: `meterbridge reconcile` compares them"
        )
    elif summary is not None:
        total = "" if summary.sum is None else f", sum {_plain(summary.sum)}"
        parts.append(
            f"  events      {summary.events:,} and {summary.voids:,} voids{total}, {_time(summary.first)} to"
            f" {_time(summary.last)}, count ties: {_said(summary.ties)}"
        )
    return parts


def _span(entry: dict[str, Any]) -> str:
    """Return from when to when the entry's usage took place, to the hour."""
    begins, ends = (datetime.fromisoformat(entry[name]) for name in ("service_from", "service_to"))
    return f"{begins:%m-%d %H:%M} to {ends:%m-%d %H:%M}"


def _plain(value: Decimal) -> str:
    return f"{value.normalize():,f}"


def _said(holds: bool) -> str:
    return "[green]yes[/]" if holds else "[red]NO[/]"
