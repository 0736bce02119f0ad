"""Speed and memory of the poster: booked documents in the ledger to entries in the journal's files.

`python -m bench.poster`. The ledger is SQLite with full synchronisation, as in production.
"""

import resource
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from bench.figures import Figure, figure
from config.revision import Configuration, Revision
from config.settings import PosterSettings, Settings
from core.clock import SystemClock
from flows.poster import Poster
from sinks import ledger
from sinks.erp.journal import JournalAdapter
from sinks.ledger import documents, progress, revisions
from sinks.ledger.act_documents import ActDocument
from sinks.ledger.times import MS_PER_HOUR

FIRST_HOUR = 490_000
BATCH = 1_000


def document(number: int, hour: int, customer: int) -> ActDocument:
    """Return a document with two charges, as large as the flow's own."""
    lines = [
        {
            "kind": "usage",
            "account_role": role,
            "side": side,
            "amount": f"{number % 97 + 1}.{number % 100:02d}",
            "amount_exact": f"{number % 97 + 1}.{number % 100:02d}0000000000",
            "swapped": False,
            "cumulative_before": "0.000000000000",
            "cumulative_after": "12.340000000000",
            "rounded_before": "0.00",
            "rounded_after": "12.34",
            "quantity": "1234.000000000000",
            "unit": "thousand tokens",
            "events": 321,
            "customer": f"customer-{customer}",
            "contract": f"contract-{customer}",
            "plan": "payg",
            "plan_version": 1,
            "charge": charge,
            "price_row": "",
            "meter": charge,
            "period_start": "2025-11-01T00:00:00Z",
            "service_from": "2025-11-24T10:00:00Z",
            "service_to": "2025-11-24T11:00:00Z",
            "original_period": "2025-11",
            "dimensions": {"model": "gpt-4"},
            "tax_category": "saas",
        }
        for charge in ("input", "output")
        for role, side in (("unbilled_receivable", "debit"), ("usage_revenue", "credit"))
    ]
    return ActDocument(
        {
            "key": f"D{number:015d}".translate(str.maketrans("0189", "ABCD")),
            "entity": "US01",
            "customer": f"customer-{customer}",
            "contract": f"contract-{customer}",
            "currency": "USD",
            "booked_hour": hour,
            "accounting_period": "2025-11",
            "posting_date": "2025-11-24",
            "kind": "accrual",
            "lines": lines,
        }
    )


def prepare(directory: Path, count: int, customers: int, grain: str) -> Any:
    """Return a migrated ledger that holds the documents, all promoted."""
    url = f"sqlite:///{directory / 'ledger.sqlite'}"
    ledger.migrate(url)
    engine = ledger.connect(url)
    plain = {
        "id": "US01",
        "functional_currency": "USD",
        "accounts": {"unbilled_receivable": "1150", "usage_revenue": "4001"},
        "posting": {"grain": grain},
        "erp": {"adapter": "journal", "company": "US01"},
    }
    revision = Revision(Configuration.model_validate({"entities": [plain]}))
    revisions.record_revision(engine, revision, datetime(2025, 11, 1, tzinfo=UTC))
    hour = FIRST_HOUR
    for first in range(0, count, customers):
        made = [document(first + n, hour, n) for n in range(min(customers, count - first))]
        with ledger.write(engine) as connection:
            if documents.stage(connection, made, 1):
                message = "the generated documents were refused"
                raise SystemExit(message)
        hour += 1
    with ledger.write(engine) as connection:
        documents.promote(connection, None)
        mark = progress.Progress(1, hour * MS_PER_HOUR + 60_000)
        progress.put(connection, progress.PROMOTED, mark)
    return engine


def peak_mib() -> float:
    """Return the most memory this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@dataclass(frozen=True, slots=True)
class Run:
    """Documents a second of wall clock and of this process's processor time, and how the memory's peak grew."""

    per_s: float
    per_processor_s: float
    growth_mib: float


def run(count: int, grain: str, customers: int = 1_000) -> Run:
    """Post that many documents, from documents that are booked to entries in files.

    :raises SystemExit: one of them is not in the books.
    """
    with tempfile.TemporaryDirectory(prefix="meterbridge-bench-") as folder:
        directory = Path(folder)
        engine = prepare(directory, count, customers, grain)
        settings = Settings(state_dir=directory, poster=PosterSettings(batch_documents=BATCH))
        journal = JournalAdapter(directory / "books")
        poster = Poster(settings, engine, lambda _: journal, SystemClock())
        before_mib = peak_mib()
        began_s, processor_s = perf_counter(), process_time()
        while poster.pass_once():
            pass
        took_s, processor_s = perf_counter() - began_s, process_time() - processor_s
        states = documents.count_by_state(engine)
        engine.dispose()
    if states != {"POSTED": count}:
        message = f"not everything was posted: {states}"
        raise SystemExit(message)
    return Run(count / took_s, count / processor_s, peak_mib() - before_mib)


def measure(*, quick: bool) -> list[Figure]:
    """Return the poster's speed with the journal, ledger included, and how its memory grows."""
    small, large = (2_000, 4_000) if quick else (20_000, 100_000)
    found = []
    for grain, name in (("entity", "1,000 documents a posting"), ("customer", "one document a posting")):
        count = small if grain == "entity" else small // 4
        one = run(count, grain)
        found.append(figure("poster", f"{name}, ledger included", one.per_s, "documents/s"))
        found.append(figure("poster", f"{name}, of processor time", one.per_processor_s, "documents/s"))
    grown = run(large, "entity")
    found.append(figure("poster", f"growth of peak memory over {large:,} documents", grown.growth_mib, "MiB"))
    return found


if __name__ == "__main__":
    for each in measure(quick=False):
        print(f"{each.case}: {each.value:,.0f} {each.unit}")
