"""Documents a second that the journal adapter books, files synced: `python -m bench.journal`."""

import tempfile
from datetime import date
from decimal import Decimal
from pathlib import Path
from time import perf_counter

from bench.figures import Figure, figure
from sinks.erp.journal import JournalAdapter
from sinks.erp.port import Posted, Posting, PostingLine

BATCH = 100
HOUR = 490_000


def posting(number: int) -> Posting:
    """Return a document of one customer and hour with two lines, as usage makes it."""
    value = Decimal(number % 10_000) / 100 + Decimal("0.01")
    customer = f"customer-{number % 1000:04d}"
    lines = (
        PostingLine("unbilled_receivable", "1250", "debit", value, customer),
        PostingLine("usage_revenue", "4000", "credit", value, customer),
    )
    return Posting(
        key=f"doc-{number:012d}",
        entity="main",
        company="main",
        currency="EUR",
        accounting_period="2026-11",
        posting_date=date(2026, 11, 1 + number // 5000 % 28),
        booked_hour=HOUR + number // 5000 % 28 * 24,
        kind="usage",
        description=f"Usage of {customer}",
        lines=lines,
        document_keys=(f"doc-{number:012d}",),
        customer=customer,
    )


def measure(*, quick: bool) -> list[Figure]:
    """Return documents a second, submitted in batches as the poster does, and how fast known ones are recognized.

    :raises SystemExit: a document was not booked.
    """
    documents = 1_000 if quick else 10_000
    postings = [posting(number) for number in range(documents)]
    with tempfile.TemporaryDirectory(prefix="meterbridge-bench-") as directory:
        adapter = JournalAdapter(Path(directory))
        first = _submit(adapter, postings)
        again = _submit(adapter, postings)
    return [
        figure("journal", f"new documents, {BATCH} a call", documents / first, "documents/s"),
        figure("journal", f"documents booked before, {BATCH} a call", documents / again, "documents/s"),
    ]


def _submit(adapter: JournalAdapter, postings: list[Posting]) -> float:
    began_s = perf_counter()
    for start in range(0, len(postings), BATCH):
        outcomes = adapter.submit(postings[start : start + BATCH], "bench")
        refused = [outcome for outcome in outcomes if not isinstance(outcome, Posted)]
        if refused:
            message = f"the journal did not book a document: {refused[0]}"
            raise SystemExit(message)
    return perf_counter() - began_s


if __name__ == "__main__":
    for one in measure(quick=False):
        print(f"{one.case}: {one.value:,.0f} {one.unit}")
