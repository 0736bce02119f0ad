"""Files of pages: numbers stay numbers, and a spreadsheet runs nothing."""

import csv
from decimal import Decimal

from console.pages.exporting import file_of


def test_a_negative_number_in_text_stays_one_and_a_formula_is_quoted() -> None:
    rows = [
        {"difference": "-3.50", "amount": Decimal("-1.50"), "where": "-1+1"},
        {"difference": "2", "amount": Decimal("1E+3"), "where": "=HYPERLINK(1)"},
    ]
    file = file_of("reconciliation", "csv", ("difference", "amount", "where"), rows)
    assert list(csv.reader(bytes(file.body).decode().splitlines())) == [
        ["difference", "amount", "where"],
        ["-3.50", "-1.50", "'-1+1"],
        ["2", "1000", "'=HYPERLINK(1)"],
    ]
