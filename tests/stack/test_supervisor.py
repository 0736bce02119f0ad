"""The supervisor with real processes: up, up again, status, down, and whose process is whose."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from config.settings import ClickHouseSettings, RedisSettings, Settings
from core.errors import FatalError, InvalidRequest
from sinks.clickhouse.client import connect
from stack import processes, valkey
from stack.supervisor import Stack


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    settings = Settings(
        state_dir=tmp_path_factory.mktemp("state"),
        redis=RedisSettings(url=f"redis://127.0.0.1:{free_port()}/0"),
        clickhouse=ClickHouseSettings(url=f"http://127.0.0.1:{free_port()}"),
    )
    yield settings
    Stack(settings).stop()


def test_up_serves_both_and_up_again_changes_nothing(settings: Settings) -> None:
    first = Stack(settings).start()
    assert [(server.name, server.running, server.answers) for server in first] == [
        ("valkey", True, True),
        ("clickhouse", True, True),
    ]
    assert all(server.memory_bytes > 1 << 20 for server in first)
    again = Stack(settings).start()
    assert [server.pid for server in again] == [server.pid for server in first]


def test_data_outlive_down_and_up_and_the_processes_are_gone_in_between(settings: Settings) -> None:
    running = Stack(settings).start()
    with redis.Redis.from_url(settings.redis.url) as client:
        client.xadd("usage:0", {"event": "{}"})
        before = client.xlen("usage:0")
    with connect(settings.clickhouse) as clickhouse:
        clickhouse.command("CREATE TABLE IF NOT EXISTS kept (a UInt8) ENGINE = MergeTree ORDER BY a")
        clickhouse.command("INSERT INTO kept VALUES (7)")
    stopped = Stack(settings).stop()
    assert not any(server.running or server.answers for server in stopped)
    assert not any(psutil.pid_exists(server.pid) for server in running if server.pid)
    Stack(settings).start()
    with redis.Redis.from_url(settings.redis.url) as client:
        assert client.xlen("usage:0") == before
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    with connect(settings.clickhouse) as clickhouse:
        assert clickhouse.query("SELECT a FROM kept").result_rows == [(7,)]


def test_a_dead_server_is_seen_and_started_again_alone(settings: Settings) -> None:
    before = {server.name: server for server in Stack(settings).start()}
    pid = before["valkey"].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    deadline_s = time.monotonic() + 5
    while Stack(settings).status()[0].running and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not Stack(settings).status()[0].running
    after = {server.name: server for server in Stack(settings).start()}
    assert after["valkey"].pid != pid
    assert after["clickhouse"].pid == before["clickhouse"].pid


def test_a_port_in_use_names_the_setting_and_starts_nothing(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = Settings(
            state_dir=tmp_path,
            redis=RedisSettings(url=f"redis://127.0.0.1:{free_port()}/0"),
            clickhouse=ClickHouseSettings(url=f"http://127.0.0.1:{taken.getsockname()[1]}"),
        )
        with pytest.raises(InvalidRequest, match=r"in use.*METERBRIDGE_CLICKHOUSE__URL"):
            Stack(settings).start()
        assert not any(server.running for server in Stack(settings).status())


def test_servers_elsewhere_are_left_alone(tmp_path: Path) -> None:
    settings = Settings(
        state_dir=tmp_path,
        redis=RedisSettings(url="redis://redis.invalid:6379/0"),
        clickhouse=ClickHouseSettings(url="https://clickhouse.invalid"),
    )
    servers = Stack(settings).start()
    assert [(server.embedded, server.running) for server in servers] == [(False, False), (False, False)]
    assert servers[1].address == "clickhouse.invalid:8443"


def test_a_server_that_does_not_come_up_shows_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = valkey.configuration(tmp_path, "127.0.0.1", 1) + "no-such-option yes\n"
    monkeypatch.setattr(valkey, "configuration", lambda *_: broken)
    settings = Settings(
        state_dir=tmp_path,
        redis=RedisSettings(url=f"redis://127.0.0.1:{free_port()}/0"),
        clickhouse=ClickHouseSettings(url="http://clickhouse.invalid"),
    )
    with pytest.raises(FatalError, match="no-such-option"):
        Stack(settings).start()


def test_only_the_very_process_we_started_is_ever_ended(tmp_path: Path) -> None:
    file = tmp_path / "x.pid"
    process = processes.start(["sleep", "60"], log=tmp_path / "x.log", pid_file=file)
    try:
        assert processes.load(file) == process
        stranger = processes.Process(process.pid, process.started_s - 5)
        assert not stranger.is_running()
        assert stranger.terminate(1)
        assert process.is_running()
    finally:
        assert process.terminate(5)
    assert processes.load(file) is None
    file.write_text("not json")
    assert processes.load(file) is None
