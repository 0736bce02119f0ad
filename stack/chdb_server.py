"""The embedded ClickHouse as a process of its own: `python -m stack.chdb_server --path DIR --port PORT`.

Flow, poster, CLI and tests then all use the one HTTP path that production uses, and the server can be stopped
and started alone, as an outage needs.
"""

import argparse
import ipaddress
import signal
import sys
import threading
from pathlib import Path
from typing import Any, Final

from core.errors import MeterbridgeError
from stack.chdb_engine import Engine, Limits
from stack.chdb_http import Server

STOP_S_MAX: Final = 20.0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Embedded ClickHouse behind its HTTP interface.")
    parser.add_argument("--path", type=Path, required=True, help="data directory; one process each")
    parser.add_argument("--host", default="127.0.0.1", help="loopback address to listen on")
    parser.add_argument("--port", type=int, default=8190, help="port; 0 takes any free one")
    parser.add_argument("--memory-bytes-max", type=int, default=Limits().memory_bytes_max)
    parser.add_argument("--port-file", type=Path, help="write the port here once the server answers")
    return parser.parse_args()


def main() -> int:
    """Serve until SIGTERM or SIGINT; running statements end first."""
    arguments = _arguments()
    if not ipaddress.ip_address(arguments.host).is_loopback:
        print(f"error: {arguments.host} is not a loopback address; there are no passwords here", file=sys.stderr)
        return 2
    memory = arguments.memory_bytes_max
    try:
        engine = Engine(arguments.path, Limits(memory_bytes_max=memory, query_memory_bytes_max=memory // 2))
        server = Server((arguments.host, arguments.port), engine)
    except MeterbridgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    except OSError as error:
        print(f"error: cannot listen on {arguments.host}:{arguments.port}: {error}", file=sys.stderr)
        return 4

    def stop(_number: int, _frame: Any) -> None:
        threading.Thread(target=server.shutdown, name="stop").start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    if arguments.port_file:
        temporary = arguments.port_file.with_suffix(".tmp")
        temporary.write_text(str(server.server_port))
        temporary.replace(arguments.port_file)
    print(f"ClickHouse engine {engine.version} answers on {arguments.host}:{server.server_port}", flush=True)
    server.serve_forever(poll_interval=0.1)
    server.socket.close()
    ended = server.wait_for_statements(STOP_S_MAX)
    if ended:
        engine.close()
    return 0 if ended else 5


if __name__ == "__main__":
    sys.exit(main())
