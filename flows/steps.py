"""Step ids and the flow's name: the schema of the recovery state.

State is loaded by exactly `<flow>.<step>`. Renaming one starts that step empty and orphans its state, so a test
pins this list. A step that has to go keeps its name here, struck from the flow.
"""

from typing import Final

FLOW: Final = "metering"

READ: Final = "read"
DECODE: Final = "decode"
DEDUPE: Final = "dedupe"
TO_TENANT: Final = "to_tenant"
BOOK: Final = "book"
TO_CUSTOMER: Final = "to_customer"
RATE: Final = "rate"
DOCUMENT: Final = "document"
OUTBOX: Final = "outbox"

TABLES: Final[tuple[str, ...]] = (
    "usage_events",
    "usage_rejects",
    "intake_counts",
    "usage_facts",
    "rated_usage",
    "exceptions",
    "financial_documents",
)
"""ClickHouse tables the flow writes; each has a `to_<table>` and a `write_<table>` step."""
