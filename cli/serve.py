"""`meterbridge serve`: the API and the web console."""

import signal
import socket
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.context import context
from cli.output import emit, note
from core.errors import FatalError

if TYPE_CHECKING:
    from config.settings import ConsoleSettings


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on. Default: METERBRIDGE_CONSOLE__HOST.")] = "",
    port: Annotated[
        int, typer.Option(help="Port; 0 takes any free one. Default: METERBRIDGE_CONSOLE__PORT.", min=-1, max=65535)
    ] = -1,
) -> None:
    """Serve the API under /api/v1 and the web console under /, until it is stopped.

    Both need a token: `meterbridge token create`.
    """
    import uvicorn  # noqa: PLC0415 - keeps `--help` fast

    from console.app import make_app  # noqa: PLC0415
    from console.services import open_services  # noqa: PLC0415
    from core.clock import SystemClock  # noqa: PLC0415
    from flows import health  # noqa: PLC0415

    settings = context().settings
    limits = settings.console
    listening = _listen(host or limits.host, limits.port if port < 0 else port)
    services = open_services(settings, SystemClock())
    address = _address(listening)
    metrics = health.serve(settings.metrics, settings.metrics.console_port)
    emit({"address": address, "api": f"{address}/api/v1"}, f"Console and API at {address} (end it with Ctrl-C)")
    if not _is_loopback(listening) and not limits.behind_tls:
        note("Others can reach this address, and tokens go over it in the clear: put a proxy with TLS in front.")
    server = uvicorn.Server(uvicorn.Config(make_app(services), **options(limits)))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)  # the server raises what stopped it once more at its end
    try:
        server.run(sockets=[listening])
    finally:
        metrics.shutdown()


def options(limits: "ConsoleSettings") -> dict[str, Any]:
    """Return the HTTP server's options."""
    return {
        "http": "httptools",
        "ws": "none",
        "lifespan": "on",
        "log_config": None,
        "access_log": False,  # the service writes its own, with the request's id
        "server_header": False,
        "proxy_headers": False,
        "limit_concurrency": limits.connections_max,
        "timeout_keep_alive": 30,
        "timeout_graceful_shutdown": 10,
    }


def _listen(host: str, port: int) -> socket.socket:
    """Return the socket.

    :raises FatalError: the address is taken, or not one of this machine.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
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
