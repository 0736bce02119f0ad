"""A recorded close on the real flow: booked from its hour on, and honoured by the replay."""

from datetime import UTC, date, datetime, timedelta

import orjson
from sqlalchemy import select

from config.period_closes import PeriodClose
from flows import runtime
from flows.verify import verify
from sinks import ledger
from sinks.ledger import closes, tables
from sources.producer import Producer
from sources.workload import Workload
from tests.flows.conftest import Deploy

START = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
HOUR = int(START.timestamp()) // 3600


def test_a_close_moves_usage_into_the_next_period_from_its_hour_on_and_verify_agrees(deployment: Deploy) -> None:
    deployed = deployment()
    records = list(Workload(seed=5, events=1_500, start=START, end=START + timedelta(hours=5)))
    Producer(deployed.settings.redis).send(records, batch=50)
    engine = ledger.connect(deployed.settings.ledger_url)
    now = datetime(2026, 11, 20, tzinfo=UTC)
    for hours, action in ((2, "close"), (4, "reopen")):
        at_ms = (HOUR + hours) * 3_600_000
        fact = PeriodClose("US01", "2026-11", at_ms, action)  # type: ignore[arg-type]
        closes.record(engine, fact, actor="ann", reason="month end", now=now)
    assert runtime.run(deployed.settings, deployed.configuration, drain=True).drained
    with ledger.read(engine) as connection:
        table = tables.documents.c
        rows = connection.execute(select(table.entity, table.booked_hour, table.accounting_period, table.json)).all()
    found = {(row.entity, row.booked_hour - HOUR, row.accounting_period) for row in rows if row.booked_hour >= HOUR}
    inside = {hours for entity, hours, period in found if (entity, period) == ("US01", "2026-12")}
    assert inside == {2, 3}
    assert {hours for entity, hours, period in found if (entity, period) == ("US01", "2026-11")} >= {0, 1, 4}
    assert not {hours for entity, hours, period in found if (entity, period) == ("US01", "2026-11")} & {2, 3}
    assert {period for entity, _, period in found if entity == "EU01"} == {"2026-11"}
    moved = [orjson.loads(row.json) for row in rows if (row.entity, row.accounting_period) == ("US01", "2026-12")]
    assert {(one["kind"], one["original_period"], one["posting_date"]) for one in moved} == {
        ("correction", "2026-11", date(2026, 12, 1).isoformat())
    }
    report = verify(deployed.settings)
    assert report.equal, report
    engine.dispose()
