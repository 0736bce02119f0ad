"""The company that the Tryton tests book into."""

from typing import Any, Final

SPECIFICATION: Final[dict[str, Any]] = {
    "company": "Example Metering Inc",
    "currency": "USD",
    "currencies": {"USD": [2, "1"], "EUR": [2, "0.9"], "JPY": [0, "150"], "KWD": [3, "0.3075"]},
    "years": [2025, 2026],
    "closed": ["2025-01"],
    "accounts": [
        {"code": "1150", "name": "Unbilled receivable", "like": "cash", "unbilled": True},
        {"code": "1200", "name": "Accounts receivable", "like": "receivable"},
        {"code": "2400", "name": "Contract liability", "like": "tax"},
        {"code": "4001", "name": "Usage revenue", "like": "revenue"},
        {"code": "4003", "name": "Shortfall revenue", "like": "revenue"},
        {"code": "4999", "name": "Retired revenue", "like": "revenue", "end": "2024-12-31"},
    ],
    "tax": "0.10",
    "customers": {"CUST-0001": "Customer 1", "CUST-0002": "Customer 2"},
    "login": "usage",
}
