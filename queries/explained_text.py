"""The explanation of a rated row in words."""

from decimal import Decimal

from operators.rate_explain import RowExplanation
from operators.rating.explain_text import difference_lines, lines


def lines_of(found: RowExplanation) -> list[str]:
    """Return what a rated row is made of, a line per step, exact: the same on the terminal and in the console."""
    row = found.row
    currency = row["currency"]
    price_row = f" ({row['price_row']})" if row["price_row"] else ""
    result = [
        f"{row['customer']}/{row['contract']}, plan {row['plan']} version {row['plan_version']},"
        f" charge {row['charge']}{price_row}, period from {row['period_start']:%Y-%m-%d %H:%M}",
        f"{row['line_kind']}, used {row['usage_hour']:%Y-%m-%d %H:00}, booked {row['booked_hour']:%Y-%m-%d %H:00} UTC,"
        f" in {row['accounting_period']}: quantity {_exact(row['quantity'])}, {row['events']:,} events,"
        f" amount {_exact(row['amount'])} {currency}",
    ]
    if found.step is not None:
        result += difference_lines(found.step, currency)
    if found.final is not None:
        before = row["amount_before"]
        result += lines(found.final, currency)
        result.append(f"Less booked before  {_exact(before)}: {_exact(row['amount_after'] - before)} {currency}")
    result += [f"Note: {text}" for text in found.notes]
    if found.expected is None:
        result.append("Not calculated again")
    elif found.ties:
        result.append(f"Stored amount {_exact(row['amount'])} {currency}: ties")
    else:
        result.append(f"Stored amount {_exact(row['amount'])} {currency}, calculated {_exact(found.expected)}: DIFFERS")
    return result


def _exact(value: Decimal) -> str:
    text = format(value, ",f")
    return text.rstrip("0").rstrip(".") if "." in text else text
