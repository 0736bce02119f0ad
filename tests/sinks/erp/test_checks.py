"""What every ERP would refuse is found before anything is sent."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from sinks.erp.checks import problem
from sinks.erp.port import PostingLine
from tests.sinks.erp.samples import lines, posting

WITH = tuple(replace(line, dimensions=(("region", "eu"),), customer="acme") for line in lines())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"lines": ()}, "invalid"),
        ({"lines": lines(count=5)}, "invalid"),
        ({"lines": lines("0.001")}, "invalid"),
        ({"lines": lines("12.3400")}, None),  # zeros are no digits
        ({"lines": lines("1E+3")}, None),
        ({"currency": "JPY"}, "invalid"),
        ({"currency": "JPY", "lines": lines("12.00")}, None),
        ({"currency": "KWD", "lines": lines("0.001")}, None),
        ({"currency": "XXX"}, "unknown_currency"),
        ({"lines": (lines()[0], PostingLine("usage_revenue", "", "credit", Decimal("12.34")))}, "unknown_account"),
        ({"lines": (lines()[0], PostingLine("usage_revenue", "4001", "credit", Decimal("12.33")))}, "unbalanced"),
        ({"lines": (lines()[0], PostingLine("usage_revenue", "4001", "debit", Decimal("-12.34")))}, None),
    ],
)
def test_problems(changes: dict[str, Any], reason: str | None) -> None:
    found = problem(posting(1, **changes), lines_max=5)
    assert (found.reason if found else None) == reason


def test_required_dimensions_are_on_every_line_and_not_empty() -> None:
    assert problem(posting(1, lines=WITH), 5, ("region", "customer")) is None
    for broken in ((WITH[0], replace(WITH[1], dimensions=(("region", ""),))), lines()):
        found = problem(posting(1, lines=broken), 5, ("region",))
        assert found is not None
        assert (found.reason, "region" in found.text) == ("missing_dimension", True)
