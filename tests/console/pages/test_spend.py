"""Spend and its forecast, on a finished run."""

import csv
import io
from decimal import Decimal

from tests.console.pages.conftest import LogIn
from tests.queries.conftest import Finished


def test_spend_of_a_customer_adds_up_to_its_rated_rows(log_in: LogIn, finished: Finished) -> None:
    client = log_in()
    rows = list(csv.DictReader(io.StringIO(client.get("/spend?at=2026-11-20T12:00Z&format=csv").text)))
    sums: dict[str, Decimal] = {}
    for row in rows:
        sums[row["customer"]] = sums.get(row["customer"], Decimal(0)) + Decimal(row["amount"])
    known = finished.stores.rows(
        "SELECT customer, sum(amount) AS total FROM @rated_usage_current WHERE customer != ''"
        " AND period_start = '2026-11-01 00:00:00' GROUP BY customer"
    )
    assert {row["customer"]: sums[row["customer"]] for row in known} == {row["customer"]: row["total"] for row in known}
    text = client.get("/spend?customer=globex&at=2026-11-20T12:00Z").text
    assert "Tier 1 of" in text or "Tier 2 of" in text


def test_the_forecast_hangs_on_the_period_and_not_on_the_moment_that_names_it(log_in: LogIn) -> None:
    client = log_in()
    early, late = (
        {
            (row["contract"], row["charge"], row["price_row"]): row
            for row in csv.DictReader(io.StringIO(client.get(f"/spend?customer=globex&at={at}&format=csv").text))
        }
        for at in ("2026-11-03T12:00Z", "2026-11-20T12:00Z")
    )
    assert early.keys() == late.keys()
    pairs = [(Decimal(row["forecast_quantity"] or 0), Decimal(late[key]["forecast_quantity"] or 0))
             for key, row in early.items()]  # fmt: skip
    assert any(one for one, _ in pairs)
    assert all(abs(one - other) <= other / 1000 for one, other in pairs), "time goes on between the two requests"
