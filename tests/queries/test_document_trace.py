import csv
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from config.revision import History, Revision
from core.errors import InvalidRequest
from queries import document_events
from queries.document_events import summaries, write_events
from queries.document_trace import DocumentTrace, trace_document
from tests.queries.conftest import Finished


def _keys(finished: Finished) -> list[str]:
    rows = finished.stores.rows("SELECT key FROM @financial_documents_current ORDER BY key")
    return [row["key"] for row in rows]


def _traced(finished: Finished, key: str) -> DocumentTrace:
    trace = trace_document(finished.stores, key)
    assert trace is not None
    return trace


def test_every_level_of_every_document_ties(finished: Finished) -> None:
    keys = _keys(finished)
    assert len(keys) > 20
    levels = set()
    for key in keys[::4]:
        trace = _traced(finished, key)
        assert trace.state == "POSTED"
        for charge in trace.charges:
            assert charge.amounts_tie, (key, charge.name)
            assert charge.quantities_tie in (True, None), (key, charge.name)
            levels.add(charge.quantities_tie)
        for summary in summaries(finished.stores, trace):
            assert summary.ties, (key, summary)
    assert levels == {True, None}


def test_the_sum_of_the_events_is_the_rated_quantity(finished: Finished) -> None:
    for key in _keys(finished)[:8]:
        trace = _traced(finished, key)
        quantities = {charge.name[2]: charge.quantity for charge in trace.charges}
        for summary in summaries(finished.stores, trace):
            if summary.sum is not None:
                assert summary.sum == quantities[summary.charge]


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_events_are_written_to_a_file(finished: Finished, tmp_path: Path, ending: str) -> None:
    trace = _traced(finished, _keys(finished)[0])
    path = tmp_path / f"events{ending}"

    written = write_events(finished.stores, trace, path)

    expected = sum(summary.events + summary.voids for summary in summaries(finished.stores, trace))
    assert written == expected > 0
    if ending == ".csv":
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    else:
        rows = pl.read_parquet(path).to_dicts()
    assert len(rows) == written
    assert all(int(row["sign"]) in (1, -1) for row in rows)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_file_in_parts_is_the_same_as_one_in_a_piece(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    trace = _traced(finished, _keys(finished)[0])
    whole, parts = tmp_path / f"whole{ending}", tmp_path / f"parts{ending}"
    count = write_events(finished.stores, trace, whole)
    monkeypatch.setattr(document_events, "_ROWS_PER_PART", 3)
    assert write_events(finished.stores, trace, parts) == count > 3
    if ending == ".csv":
        assert parts.read_bytes() == whole.read_bytes()
    else:
        assert pl.read_parquet(parts).equals(pl.read_parquet(whole))


def test_too_many_events_leave_no_file(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_events, "EVENTS_MAX", 1)
    with pytest.raises(InvalidRequest, match="more than 1 events"):
        write_events(finished.stores, _traced(finished, _keys(finished)[0]), tmp_path / "events.csv")
    assert list(tmp_path.iterdir()) == []


def test_a_document_of_a_meter_that_was_taken_out_is_traced(finished: Finished) -> None:
    trace = _traced(finished, _keys(finished)[0])
    first = finished.stores.history.revisions[0]
    left = first.configuration.model_copy(update={"meters": first.configuration.meters[-1:]})
    without = Revision(left, known_from_ms=4_000_000_000_000)  # behind everything
    later = replace(finished.stores, history=History([first, without]))
    assert {one.meter for one in summaries(finished.stores, trace)} - set(without.meters)
    assert summaries(later, trace) == summaries(finished.stores, trace)


def test_another_ending_is_refused(finished: Finished, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"\.csv or \.parquet"):
        write_events(finished.stores, _traced(finished, _keys(finished)[0]), tmp_path / "events.xlsx")


def test_an_unknown_key_is_none(finished: Finished) -> None:
    assert trace_document(finished.stores, "A" * 16) is None


def test_an_edited_amount_shows(finished: Finished) -> None:
    """Change one rated row behind the flow's back: the document no longer ties."""
    row = finished.stores.rows(
        "SELECT customer, contract, charge, usage_hour, booked_hour, line_kind, accounting_period, amount"
        " FROM @rated_usage_current WHERE status = 'sealed' AND amount > 0 ORDER BY customer, charge LIMIT 1"
    )[0]
    where = (
        f"customer = '{row['customer']}' AND contract = '{row['contract']}' AND charge = '{row['charge']}'"
        f" AND usage_hour = '{_sql(row['usage_hour'])}' AND booked_hour = '{_sql(row['booked_hour'])}'"
        f" AND line_kind = '{row['line_kind']}'"
    )
    table = finished.stores.resolved("@rated_usage")
    document = finished.stores.rows(
        "SELECT key FROM @financial_documents_current"
        " WHERE customer = {customer:String} AND contract = {contract:String}"
        " AND booked_hour = {booked:DateTime} AND accounting_period = {period:String}",
        {
            "customer": row["customer"],
            "contract": row["contract"],
            "booked": row["booked_hour"],
            "period": row["accounting_period"],
        },
    )[0]["key"]
    change = "ALTER TABLE {} UPDATE amount = amount + toDecimal128('{}', 12) WHERE {} SETTINGS mutations_sync = 1"
    finished.deployment.query_command(change.format(table, "0.000000000001", where))
    try:
        ties = [charge.amounts_tie for charge in _traced(finished, document).charges if charge.name[2] == row["charge"]]
        assert ties == [False]
    finally:
        finished.deployment.query_command(change.format(table, "-0.000000000001", where))
    assert all(charge.amounts_tie for charge in _traced(finished, document).charges)
    assert row["amount"] > Decimal(0)


def _sql(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S}"
