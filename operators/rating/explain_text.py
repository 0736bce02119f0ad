"""Explanations as lines of text for a finance person, and as plain values for JSON.

In plain values every number is exact text: a decimal without exponent, or a fraction such as `1/3` where the
decimal does not end. `amount` is the decimal that `charges.amount` returns.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from operators.rating.explain import Difference, Explanation
from operators.rating.explain_models import Line
from operators.rating.explain_numbers import plain, shown

_MODELS = {
    "per_unit": "Price per unit",
    "graduated": "Each tier's part at its own price",
    "volume": "All units at the price of one tier",
    "package": "Packages",
    "percentage": "Share of the quantity",
    "graduated_percentage": "Each tier's part at its own percentage",
    "flat": "Amount per period",
}


def lines(explanation: Explanation, currency: str = "") -> list[str]:
    """Return the calculation as text, one line each, columns aligned."""
    charge = explanation.charge
    quantity = shown(Fraction(explanation.quantity))
    if charge.unit and charge.unit_divisor == 1:
        quantity += f" {charge.unit}"
    rows = [("Quantity to date", quantity)]
    if explanation.events:
        rows.append(("Events to date", f"{explanation.events:,}"))
    rows += [(_sentence(line.label), line.text) for line in explanation.quantity_lines]
    rows += [(f"{_MODELS[charge.model]}:", "")]
    rows += [(f"  {line.label}", line.text) for line in explanation.parts]
    if len(explanation.parts) > 1:
        rows.append(("  sum", shown(explanation.subtotal)))
    rows += [(_sentence(line.label), line.text) for line in explanation.modifiers]
    rows.append(("Amount", _money(explanation.exact, currency)))
    return _aligned(rows)


def difference_lines(difference: Difference, currency: str = "") -> list[str]:
    """Return both calculations and the difference between them as text."""
    rows = [
        (f"  {part.label}", f"{_part(part.after)} - {_part(part.before)} = {shown(part.difference)}")
        for part in difference.parts
    ]
    if difference.before.modifiers or difference.after.modifiers:
        rows.append(("  discounts, maximum, minimum", shown(difference.modified)))
    step = difference.after.exact - difference.before.exact
    after, before = shown(difference.after.exact), shown(difference.before.exact)
    rows.append(("Amount after less amount before", f"{after} - {before} = {_money(step, currency)}"))
    return [
        "Before",
        *_indented(lines(difference.before, currency)),
        "After",
        *_indented(lines(difference.after, currency)),
        "Difference, part by part",
        *_aligned(rows),
    ]


def to_plain(explanation: Explanation) -> dict[str, Any]:
    """Return the calculation as plain values for JSON."""
    charge = explanation.charge
    return {
        "charge": charge.id,
        "model": charge.model,
        "meter": charge.meter,
        "unit": charge.unit,
        "quantity": plain(Fraction(explanation.quantity)),
        "events": explanation.events,
        "final": explanation.final,
        "share": plain(explanation.share),
        "quantity_steps": [_plain_line(line) for line in explanation.quantity_lines],
        "parts": [_plain_line(line) for line in explanation.parts],
        "subtotal": plain(explanation.subtotal),
        "modifiers": [_plain_line(line) for line in explanation.modifiers],
        "amount": _text(explanation.total),
        "amount_exact": plain(explanation.exact),
    }


def difference_to_plain(difference: Difference) -> dict[str, Any]:
    """Return both calculations and their difference as plain values for JSON."""
    return {
        "before": to_plain(difference.before),
        "after": to_plain(difference.after),
        "parts": [
            {
                "key": part.key,
                "label": part.label,
                "amount_before": plain(_of(part.before)),
                "amount_after": plain(_of(part.after)),
                "difference": plain(part.difference),
            }
            for part in difference.parts
        ],
        "modifiers_difference": plain(difference.modified),
        "amount": _text(difference.total),
    }


def _plain_line(line: Line) -> dict[str, Any]:
    numbers = {"quantity": line.quantity, "price": line.price, "amount": line.amount}
    known = {name: plain(value) for name, value in numbers.items() if value is not None}
    return {"key": line.key, "label": line.label, "text": line.text, **known}


def _of(line: Line | None) -> Fraction:
    return Fraction(0) if line is None or line.amount is None else line.amount


def _part(line: Line | None) -> str:
    return shown(_of(line))


def _text(value: Decimal) -> str:
    return format(value, "f")


def _money(value: Fraction, currency: str) -> str:
    return f"{shown(value)} {currency}".rstrip()


def _sentence(label: str) -> str:
    return label[:1].upper() + label[1:]


def _indented(texts: Iterable[str]) -> list[str]:
    return [f"  {text}" for text in texts]


def _aligned(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(label) for label, _ in rows)
    return [f"{label:<{width}}  {text}".rstrip() for label, text in rows]
