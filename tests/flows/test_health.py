"""Health and metrics over HTTP: what a probe sees while the flow waits, and beside a client that says nothing."""

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from wsgiref.simple_server import WSGIServer

import orjson
import pytest

from config.settings import MetricsSettings
from core.errors import FatalError
from core.metrics import WAITING_SINCE
from flows import health

NOW_S = 1_793_440_800.0


@pytest.fixture
def waiting() -> Iterator[None]:
    """Leave the metric as it was: the registry is the process's."""
    yield
    WAITING_SINCE.labels("redis").set(0)


@pytest.fixture
def server() -> Iterator[WSGIServer]:
    running = health.serve(MetricsSettings(), 0)
    yield running
    running.shutdown()
    running.server_close()


def _get(server: WSGIServer, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}{path}", timeout=5) as answer:
            return int(answer.status), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.usefixtures("waiting")
def test_results_are_not_fresh_while_a_server_is_waited_for_though_the_process_lives() -> None:
    assert health.readiness(NOW_S)[0]
    WAITING_SINCE.labels("redis").set(NOW_S - 30)
    assert health.readiness(NOW_S)[0]
    WAITING_SINCE.labels("redis").set(NOW_S - 61)
    good, detail = health.readiness(NOW_S)
    assert not good
    assert detail["waiting_s"] == {"redis": 61.0}
    assert health.liveness(NOW_S)[0]


def test_paths_and_their_codes(server: WSGIServer, waiting: None) -> None:
    assert _get(server, "/health/live")[0] == 200
    WAITING_SINCE.labels("redis").set(time.time() - 100)
    code, body = _get(server, "/health/ready")
    assert code == 503
    assert orjson.loads(body)["waiting_s"]["redis"] >= 100
    assert b"meterbridge_waiting_since_timestamp_seconds" in _get(server, "/metrics")[1]
    assert _get(server, "/nothing")[0] == 404


def test_a_client_that_says_nothing_hides_nothing(server: WSGIServer) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port)) as silent:
        assert _get(server, "/health/live")[0] == 200
        assert silent.getpeername()


def test_a_taken_port_names_the_setting(server: WSGIServer) -> None:
    with pytest.raises(FatalError, match="METERBRIDGE_METRICS__FLOW_PORT"):
        health.serve(MetricsSettings(), server.server_port)
