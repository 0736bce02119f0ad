"""What is kept how long, as rows: for lists and files of the API and of the page."""

from typing import Any, Final

from flows.retention import Policy

POLICY_COLUMNS: Final = (
    "table", "goes_by", "months", "kept_from", "due_months", "rows_to_remove", "rows_on_hold", "expired_months",
    "removed_rows",
)  # fmt: skip
HOLD_COLUMNS: Final = ("kind", "name", "placed_at", "actor", "reason", "released_at")


def plain_policy(one: Policy) -> dict[str, Any]:
    """Return the policy of a table as one row of plain values."""
    return {
        "table": one.table,
        "goes_by": one.time,
        "months": one.months,
        "kept_from": one.kept_from,
        "due_months": [due.month for due in one.due],
        "rows_to_remove": one.removes,
        "rows_on_hold": one.held,
        "expired_months": [gone.month for gone in one.expired],
        "removed_rows": sum(gone.removed_rows for gone in one.expired),
    }
