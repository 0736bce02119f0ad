"""The HTTP interface as clickhouse-connect's ordinary client uses it, and raw where the client is too polite."""

import gzip
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import clickhouse_connect
import psutil
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError

from stack.chdb_engine import spool_directory
from tests.stack.servers import ROOT, ClickHouseProcess


def connect(url: str, **options: Any) -> Client:
    parts = urlsplit(url)
    return clickhouse_connect.get_client(
        host=parts.hostname, port=parts.port or 0, autogenerate_session_id=False, **options
    )


@pytest.fixture
def client(clickhouse_url: str) -> Iterator[Client]:
    name = f"stack_{uuid.uuid4().hex[:10]}"
    with connect(clickhouse_url) as found:
        found.command(f"CREATE DATABASE {name}")
        found.database = name
        found.command("CREATE TABLE t (a UInt64, s String, d Decimal(38, 12)) ENGINE = MergeTree ORDER BY a")
        yield found
        found.command(f"DROP DATABASE {name}")


def post(url: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes, dict[str, str]]:
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port or 0, timeout=30)
    try:
        connection.request("POST", path, body, {name.replace("_", "-"): text for name, text in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


def test_parameters_of_all_kinds_arrive_as_they_are(client: Client) -> None:
    parameters = {
        "s": "tab\t line\n 'quote' \\ ü",
        "l": ["a'b", "\\", ""],
        "t": datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
        "d": Decimal("12345678901234567890123456.123456789012"),
        "n": None,
    }
    query = (
        "SELECT {s:String}, {l:Array(String)}, toUnixTimestamp64Milli({t:DateTime64(3, 'UTC')}),"
        " {d:Decimal(38, 12)}, {n:Nullable(String)}"
    )
    expected = (parameters["s"], parameters["l"], 1_767_323_045_678, parameters["d"], None)
    assert client.query(query, parameters=parameters).result_rows[0] == expected


def test_long_parameters_come_as_a_form(client: Client) -> None:
    text = "x'\\" * 20_000
    assert client.query("SELECT {s:String}", parameters={"s": text}).result_rows[0][0] == text


@pytest.mark.parametrize("compression", [False, "lz4", "zstd", "gzip"])
def test_native_inserts_with_every_compression(clickhouse_url: str, client: Client, compression: Any) -> None:
    rows = [[number, f"\n\t {number}", Decimal(number) / 8] for number in range(3000)]
    with connect(clickhouse_url, compress=compression, database=client.database) as other:
        other.insert("t", rows, column_names=["a", "s", "d"])
    assert client.query("SELECT * FROM t ORDER BY a").result_rows == [tuple(row) for row in rows]


def test_settings_and_database_of_one_request_do_not_reach_the_next(clickhouse_url: str, client: Client) -> None:
    query = "SELECT getSetting('max_block_size'), currentDatabase()"
    assert client.query(query, settings={"max_block_size": 77}).result_rows == [(77, client.database)]
    with connect(clickhouse_url) as other:
        assert other.query(query).result_rows[0][0] != 77
        assert other.query(query).result_rows[0][1] == "default"


@pytest.mark.parametrize(
    ("query", "code"),
    [("SELECT * FROM nowhere", 60), ("SELEC", 62), ("SELECT throwIf(number = 2) FROM numbers(5)", 395)],
)
def test_errors_carry_their_code(client: Client, query: str, code: int) -> None:
    with pytest.raises(DatabaseError) as caught:
        client.query(query)
    assert caught.value.code == code


def test_a_failing_insert_inserts_nothing(client: Client) -> None:
    with pytest.raises(DatabaseError):
        client.raw_insert("t", ["a", "s", "d"], "1\tx\t1\nnot a number\ty\t2\n", fmt="TabSeparated")
    assert client.query("SELECT count() FROM t").result_rows == [(0,)]


def test_an_error_inside_a_streamed_result_is_no_silent_end(client: Client) -> None:
    query = "SELECT throwIf(number = 2900000) FROM numbers(3000000)"
    with pytest.raises((StreamFailureError, DatabaseError)), client.query_row_block_stream(query) as stream:
        for _ in stream:
            pass


def test_large_results_stream(client: Client) -> None:
    with client.query_row_block_stream("SELECT number FROM numbers(2000000)") as stream:
        assert sum(len(block) for block in stream) == 2_000_000


def test_queries_run_beside_inserts(clickhouse_url: str, client: Client) -> None:
    ended_s: dict[str, float] = {}

    def slow() -> None:
        with connect(clickhouse_url) as other:
            other.query("SELECT sleepEachRow(0.5) FROM numbers(4) SETTINGS max_block_size = 1")
        ended_s["slow"] = time.monotonic()

    thread = threading.Thread(target=slow)
    thread.start()
    time.sleep(0.3)
    client.insert("t", [[1, "x", 1]], column_names=["a", "s", "d"])
    ended_s["insert"] = time.monotonic()
    thread.join()
    assert ended_s["insert"] < ended_s["slow"]


def test_an_insert_in_the_address_takes_the_body_as_data(clickhouse_url: str, client: Client) -> None:
    path = f"/?query={quote(f'INSERT INTO {client.database}.t (a, s) FORMAT CSV')}"
    body = gzip.compress(b'7,"seven"\n')
    status, _, headers = post(clickhouse_url, path, body, Content_Encoding="gzip")
    assert status == 200
    assert '"written_rows": "1"' in headers["X-ClickHouse-Summary"]
    assert client.query("SELECT a, s FROM t").result_rows == [(7, "seven")]


def test_insert_values_as_text(client: Client) -> None:
    client.command("INSERT INTO t VALUES (1, 'FORMAT CSV', 2)")
    assert client.query("SELECT s FROM t").result_rows == [("FORMAT CSV",)]


def test_browsers_are_refused(clickhouse_url: str) -> None:
    status, body, _ = post(clickhouse_url, "/", b"SELECT 1", Origin="http://evil.example")
    assert (status, body) == (403, b"requests from browsers are refused\n")


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Content_Encoding": "br"}, 415), ({"Content_Encoding": "gzip"}, 400), ({"Content_Length": "x"}, 400)],
)
def test_bodies_that_cannot_be_read_are_refused(clickhouse_url: str, headers: dict[str, str], status: int) -> None:
    assert post(clickhouse_url, "/", b"SELECT 1", **headers)[0] == status


def test_bodies_above_the_limit_are_refused_before_they_are_read(clickhouse_url: str) -> None:
    parts = urlsplit(clickhouse_url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        assert connection.recv(64).startswith(b"HTTP/1.1 413")


def test_a_setting_cannot_smuggle_a_statement(clickhouse_url: str) -> None:
    path = f"/?{quote('max_threads = 1; DROP DATABASE x --')}=1"
    status, _, headers = post(clickhouse_url, path, b"SELECT 1")
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (500, "36")


def test_ping(clickhouse_url: str, client: Client) -> None:
    assert client.ping()
    assert post(clickhouse_url, "/?query=SELECT%201")[1] == b"1\n"


def run_server(*options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "stack.chdb_server", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_a_second_process_on_the_directory_is_refused_and_data_outlive_a_stop(tmp_path: Path) -> None:
    server = ClickHouseProcess(tmp_path / "data")
    server.start()
    with connect(server.url) as client:
        client.command("CREATE TABLE kept (a UInt8) ENGINE = MergeTree ORDER BY a")
        client.command("INSERT INTO kept VALUES (42)")
    second = run_server("--path", str(tmp_path / "data"), "--port", "0")
    assert second.returncode == 3
    assert "is locked by process" in second.stderr
    assert server.stop() == 0
    server.start()
    with connect(server.url) as client:
        assert client.query("SELECT a FROM kept").result_rows == [(42,)]
    server.kill()
    server.start()
    with connect(server.url) as client:
        assert client.query("SELECT a FROM kept").result_rows == [(42,)]
    assert server.stop() == 0


def test_no_insert_is_left_in_shared_memory(tmp_path: Path) -> None:
    server = ClickHouseProcess(tmp_path / "data")
    spool = spool_directory(server.directory)
    server.start()
    with connect(server.url) as client:
        client.command("CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a")
        client.raw_insert("t", ["a"], "1\n2\n", fmt="CSV")
        with pytest.raises(DatabaseError):
            client.raw_insert("t", ["a"], "1\nx\n", fmt="CSV")
    assert list(spool.iterdir()) == []
    (spool / "insert-left").write_bytes(b"x")
    server.kill()
    server.start()
    assert list(spool.iterdir()) == []
    assert server.stop() == 0
    assert not spool.exists()


def test_stopping_lets_running_statements_end(tmp_path: Path) -> None:
    server = ClickHouseProcess(tmp_path / "data")
    server.start()
    found: list[Any] = []

    def slow() -> None:
        with connect(server.url) as client:
            found.extend(client.query("SELECT count(sleepEachRow(0.2)) FROM numbers(5)").result_rows)

    with connect(server.url) as client:
        client.command("SELECT 1")
    thread = threading.Thread(target=slow)
    thread.start()
    time.sleep(0.7)
    assert server.stop() == 0
    thread.join()
    assert found == [(5,)]


def test_only_loopback_addresses_are_served(tmp_path: Path) -> None:
    refused = run_server("--path", str(tmp_path / "data"), "--host", "192.0.2.1", "--port", "0")
    assert refused.returncode == 2
    assert "loopback" in refused.stderr


def test_memory_stays_bounded_under_inserts_and_a_greedy_query(tmp_path: Path) -> None:
    limit = 1 << 30
    server = ClickHouseProcess(tmp_path / "data", memory_bytes_max=limit)
    server.start()
    try:
        with connect(server.url) as client:
            with pytest.raises(DatabaseError) as caught:
                client.command("SELECT length(groupArray(toString(number))) FROM numbers(200000000)")
            assert caught.value.code == 241
            assert client.command("SELECT 1") == 1
        assert psutil.Process(server.pid).memory_info().rss < limit * 1.5
    finally:
        server.stop()
