"""The reading of an event for many meters at once says what the reading for one meter says."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.meters import Meter
from config.settings import ClickHouseSettings
from core.reasons import VOID_TYPE
from queries.meter_sql import EventTexts, MeterSql, takes
from sinks.clickhouse.client import connect

METERS = [
    Meter(id="tokens", event_type="t", aggregation="sum", value="$.tokens", filter={"kind": ("a", "1", "true")}),
    Meter(id="depth", event_type="t", aggregation="max", value="$.outer.inner", allow_negative=True),
    Meter(id="users", event_type="u", aggregation="unique_count", value="$.user-id"),
    Meter(id="all", event_type="t", aggregation="count"),
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**19), 10**19),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "a", "null", "1.50", "1e3", "-0.5", "0.1234567890123", "é\n\"'\\", "999999999999999999.1"]),
)
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.sampled_from(["inner", "x"]), SCALARS, max_size=2)
DATA = st.dictionaries(st.sampled_from(["tokens", "kind", "outer", "user-id", "other"]), VALUES, max_size=5)
EVENTS = st.tuples(st.sampled_from(["t", "u", "v"]), DATA, st.booleans())


def rows_of(events: list[tuple[str, dict[str, Any], bool]]) -> list[tuple[str, str]]:
    """Return type and raw event of each, the voids among them around their originals."""
    rows = []
    for name, data, is_void in events:
        event: dict[str, Any] = {"id": "1", "type": name, "data": data}
        if is_void:
            event = {"id": "2", "type": VOID_TYPE, "data": event}
        rows.append((event["type"], json.dumps(event)))
    return rows


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(EVENTS, min_size=1, max_size=200))
def test_one_reading_for_all_meters_says_what_each_meters_own_says(
    clickhouse_settings: ClickHouseSettings, events: list[tuple[str, dict[str, Any], bool]]
) -> None:
    texts = EventTexts.of(METERS)
    source = (
        "SELECT rows.1 AS type, rows.2 AS data, number FROM (SELECT {rows:Array(Tuple(String, String))} AS rows)"
        " ARRAY JOIN rows, arrayEnumerate(rows) AS number"
    )
    parameters: dict[str, Any] = {"rows": rows_of(events)} | texts.parameters
    with connect(clickhouse_settings) as client:
        for meter in METERS:
            own, shared = MeterSql.of(meter, "o"), texts.meter(meter, "s")
            parameters |= own.parameters | shared.parameters

            def chosen(sql: MeterSql, meter: Meter = meter) -> str:
                counts = f"{sql.applies} AND {sql.readable(meter)} AND {takes(meter, sql.sign)}"
                value = f"if({sql.applies}, {sql.text}, '')"
                return f"SELECT number, ({counts}) AS c, {value} AS t, c AND {sql.inexact} AS i, {sql.sign} AS s FROM"

            one = client.query(f"{chosen(own)} ({source}) ORDER BY number", parameters).result_rows
            all_at_once = f"(SELECT number, {texts.columns} FROM ({source}))"
            other = client.query(f"{chosen(shared)} {all_at_once} ORDER BY number", parameters).result_rows
            assert one == other, meter.id


def test_a_meter_without_properties_needs_no_text(clickhouse_settings: ClickHouseSettings) -> None:
    texts = EventTexts.of([METERS[3]])

    assert "texts" not in texts.columns
    assert texts.types == [VOID_TYPE, "t"]
    with connect(clickhouse_settings) as client:
        sql = texts.meter(METERS[3], "m")
        query = (
            f"SELECT {sql.applies}, {sql.sign} FROM (SELECT {texts.columns} FROM (SELECT 't' AS type, '{{}}' AS data))"
        )
        assert client.query(query, texts.parameters | sql.parameters).result_rows == [(1, 1)]
