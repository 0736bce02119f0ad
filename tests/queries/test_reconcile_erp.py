"""`reconcile --erp` on a finished run: the journal's files edited by hand are found, named, and clean again after."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import select

from core.clock import SystemClock
from queries.document_trace import trace_document
from queries.reconcile import Check, Report, reconcile, span_of
from queries.reconcile_documents import checks as document_checks
from queries.reconcile_erp import books, checks
from sinks.erp.registry import Adapters
from sinks.ledger import posting_creation, postings, tables
from sinks.ledger.database import read, write
from sinks.ledger.reversal import reverse
from tests.queries.conftest import Finished, post

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def run(finished: Finished, until: datetime | None = None) -> Report:
    """Reconcile what is sealed; the ERP's entries up to another time, if it is given."""
    stores = finished.stores
    adapters = Adapters(stores.settings)
    return reconcile(
        stores,
        span_of(stores, None, None),
        more=lambda one, span: checks(one, replace(span, ends=until or span.ends), adapters, NOW),
    )


def test_the_books_are_ours_until_somebody_edits_them(finished: Finished) -> None:
    report = run(finished)
    assert report.holds, [check.breaks for check in report.checks if not check.holds]
    entries, balances = report.checks[-2:]
    assert entries.name == "the ERP's entries are our postings (EU01, US01)"
    assert entries.groups > 20
    assert balances.groups >= 4
    assert set(postings.count_by_state(finished.stores.engine)) == {"RECONCILED"}

    path = sorted(finished.stores.settings.books_dir.rglob("2026-*.beancount"))[0]
    before = path.read_text()
    amount = next(row for row in before.splitlines() if row.startswith("  Assets:") and row.endswith(" USD"))
    number = amount.split()[-2]
    path.write_text(before.replace(amount, amount.replace(number, f"{number}1"), 1))
    try:
        broken = {check.name: check for check in run(finished).checks if not check.holds}
    finally:
        path.write_text(before)
    assert len(broken) == 2
    (found,) = broken["the ERP's entries are our postings (EU01, US01)"].breaks
    assert found.where["kind"] == "erp_edited"
    assert "edited in the ERP" in found.cause
    (balance,) = broken["account balances in the ERP are ours (EU01, US01)"].breaks
    assert balance.where["account"] == amount.split()[0]
    assert postings.count_by_state(finished.stores.engine)["MISMATCHED"] == 1
    assert run(finished).holds
    assert set(postings.count_by_state(finished.stores.engine)) == {"RECONCILED"}


acts_only = tables.documents.c.origin == "act"


def same_in_both_stores(finished: Finished, *, acts: bool = True) -> Check:
    """Return the check of documents in ledger and ClickHouse, up to today if acts are to be in the span."""
    stores = finished.stores
    span = span_of(stores, None, None)
    if acts:
        span = replace(span, ends=SystemClock().now() + timedelta(days=1))
    return next(one for one in document_checks(stores, span) if one.name == "documents are the same in both stores")


def test_each_set_of_books_is_read_once(finished: Finished) -> None:
    found = books(finished.stores.history, Adapters(finished.stores.settings))
    assert [(adapter.name, names) for adapter, names in found] == [("journal", ["EU01", "US01"])]


def test_a_reversal_breaks_no_identity_and_its_document_can_be_traced(finished: Finished) -> None:
    stores = finished.stores
    entities = {one.id: one for one in stores.history.latest.configuration.entities}
    names = posting_creation.erp_names(stores.history, entities["US01"])
    with read(stores.engine) as connection:
        table = tables.postings.c
        wanted = select(table.key).where(table.entity == "US01").order_by(table.booked_hour).limit(1)
        key = str(connection.execute(wanted).scalar())
    made = reverse(stores.engine, entities, names, key, actor="ann", reason="test", now=SystemClock().now())
    post(finished.deployment)
    assert postings.count_by_state(stores.engine)["REVERSED"] == 1
    # In the first hour of a day nothing of that day is sealed yet.
    report = run(finished, SystemClock().now() + timedelta(hours=1))
    assert report.holds, [(check.name, check.breaks) for check in report.checks if not check.holds]
    trace = trace_document(stores, made.documents[0])
    assert trace is not None
    assert (trace.document["kind"], trace.state, trace.charges) == ("reversal", "RECONCILED", [])
    rows = stores.rows(
        "SELECT key, kind, posting_state, total FROM @financial_documents_current WHERE kind = 'reversal' ORDER BY key"
    )
    found = [(row["key"], row["posting_state"]) for row in rows]
    assert found == [(one, "POSTED") for one in sorted(made.documents)]
    assert same_in_both_stores(finished).holds
    with write(stores.engine) as connection:  # told, and the poster died before it noted that
        connection.execute(tables.documents.update().where(acts_only).values(state_written=0))
    assert same_in_both_stores(finished).holds
    post(finished.deployment)
    assert same_in_both_stores(finished).groups > same_in_both_stores(finished, acts=False).groups
    original = trace_document(stores, trace.document["reverses"])
    assert original is not None
    assert original.state == "REVERSED"
    assert all(charge.amounts_tie for charge in original.charges)
