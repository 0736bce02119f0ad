"""The writer through outages of a real server process: nothing lost, nothing doubled, and it can be stopped."""

import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from prometheus_client import REGISTRY

from config.settings import ClickHouseSettings
from core.errors import FatalError, StopRequested, Unreachable
from sinks import clickhouse
from sinks.clickhouse.client import Client, connect
from sinks.clickhouse.tables import TABLES
from sinks.clickhouse.writer import TableWriter
from tests.sinks.clickhouse import rows
from tests.sinks.erp.fault_proxy import HTML, FaultProxy, Reply
from tests.stack.servers import ClickHouseProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseProcess]:
    process = ClickHouseProcess(tmp_path_factory.mktemp("outage") / "clickhouse")
    process.start()
    clickhouse.migrate(settings_of(process))
    yield process
    process.stop()


def settings_of(server: ClickHouseProcess, **changes: Any) -> ClickHouseSettings:
    return ClickHouseSettings(url=server.url, connect_timeout_s=1, request_timeout_s=5, **changes)


@pytest.fixture
def settings(server: ClickHouseProcess) -> ClickHouseSettings:
    settings = settings_of(server)
    with connect(settings) as client:
        for table in TABLES:
            client.command(f"TRUNCATE TABLE {settings.database}.{table}")
    return settings


def writer_of(
    settings: ClickHouseSettings, stop: threading.Event, table: str = "usage_events", connector: Any = connect
) -> TableWriter:
    return TableWriter(TABLES[table], settings, rows.STREAMS, stop=stop, epoch_s=1, connector=connector)


def ids(settings: ClickHouseSettings, view: str = "usage_events_current") -> list[str]:
    with connect(settings) as client:
        found = client.query(f"SELECT id FROM {settings.database}.{view} ORDER BY ingest_time, entry_id")
        return [row[0] for row in found.result_rows]


def waiting_since() -> float:
    return REGISTRY.get_sample_value("meterbridge_waiting_since_timestamp_seconds", {"server": "clickhouse"}) or 0.0


def test_a_server_killed_and_started_again_loses_and_doubles_nothing(
    server: ClickHouseProcess, settings: ClickHouseSettings
) -> None:
    small = settings.model_copy(update={"insert_rows_max": 500})
    stop = threading.Event()
    writer = writer_of(small, stop)
    failed: list[BaseException] = []

    def feed() -> None:
        try:
            for start in range(0, 20_000, 250):
                writer.write([rows.events(250, first=start)])
            writer.flush()
        except BaseException as error:
            failed.append(error)

    feeder = threading.Thread(target=feed)
    feeder.start()
    for _ in range(2):
        time.sleep(0.15)
        server.kill()
        time.sleep(0.3)
        assert feeder.is_alive(), "everything was written before the outage: the test is void"
        server.start()
    feeder.join(timeout=60)
    writer.close()
    assert not failed
    assert ids(settings) == [f"id-{number}" for number in range(20_000)]


def test_stopping_during_an_outage_ends_the_flush_at_once(
    server: ClickHouseProcess, settings: ClickHouseSettings
) -> None:
    stop = threading.Event()
    writer = writer_of(settings, stop)
    server.kill()
    try:
        writer.write([rows.events(3)])
        asked_s: list[float] = []

        def ask() -> None:
            while not waiting_since():
                time.sleep(0.01)
            asked_s.append(time.monotonic())
            stop.set()

        asker = threading.Timer(0.3, ask)
        asker.start()
        with pytest.raises(StopRequested, match="replayed"):
            writer.flush()
        assert time.monotonic() - asked_s[0] < 0.5
        writer.close()
        assert waiting_since() == 0
    finally:
        server.start()


def test_stopping_while_the_server_answers_still_writes_everything(settings: ClickHouseSettings) -> None:
    stop = threading.Event()
    writer = writer_of(settings, stop)
    writer.write([rows.events(10)])
    stop.set()
    writer.flush()
    writer.close()
    assert len(ids(settings)) == 10


class LosesAnswers(Client):
    """A connection whose first insert is applied, while its answer never comes."""

    lost = 0

    def insert_arrow(self, table: str, rows: pa.Table, settings: Mapping[str, Any] | None = None) -> None:
        super().insert_arrow(table, rows, settings)
        if not LosesAnswers.lost:
            LosesAnswers.lost += 1
            message = "timed out after the insert was applied"
            raise Unreachable(message)


def test_an_insert_that_times_out_after_it_was_applied_shows_once(settings: ClickHouseSettings) -> None:
    def connector(wanted: ClickHouseSettings) -> Client:
        return LosesAnswers(connect(wanted)._driver, wanted)

    LosesAnswers.lost = 0
    writer = writer_of(settings, threading.Event(), connector=connector)
    writer.write([rows.events(5)])
    writer.flush()
    writer.close()
    assert LosesAnswers.lost == 1
    assert len(ids(settings, "usage_events")) == 10, "the insert was not repeated: the test is void"
    assert ids(settings) == [f"id-{number}" for number in range(5)]


def test_a_missing_table_is_fatal_and_says_what_to_do(settings: ClickHouseSettings) -> None:
    elsewhere = settings.model_copy(update={"database": "nowhere"})
    writer = writer_of(elsewhere, threading.Event())
    writer.write([rows.events(1)])
    with pytest.raises(FatalError, match="meterbridge migrate"):
        writer.flush()
    with pytest.raises(FatalError):
        writer.write([rows.events(1)])
    writer.close()


def test_a_full_queue_makes_the_flow_wait_and_is_bounded(
    server: ClickHouseProcess, settings: ClickHouseSettings
) -> None:
    bounded = settings.model_copy(update={"queue_bytes_max": 1 << 20, "insert_rows_max": 1000})
    stop = threading.Event()
    writer = writer_of(bounded, stop)
    server.kill()
    handed_over = 0
    stopped = threading.Event()

    def feed() -> None:
        nonlocal handed_over
        try:
            for start in range(0, 100_000, 1000):
                writer.write([rows.events(1000, first=start)])
                handed_over += 1
        except StopRequested:
            stopped.set()

    feeder = threading.Thread(target=feed)
    feeder.start()
    time.sleep(1.0)
    assert 0 < handed_over < 50
    stop.set()
    feeder.join(timeout=5)
    assert stopped.is_set()
    writer.close()
    server.start()


def test_items_larger_than_an_insert_are_split(settings: ClickHouseSettings) -> None:
    small = settings.model_copy(update={"insert_rows_max": 7})
    writer = writer_of(small, threading.Event())
    before = REGISTRY.get_sample_value("meterbridge_sink_insert_seconds_count", {"table": "usage_events"}) or 0
    writer.write([rows.events(20)])
    writer.flush()
    writer.close()
    after = REGISTRY.get_sample_value("meterbridge_sink_insert_seconds_count", {"table": "usage_events"}) or 0
    assert after - before == 3
    assert len(ids(settings)) == 20


def test_small_items_are_joined_into_one_insert(settings: ClickHouseSettings) -> None:
    writer = writer_of(settings, threading.Event())
    before = REGISTRY.get_sample_value("meterbridge_sink_insert_seconds_count", {"table": "usage_events"}) or 0
    writer.write([rows.events(10, first=start) for start in range(0, 100, 10)])
    writer.flush()
    writer.close()
    after = REGISTRY.get_sample_value("meterbridge_sink_insert_seconds_count", {"table": "usage_events"}) or 0
    assert after - before == 1
    assert len(ids(settings)) == 100


def test_connecting_to_nothing_names_address_and_setting(tmp_path: Path) -> None:
    settings = ClickHouseSettings(url="http://127.0.0.1:9", connect_timeout_s=1)
    with pytest.raises(Unreachable, match=r"127.0.0.1:9.*METERBRIDGE_CLICKHOUSE__URL"):
        connect(settings)


@pytest.mark.parametrize("only_inserts", [True, False], ids=["inserts", "everything"])
def test_a_page_of_something_else_is_no_answer(settings: ClickHouseSettings, only_inserts: bool) -> None:
    """Given a proxy that answers 200 with its own page for a while; then rows are sent until ClickHouse has them."""
    port = urlsplit(settings.url).port
    assert port is not None
    proxy = FaultProxy(port, lambda _method, path, body: not only_inserts or b"INSERT" in path.encode() + body[:300])
    writer = writer_of(settings.model_copy(update={"url": proxy.url}), threading.Event())
    try:
        writer.write([rows.events(1)])
        writer.flush()
        proxy.reply = Reply(200, HTML, (("Content-Type", "text/html"),))
        proxy.mix(1, 1.0, ("answer",))
        threading.Timer(1.0, proxy.heal).start()
        writer.write([rows.events(1, first=1)])
        writer.flush()
        assert len(ids(settings)) == 2
    finally:
        writer.close()
        proxy.close()
