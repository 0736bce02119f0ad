"""Checks that need no ERP: what every ERP would refuse, found before anything is sent."""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from decimal import Decimal

from core.currencies import EXPONENTS
from sinks.erp.port import ErpEntry, Posting, PostingLine, Rejected
from sinks.ledger.amounts import exact
from sinks.ledger.erp_codes import unmapped


def problem(posting: Posting, lines_max: int, required_dimensions: Sequence[str] = ()) -> Rejected | None:
    """Return why no ERP would take the posting, or None."""
    name = f"posting {posting.key}"
    if not posting.lines:
        return Rejected("invalid", f"{name} has no lines")
    if len(posting.lines) > lines_max:
        return Rejected("invalid", f"{name} has {len(posting.lines)} lines, more than {lines_max}")
    places = EXPONENTS.get(posting.currency)
    if places is None:
        return Rejected("unknown_currency", f"{name}: {posting.currency!r} is no currency one can book in")
    for line in posting.lines:
        if not line.account:
            return Rejected("unknown_account", f"{name}: no account for {line.account_role}")
        if _places(line.amount) > places:
            # Rounding here would make the ERP's total differ from ours in silence.
            return Rejected("invalid", f"{name}: {line.amount} has more than {places} decimals ({posting.currency})")
        if any(value is None for _, value in line.erp_dimensions or ()):
            # Released by a person without a mapping: sent like this, the line would lose it in silence.
            reason, text = unmapped(posting)
            return Rejected(reason, f"{name}: {text}")
        missing = _missing(line, required_dimensions)
        if missing:
            return Rejected("missing_dimension", f"{name}: a line of {line.account} has no {', '.join(missing)}")
    with exact():
        difference = sum(line.signed for line in posting.lines)
    if difference:
        return Rejected("unbalanced", f"{name}: debits minus credits is {difference}, not 0")
    return None


def _places(amount: Decimal) -> int:
    exponent = amount.normalize().as_tuple().exponent
    return -exponent if isinstance(exponent, int) and exponent < 0 else 0


def _missing(line: PostingLine, required: Collection[str]) -> list[str]:
    codes = line.dimensions if line.erp_dimensions is None else line.erp_dimensions
    given = {name for (name, _), (_, value) in zip(line.dimensions, codes, strict=True) if value}
    if line.customer:
        given.add("customer")
    if line.tax_code:
        given.add("tax_category")
    return [name for name in required if name not in given]


def opposite_problem(
    entry: ErpEntry, posting: Posting, expected: Callable[[Posting], tuple[tuple[str, Decimal], ...]]
) -> Rejected | None:
    """Return why the posting is not the opposite of the entry, or None."""
    sums: dict[str, Decimal] = defaultdict(Decimal)
    with exact():
        for account, amount in (*entry.lines, *expected(posting)):
            sums[account] += amount
    if any(sums.values()) or posting.reverses != entry.key or entry.currency not in ("", posting.currency):
        return Rejected("invalid", f"posting {posting.key} is not the opposite of {entry.key} ({entry.number})")
    return None
