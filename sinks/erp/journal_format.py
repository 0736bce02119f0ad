"""The text of the journal: beancount syntax, written and read back by us.

One entry:

    2026-11-24 * "Meterbridge US01" "Usage booked 2026-11-24T10:00Z"
      number: "J-00000001"
      key: "ABCDEFGHIJKLMNOP"
      digest: "<64 hex digits>"
      ...
      Assets:Unbilled-Receivable:US01-1150  12.34 USD
      Income:Usage-Revenue:US01-4001  -12.34 USD

followed by an empty line. Only what this module writes is read back; comments and other directives are skipped.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import Final

from config.account_roles import is_revenue
from sinks.erp.port import Posting, PostingLine
from sinks.ledger.times import hour_text

_ROOTS: Final = {
    "unbilled_receivable": "Assets",
    "contract_asset": "Assets",
    "accounts_receivable": "Assets",
    "contract_liability": "Liabilities",
    "tax_payable": "Liabilities",
}
DOCUMENT_KEYS_PER_LINE: Final = 8
_HEADER = re.compile(r'^(\d{4}-\d{2}-\d{2}) \* "')
_METADATA = re.compile(r'^  ([a-z][a-z0-9-]*): "((?:[^"\\]|\\.)*)"$')
_LEG = re.compile(r"^  ([A-Z][^\s]*)  (-?[0-9.]+) ([A-Z][A-Z0-9]*)$")
_ANY_LEG = re.compile(r"^[ \t]+([A-Z][^\s]*)[ \t]+([-+]?[0-9][0-9,]*(?:\.[0-9]*)?)[ \t]+([A-Z][A-Z0-9]*)\b")
_DATED = re.compile(r"^(\d{4}-\d{2}-\d{2}) ")
_CUSTOMER = re.compile(r'^(  |    )customer: "((?:[^"\\]|\\.)*)"$')
_NUMBER = re.compile(r"^J-(\d+)$")


@dataclass(frozen=True, slots=True)
class ReadEntry:
    """One entry read back from a file."""

    key: str
    number: int
    digest: str
    posting_date: date
    currency: str
    lines: tuple[tuple[str, Decimal], ...]


def number_text(number: int) -> str:
    """Return the journal's own entry number as text."""
    return f"J-{number:08d}"


def quote(text: str) -> str:
    """Return a beancount string; control characters become spaces."""
    clean = text
    if not text.isprintable():
        clean = "".join(character if character.isprintable() else " " for character in text)
    return '"' + clean.replace("\\", "\\\\").replace('"', '\\"') + '"'


def account_name(entity: str, line: PostingLine) -> str:
    """Return the account, such as `Assets:Unbilled-Receivable:US01-1150`.

    Characters the syntax does not allow become `-`, and a short digest keeps such names apart.
    """
    return _account_name(entity, line.account_role, line.account)


def root_of(account_role: str) -> str | None:
    """Return what kind of account the syntax calls it, or None for an unknown role."""
    return "Income" if is_revenue(account_role) else _ROOTS.get(account_role)


@lru_cache(maxsize=10_000)
def _account_name(entity: str, account_role: str, account: str) -> str:
    plain = f"{entity}-{account}"
    name = re.sub(r"[^A-Za-z0-9-]", "-", plain)
    if not re.match(r"[A-Z0-9]", name):
        name = name[:1].upper() + name[1:] if name[:1].isalpha() else "X" + name
    if name != plain:
        name += "-" + hashlib.sha256(plain.encode()).hexdigest()[:6]
    role = "-".join(part.capitalize() for part in account_role.split("_"))
    return f"{root_of(account_role) or 'Equity'}:{role}:{name}"


def entry_text(posting: Posting, number: int) -> str:
    """Return the text of one entry."""
    metadata = {
        "number": number_text(number),
        "key": posting.key,
        "digest": posting.digest,
        "entity": posting.entity,
        "kind": posting.kind,
        "period": posting.accounting_period,
        "booked-hour": hour_text(posting.booked_hour),
    }
    if posting.customer is not None:
        metadata["customer"] = posting.customer
    if posting.reverses is not None:
        metadata["reverses"] = posting.reverses
    if posting.trace_url:
        metadata["trace"] = posting.trace_url
    keys = posting.document_keys
    for start in range(0, len(keys), DOCUMENT_KEYS_PER_LINE):
        name = "documents" if not start else f"documents-{start // DOCUMENT_KEYS_PER_LINE + 1}"
        metadata[name] = " ".join(keys[start : start + DOCUMENT_KEYS_PER_LINE])
    title = (
        f"{posting.posting_date.isoformat()} * {quote('Meterbridge ' + posting.entity)} {quote(posting.description)}"
    )
    rows = [title, *(f"  {name}: {quote(value)}" for name, value in metadata.items())]
    for line in posting.lines:
        rows.append(f"  {account_name(posting.entity, line)}  {line.signed:f} {posting.currency}")
        if line.customer is not None and posting.customer is None:
            rows.append(f"    customer: {quote(line.customer)}")
        dimensions = line.dimensions if line.erp_dimensions is None else line.sent_dimensions
        rows.extend(f"    dimension-{_slug(name)}: {quote(value)}" for name, value in dimensions)
        if line.tax_code:
            rows.append(f"    tax-code: {quote(line.tax_code)}")
    return "\n".join(rows) + "\n\n"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "-", name.lower()) or "x"


def _blocks(lines: Iterable[str]) -> Iterator[list[str]]:
    """Yield runs of lines without an empty one."""
    rows: list[str] = []
    for line in lines:
        row = line.rstrip("\n")
        if row:
            rows.append(row)
        elif rows:
            yield rows
            rows = []
    if rows:
        yield rows


def read_entries(lines: Iterable[str]) -> Iterator[ReadEntry]:
    """Read entries back from lines, in file order."""
    for rows in _blocks(lines):
        start = next((index for index, row in enumerate(rows) if _HEADER.match(row)), None)
        if start is None:
            continue
        found: dict[str, str] = {}
        legs: list[tuple[str, Decimal]] = []
        currency = ""
        for row in rows[start + 1 :]:
            if match := _METADATA.match(row):
                found.setdefault(match[1], match[2])
            elif match := _LEG.match(row):
                legs.append((match[1], Decimal(match[2])))
                currency = match[3]
        number = _NUMBER.match(found.get("number", ""))
        if number is None or "key" not in found:
            continue  # an entry of somebody else: not ours to count
        yield ReadEntry(
            found["key"],
            int(number[1]),
            found.get("digest", ""),
            date.fromisoformat(rows[start][:10]),
            currency,
            tuple(legs),
        )


@dataclass(frozen=True, slots=True)
class Leg:
    """One leg of a transaction. `customer` is what its own metadata say, else the entry's; empty if neither does."""

    account: str
    amount: Decimal
    currency: str
    posting_date: date
    customer: str = ""


def read_legs(lines: Iterable[str]) -> Iterator[Leg]:
    """Read every leg with an amount from lines, also of entries written by hand."""
    when, entry_customer = date.min, ""
    pending: Leg | None = None
    for line in lines:
        row = line.rstrip("\n")
        if match := _ANY_LEG.match(row):
            if pending is not None:
                yield pending
            amount = Decimal(match[2].replace(",", ""))
            pending = Leg(match[1], amount, match[3], when, entry_customer)
        elif match := _CUSTOMER.match(row):
            customer = unquote(match[2])
            if match[1] == "  ":
                entry_customer = customer  # stands above the legs
            elif pending is not None:
                pending = replace(pending, customer=customer)
        elif match := _DATED.match(row):
            if pending is not None:
                yield pending
            pending, when, entry_customer = None, date.fromisoformat(match[1]), ""
    if pending is not None:
        yield pending


def unquote(text: str) -> str:
    """Return what `quote` was given, but for its control characters; without the quotes around it."""
    return re.sub(r"\\(.)", r"\1", text)
