"""Documents that follow from acts: pure functions of the act and the documents it names. A replay makes them again."""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import orjson

from sinks.ledger.amounts import exact
from sinks.ledger.approval_policy import net

Plain = dict[str, Any]
SWAP: Final = {"debit": "credit", "credit": "debit"}


@dataclass(frozen=True, slots=True)
class ActDocument:
    """A document made of plain values, as the ledger wants it."""

    plain: Plain

    def __getattr__(self, name: str) -> Any:
        """Return a header field."""
        try:
            return self.plain[name]
        except KeyError as error:
            raise AttributeError(name) from error

    def to_json(self) -> str:
        """Return the canonical JSON."""
        return orjson.dumps(self.plain, option=orjson.OPT_SORT_KEYS).decode()

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the canonical JSON, in hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def act_key(*identity: str) -> str:
    """Return a document key: 16 characters [A-Z2-7] of the unambiguous identity."""
    encoded = orjson.dumps(["act", *identity])
    return base64.b32encode(hashlib.sha256(encoded).digest()).decode()[:16]


@dataclass(frozen=True, slots=True)
class When:
    """When an act is booked: its hour, and where it goes in the books."""

    booked_hour: int
    accounting_period: str
    posting_date: str


def reversal_of(original: Mapping[str, Any], when: When, reason_code: str) -> ActDocument:
    """Return the opposite of a document, under its own key: every line swapped, quantities taken back."""
    lines = [_opposite(line) for line in original["lines"]]
    plain: Plain = dict(original) | {
        "key": act_key("reversal", original["key"]),
        "kind": "reversal",
        "reverses": original["key"],
        "reason_code": reason_code,
        "original_period": original.get("original_period") or original["accounting_period"],
        "lines": lines,
        "events": -int(original.get("events") or 0),
    }
    return finished(plain, when)


def finished(plain: Plain, when: When) -> ActDocument:
    """Fill in dates and totals."""
    with exact():
        totals = {
            side: sum((Decimal(line["amount"]) for line in plain["lines"] if line["side"] == side), Decimal(0))
            for side in ("debit", "credit")
        }
        charged = net(plain["lines"])
    plain |= {
        "booked_hour": when.booked_hour,
        "accounting_period": when.accounting_period,
        "posting_date": when.posting_date,
        "debit_total": format(totals["debit"], "f"),
        "credit_total": format(totals["credit"], "f"),
        "total": format(charged, "f"),
        "trace_url": f"/documents/{plain['key']}",
    }
    return ActDocument(plain)


def _opposite(line: Mapping[str, Any]) -> Plain:
    opposite: Plain = dict(line) | {"side": SWAP[line["side"]]}
    if "swapped" in line:
        opposite["swapped"] = not line["swapped"]
    for name in ("amount_exact", "quantity"):
        if line.get(name) is not None:
            opposite[name] = format(-Decimal(line[name]), "f")
    if line.get("events") is not None:
        opposite["events"] = -int(line["events"])
    return opposite


def lines_of(documents: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the lines of documents, in their order."""
    return [line for document in documents for line in document["lines"]]


def summed(lines: Sequence[Mapping[str, Any]], side: str) -> Decimal:
    """Return the sum of one side."""
    with exact():
        return sum((Decimal(line["amount"]) for line in lines if line["side"] == side), Decimal(0))
