"""A reconciliation as rows: nothing that differs is left out, and what holds is one line."""

from datetime import UTC, datetime
from decimal import Decimal

from console.reconciling import COLUMNS, rows_of
from queries.reconcile import Check, Report, Span


def test_each_group_that_differs_is_a_row() -> None:
    holds = Check("events are stored", "counts", "events")
    for hour in range(3):
        holds.compare({"hour": hour}, 5, 5, "lost")
    differs = Check("facts are rated", "facts", "rated")
    differs.compare({"tenant": "acme", "meter": "requests"}, Decimal("1.50"), Decimal("1.20"), "unrated|rated twice")
    differs.compare({"tenant": "globex", "meter": "requests"}, Decimal(0), Decimal("1E+2"), "unrated|rated twice")
    differs.compare({"tenant": "hooli", "meter": "requests"}, Decimal(3), Decimal(3), "unrated|rated twice")
    span = Span(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 2, tzinfo=UTC))
    rows = list(rows_of(Report(span, [holds, differs])))
    assert all(set(row) == set(COLUMNS) for row in rows)
    assert [(row["check"], row["groups"], row["differ"], row["where"]) for row in rows] == [
        ("events are stored", 3, 0, ""),
        ("facts are rated", 3, 2, "tenant=acme, meter=requests"),
        ("facts are rated", 3, 2, "tenant=globex, meter=requests"),
    ]
    assert [(row["left"], row["right"], row["difference"], row["likely_cause"]) for row in rows[1:]] == [
        ("1.50", "1.20", "0.30", "unrated"),
        ("0", "100", "-100", "rated twice"),
    ]
