"""`meterbridge serve`: the API and the web console."""

import gc
import signal
import socket
import sys
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.context import context
from cli.output import emit, note
from core.errors import FatalError

if TYPE_CHECKING:
    import uvicorn

    from config.settings import ConsoleSettings, Settings
    from console.limits import MakeLimiter
    from console.worker import Place

BACKLOG: Final = 2048
SWITCH_S: Final = 0.001
"""How long a thread that makes a page may keep the one that answers requests waiting; Python's default is 5 ms."""


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on. Default: METERBRIDGE_CONSOLE__HOST.")] = "",
    port: Annotated[
        int, typer.Option(help="Port; 0 takes any free one. Default: METERBRIDGE_CONSOLE__PORT.", min=-1, max=65535)
    ] = -1,
    workers: Annotated[
        int, typer.Option(help="Processes that serve the port. Default: METERBRIDGE_CONSOLE__WORKERS.", min=0, max=64)
    ] = 0,
    worker: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Serve the API under /api/v1 and the web console under /, until it is stopped.

    Both need a token: `meterbridge token create`.
    """
    settings = context().settings
    limits = settings.console
    host, port = host or limits.host, limits.port if port < 0 else port
    count = workers or limits.workers
    if worker:
        from console.worker import Place  # noqa: PLC0415 - keeps `--help` fast

        _serve_as(Place.parse(worker), settings, _bound(host, port, shared=True))
    elif count > 1:
        from cli.serve_workers import serve_all  # noqa: PLC0415

        _bound(host, port, shared=False).close()  # the port must be nobody else's: sharing would hide that it is
        reserved = _bound(host, port, shared=True)
        raise typer.Exit(serve_all(settings, reserved, count, lambda: _say(reserved, limits)))
    else:
        _serve_alone(settings, _bound(host, port, shared=False))


def _serve_alone(settings: "Settings", listening: socket.socket) -> None:
    """Serve in this process, with its metrics beside it."""
    from flows import threads  # noqa: PLC0415 - before anything imports polars

    threads.limit(workers=1)

    from flows import health  # noqa: PLC0415

    listening.listen(BACKLOG)  # who connects before the server is ready waits for it
    server = _server(settings)
    metrics = health.serve(settings.metrics, settings.metrics.console_port)
    _say(listening, settings.console)
    try:
        _run(server, listening)
    finally:
        metrics.shutdown()


def _serve_as(place: "Place", settings: "Settings", listening: socket.socket) -> None:
    """Serve as one of several workers; their supervisor has the metrics and says the address."""
    from console.worker import count_as  # noqa: PLC0415
    from flows import threads  # noqa: PLC0415

    threads.limit(workers=1)
    count_as(place.number)

    import structlog  # noqa: PLC0415

    from console.shared_buckets import SharedBuckets, SharedLimiter  # noqa: PLC0415
    from core.clock import SystemClock  # noqa: PLC0415

    structlog.contextvars.bind_contextvars(worker=place.number)
    buckets, clock = SharedBuckets(place.buckets), SystemClock()
    server = _server(settings, lambda name, per_s: SharedLimiter(buckets, name, per_s, clock))
    listening.listen(BACKLOG)
    place.tell_ready()
    _run(server, listening)


def _server(settings: "Settings", make_limiter: "MakeLimiter | None" = None) -> "uvicorn.Server":
    """Return the server, which ends in order when it gets a signal from here on."""
    import uvicorn  # noqa: PLC0415

    from console.app import make_app  # noqa: PLC0415
    from console.server import Server  # noqa: PLC0415
    from console.services import open_services  # noqa: PLC0415
    from core.clock import SystemClock  # noqa: PLC0415

    services = open_services(settings, SystemClock(), make_limiter)
    server = Server(uvicorn.Config(make_app(services), **options(settings.console)), services)

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True  # before the server listens to signals, and when it raises them again at its end

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return server


def _run(server: "uvicorn.Server", listening: socket.socket) -> None:
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()  # what is loaded by now stays: looking through it again and again was a fifth of a request's time
    server.run(sockets=[listening])


def _say(listening: socket.socket, limits: "ConsoleSettings") -> None:
    address = _address(listening)
    emit({"address": address, "api": f"{address}/api/v1"}, f"Console and API at {address} (end it with Ctrl-C)")
    if not _is_loopback(listening) and not limits.behind_tls:
        note("Others can reach this address, and tokens go over it in the clear: put a proxy with TLS in front.")


def options(limits: "ConsoleSettings") -> dict[str, Any]:
    """Return the HTTP server's options."""
    return {
        "http": "httptools",
        "ws": "none",
        "lifespan": "on",
        "log_config": None,
        "access_log": False,  # the service writes its own, with the request's id
        "server_header": False,
        "proxy_headers": bool(limits.proxies),
        "forwarded_allow_ips": list(limits.proxies),
        "limit_concurrency": limits.connections_max,
        "timeout_keep_alive": 30,
        "timeout_graceful_shutdown": 10,
    }


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    """Return a socket that is bound and does not listen; `shared`: others of this user may have the port, too.

    :raises FatalError: the address is taken, or not one of this machine.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(place)
    except OSError as error:
        message = (
            f"cannot listen on {host}:{port}: {error.strerror or error}: another process has the port, or the address"
            " is not of this machine; set METERBRIDGE_CONSOLE__HOST and __PORT (0 takes any free one)"
        )
        raise FatalError(message) from error
    return listening


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_loopback(listening: socket.socket) -> bool:
    import ipaddress  # noqa: PLC0415

    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback
