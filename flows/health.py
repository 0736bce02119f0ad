"""Metrics and health over HTTP, in a thread of its own so that a blocked worker still answers.

`/metrics`: Prometheus text. `/health/live`: 200 while epochs close (or while the flow waits for a server and
says which), 503 when none has closed for too long. `/health/ready`: 200 when the lag is small
and no server has been waited for longer than that.
"""

import threading
import time
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import orjson
from prometheus_client import REGISTRY, CollectorRegistry, make_wsgi_app

from config.settings import MetricsSettings
from core.errors import FatalError

EPOCH_AGE_S_MAX = 60.0
LAG_S_MAX = 60.0
REQUEST_S_MAX = 10
"""How long a client may take to say what it wants."""

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class _Quiet(WSGIRequestHandler):
    timeout = REQUEST_S_MAX

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Keep access logs out of the flow's log."""


class _Server(ThreadingMixIn, WSGIServer):
    """Answers each client in a thread of its own: one that connects and says nothing must not hide our health."""

    daemon_threads = True


def _sample(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def _all_samples(name: str) -> list[float]:
    return [sample.value for metric in REGISTRY.collect() for sample in metric.samples if sample.name == name]


def _waiting_s(now_s: float) -> dict[str, float]:
    """Return for how long the process has been waiting, by server."""
    return {
        sample.labels["server"]: round(now_s - sample.value, 1)
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "meterbridge_waiting_since_timestamp_seconds" and sample.value > 0
    }


def liveness(now_s: float) -> tuple[bool, dict[str, Any]]:
    """Judge whether the process makes progress: epoch age, or a named server it waits for."""
    started_s = _sample("meterbridge_epoch_started_timestamp_seconds") or 0.0
    age_s = now_s - started_s if started_s else None
    waiting = _waiting_s(now_s)
    alive = age_s is None or age_s <= EPOCH_AGE_S_MAX or bool(waiting)
    return alive, {"epoch_age_s": age_s and round(age_s, 1), "waiting_s": waiting}


def readiness(now_s: float) -> tuple[bool, dict[str, Any]]:
    """Judge whether results are fresh: the largest lag of any stream, in seconds of stream time.

    While the flow waits for a server nothing measures the lag; results are then at least that old.
    """
    lag_s = max(_all_samples("meterbridge_lag_seconds"), default=0.0)
    waiting_s = _waiting_s(now_s)
    return max(lag_s, *waiting_s.values(), 0.0) <= LAG_S_MAX, {"lag_s": lag_s, "waiting_s": waiting_s}


def application(registry: CollectorRegistry = REGISTRY) -> Callable[[dict[str, Any], StartResponse], Iterable[bytes]]:
    """Return the WSGI application."""
    metrics = make_wsgi_app(registry)

    def serve(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "/")
        if path == "/metrics":
            return metrics(environ, start_response)  # type: ignore[no-any-return]
        if path == "/health/live":
            good, detail = liveness(time.time())
        elif path == "/health/ready":
            good, detail = readiness(time.time())
        else:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"known paths: /metrics /health/live /health/ready\n"]
        status = "200 OK" if good else "503 Service Unavailable"
        start_response(status, [("Content-Type", "application/json")])
        return [orjson.dumps(detail)]

    return serve


def serve(settings: MetricsSettings, port: int, registry: CollectorRegistry = REGISTRY) -> WSGIServer:
    """Start the endpoint in a daemon thread and return the server; `server.server_port` tells the port.

    :param registry: whose metrics `/metrics` shows.

    :raises FatalError: the port is taken.
    """
    try:
        server = make_server(settings.host, port, application(registry), server_class=_Server, handler_class=_Quiet)
    except OSError as error:
        message = (
            f"metrics endpoint {settings.host}:{port}: {error.strerror}: "
            "another process has the port; set METERBRIDGE_METRICS__FLOW_PORT, __POSTER_PORT or __CONSOLE_PORT"
            " (0 takes any free one)"
        )
        raise FatalError(message) from error
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
