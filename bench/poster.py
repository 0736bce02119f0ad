"""Speed and memory of the poster: documents in the ledger to entries in the journal's files.

`python -m bench.poster [--documents N] [--customers N] [--grain entity|customer]` prints one JSON object. The ledger
is SQLite with full synchronisation, as in production; documents are booked before the clock starts.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from bench.machine import describe
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
LINES = 4


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


def main() -> None:
    """Run and print the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--customers", type=int, default=1_000)
    parser.add_argument("--grain", choices=("entity", "customer"), default="entity")
    parser.add_argument("--batch", type=int, default=1_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        engine = prepare(directory, options.documents, options.customers, options.grain)
        settings = Settings(state_dir=directory, poster=PosterSettings(batch_documents=options.batch))
        journal = JournalAdapter(directory / "books")
        poster = Poster(settings, engine, lambda _: journal, SystemClock())
        before_mib = peak_mib()
        started_s, processor_s = time.perf_counter(), time.process_time()
        while poster.pass_once():
            pass
        took_s, processor_s = time.perf_counter() - started_s, time.process_time() - processor_s
        summary = poster.summary()
        engine.dispose()
    result = {
        "documents": options.documents,
        "postings": summary.posted,
        "grain": options.grain,
        "by_state": summary.by_state,
        "seconds": round(took_s, 2),
        "documents_per_s": round(options.documents / took_s),
        "documents_per_processor_s": round(options.documents / processor_s),
        "memory_peak_mib": {"before": round(before_mib, 1), "after": round(peak_mib(), 1)},
        "machine": describe(),
    }
    sys.stdout.write(json.dumps(orjson.loads(orjson.dumps(result)), indent=2) + "\n")


if __name__ == "__main__":
    main()
