"""Corrections against all rated rows, added up in Python."""

from collections import defaultdict
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.errors import InvalidRequest
from queries.corrections import KINDS, SPAN_MAX, Wanted, corrections
from tests.queries.conftest import START, Finished

END = START + timedelta(hours=8)


@pytest.mark.parametrize("narrowed", [{}, {"kind": "void"}, {"meter": "input_tokens"}, {"customers": ("acme",)}])
def test_rows_and_totals_are_those_of_the_rated_rows(finished: Finished, narrowed: dict[str, Any]) -> None:
    wanted = Wanted(START + timedelta(hours=1), END, **narrowed)
    rows = [
        row
        for row in finished.stores.rows("SELECT * FROM @rated_usage_current")
        if row["status"] == "sealed"
        and wanted.begins <= row["booked_hour"] < wanted.ends
        and row["line_kind"] in ([wanted.kind] if wanted.kind else KINDS)
        and wanted.meter in ("", row["meter"])
        and (wanted.customers is None or row["customer"] in wanted.customers)
    ]
    assert rows
    by_kind: dict[Any, list[Any]] = defaultdict(lambda: [0, 0, Decimal(0)])
    by_hour: dict[Any, Decimal] = defaultdict(Decimal)
    for row in rows:
        total = by_kind[row["line_kind"], row["currency"]]
        total[0] += 1
        total[1] += row["events"]
        total[2] += row["amount"]
        by_hour[row["booked_hour"], row["line_kind"], row["currency"]] += row["amount"]
    found = corrections(finished.stores, wanted, rows_max=10)
    assert found.total_rows == len(rows)
    assert len(found.rows) == min(10, len(rows))
    assert {
        (one["kind"], one["currency"]): [one["rows"], one["events"], one["amount"]] for one in found.by_kind
    } == dict(by_kind)
    assert {(one["hour"], one["kind"], one["currency"]): one["amount"] for one in found.by_hour} == dict(by_hour)


def test_a_long_span_is_refused(finished: Finished) -> None:
    with pytest.raises(InvalidRequest, match="at most 93 days"):
        corrections(finished.stores, Wanted(START, START + SPAN_MAX + timedelta(days=1)))
