"""Templates of the generic REST adapter: pure. From a posting to a request, and from an answer to values."""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from urllib.parse import quote

import orjson

from config.erp_rest import PLACEHOLDER, Place
from sinks.erp.port import Posting, PostingLine
from sinks.ledger.times import MS_PER_HOUR, to_datetime

HEADER: Final = "header."


def posting_values(posting: Posting, attempt_id: str) -> dict[str, Any]:
    """Return what a template may name, without the lines."""
    return {
        "key": posting.key,
        "digest": posting.digest,
        "company": posting.company,
        "entity": posting.entity,
        "currency": posting.currency,
        "accounting_period": posting.accounting_period,
        "posting_date": posting.posting_date.isoformat(),
        "booked_day": to_datetime(posting.booked_hour * MS_PER_HOUR).date().isoformat(),
        "kind": posting.kind,
        "description": posting.description,
        "customer": posting.customer,
        "reverses": posting.reverses,
        "trace_url": posting.trace_url or None,
        "attempt_id": attempt_id,
        "documents": list(posting.document_keys),
        "state": posting.extra.get("state", "posted"),
    }


def line_values(line: PostingLine, number: int) -> dict[str, Any]:
    """Return what the template of a line may name. A negative amount stands on the other side."""
    is_debit = line.signed >= 0
    codes = line.dimensions if line.erp_dimensions is None else line.erp_dimensions
    by_our_name = {name: value for (name, _), (_, value) in zip(line.dimensions, codes, strict=True)}
    amount = format(line.signed.copy_abs(), "f")
    return {
        "line": str(number),
        "account": line.account,
        "account_role": line.account_role,
        "side": "debit" if is_debit else "credit",
        "side_title": "Debit" if is_debit else "Credit",
        "amount": amount,
        "signed": format(line.signed, "f"),
        "debit": amount if is_debit else None,
        "credit": None if is_debit else amount,
        "customer": line.customer,
        "party": line.party,
        "tax_code": line.tax_code,
        "dimensions": dict(line.dimensions) if line.erp_dimensions is None else dict(line.sent_dimensions),
        **{f"dimension.{name}": value or None for name, value in by_our_name.items()},
    }


def render(template: Any, values: Mapping[str, Any]) -> Any:
    """Return the template with its placeholders filled.

    A text that is one placeholder becomes the value itself, `{name:number}` a JSON number with every digit; in a
    mapping, what has no value is left out. Inside a longer text no value is the empty text.
    """
    if isinstance(template, str):
        whole = PLACEHOLDER.fullmatch(template)
        if whole is None:
            return fill(template, values)
        value = values.get(whole[1])
        if whole[2] is None or value is None:
            return value
        return orjson.Fragment(format(Decimal(str(value)), "f").encode())
    if isinstance(template, Mapping):
        rendered = {name: render(value, values) for name, value in template.items()}
        return {name: value for name, value in rendered.items() if value is not None}
    if isinstance(template, list | tuple):
        return [render(value, values) for value in template]
    return template


def fill(template: str, values: Mapping[str, Any], *, is_path: bool = False) -> str:
    """Return a text with its placeholders filled; in a path the values are escaped."""

    def value(match: re.Match[str]) -> str:
        found = values.get(match[1])
        text = "" if found is None else str(found)
        return quote(text, safe="") if is_path else text

    return PLACEHOLDER.sub(value, template)


def find(place: Place, answer: Any, headers: Mapping[str, str] | None = None) -> str:
    """Return the text at a place of an answer, empty if there is none."""
    if place.path.startswith(HEADER):
        value: Any = (headers or {}).get(place.path[len(HEADER) :].lower())
    else:
        value = walk(answer, place.path)
    if value is None or isinstance(value, Mapping | list):
        return ""
    text = format(value, "f") if isinstance(value, Decimal) else str(value)
    if not place.pattern:
        return text
    match = re.search(place.pattern, text)
    return "" if match is None else match[1] or ""


def walk(value: Any, path: str) -> Any:
    """Follow a dotted path of names and list indexes; None if it leads nowhere. The empty path is the value itself."""
    for part in path.split(".") if path else ():
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def decimal_or_none(text: str) -> Decimal | None:
    """Return a finite amount, or None."""
    try:
        amount = Decimal(text.replace(",", ""))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() else None


def moment_or_none(text: str) -> datetime | None:
    """Return a time; one without a zone is UTC."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def date_or_none(text: str) -> date | None:
    """Return the day a text begins with, as most ERPs write it, or None."""
    try:
        return date.fromisoformat(text[:10])
    except ValueError:
        return None
