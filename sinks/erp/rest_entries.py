"""Entries in answers of a generic ERP: pure. Several rows may be the lines of one entry."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any, Final

from config.erp_rest import EntryFields, Place
from core.errors import Unreachable
from sinks.erp.port import ErpEntry
from sinks.erp.rest_template import date_or_none, decimal_or_none, find, moment_or_none, walk

ROWS: Final = "."
"""As `entry.lines`: each item is one line, and items of one number are one entry."""


def items(answer: Any, path: str) -> list[Any]:
    """Return the list at a path; one object is a list of one, nothing is an empty list."""
    found = walk(answer, path)
    if found is None:
        return []
    return found if isinstance(found, list) else [found]


def entries(fields: EntryFields, rows: Iterable[Any]) -> Iterator[tuple[ErpEntry, date | None]]:
    """Return our entries with their booked day, in order; what has no key of ours is somebody else's.

    :raises Unreachable: an entry of ours cannot be read.
    """
    pending: tuple[ErpEntry, date | None] | None = None
    for row in rows:
        key, number = find(fields.key, row), find(fields.number, row)
        if not key or not number:
            continue
        lines = (_line(fields, row, key),) if fields.lines == ROWS else _lines(fields, row, key)
        if pending is not None and fields.lines == ROWS and (pending[0].key, pending[0].number) == (key, number):
            pending = (_joined(pending[0], lines), pending[1])
            continue
        if pending is not None:
            yield pending
        pending = (
            ErpEntry(
                key=key,
                number=number,
                digest=_optional(fields.digest, row),
                currency=_optional(fields.currency, row),
                posting_date=date_or_none(_optional(fields.date, row)),
                lines=() if (state := _optional(fields.state, row)) in fields.void_states else lines,
                draft=bool(state) and state in fields.draft_states,
                changed_by=_optional(fields.changed_by, row),
                changed_at=moment_or_none(_optional(fields.changed_at, row)),
            ),
            date_or_none(_optional(fields.day, row)),
        )
    if pending is not None:
        yield pending


def _joined(entry: ErpEntry, lines: tuple[tuple[str, Decimal], ...]) -> ErpEntry:
    return replace(entry, lines=entry.lines + lines)


def _optional(place: Place | None, row: Any) -> str:
    return "" if place is None else find(place, row)


def _lines(fields: EntryFields, row: Any, key: str) -> tuple[tuple[str, Decimal], ...]:
    if not fields.lines:
        return ()
    return tuple(_line(fields, line, key) for line in items(row, fields.lines))


def _line(fields: EntryFields, row: Any, key: str) -> tuple[str, Decimal]:
    account = find(fields.account, row)
    if fields.amount is not None:
        amount = decimal_or_none(find(fields.amount, row))
        if amount is not None and fields.side is not None and find(fields.side, row) != fields.debit_side:
            amount = amount.copy_negate()
    else:
        debit = decimal_or_none(_optional(fields.debit, row) or "0")
        credit = decimal_or_none(_optional(fields.credit, row) or "0")
        amount = None if debit is None or credit is None else debit - credit
    if amount is None or not account:
        message = f"a line of the ERP's entry {key} has no account or amount where `entry` says: check erp.options"
        raise Unreachable(message)
    return account, amount
