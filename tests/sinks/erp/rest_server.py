"""A test ERP over HTTP as a process of its own, to be frozen and killed.

`python -m tests.sinks.erp.rest_server KIND STORE.sqlite PORT_FILE TOKEN_FILE`. It commits to SQLite before it answers,
so that a killed process keeps what it booked.
"""

import json
import sys
import threading
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from tests.sinks.erp.rest_kinds import KINDS
from tests.sinks.erp.rest_store import Refused, Store


def dumps(value: Any) -> bytes:
    """Return JSON in which decimals are numbers with all their digits."""

    def number(part: Any) -> Any:
        if isinstance(part, Decimal):
            return orjson.Fragment(format(part, "f").encode())
        raise TypeError

    return orjson.dumps(value, default=number)


def serve(kind: str, store_path: str, port_file: Path, token_file: Path) -> None:
    """Serve until killed."""
    store = Store(store_path)
    erp = KINDS[kind](store)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
            return

        def _handle(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            given = self.headers.get("Authorization", "")
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            if given != f"Bearer {token_file.read_text().strip()}":
                # Some servers show the whole request in their error page.
                self._answer(401, f"<html>Unauthorized: {given}</html>".encode(), {})
                return
            with lock:
                store.connection.execute("BEGIN IMMEDIATE")
                try:
                    body = json.loads(raw, parse_float=Decimal) if raw else None
                    status, value, more = erp.handle(self.command, parts.path, query, headers, body)
                    store.connection.execute("COMMIT")
                except Refused as refused:
                    store.connection.execute("ROLLBACK")
                    status, value, more = erp.refused(str(refused))
                except Exception as error:
                    store.connection.execute("ROLLBACK")
                    status, value, more = 500, {"bug": repr(error)}, {}
            self._answer(status, b"" if value is None else dumps(value), more)

        def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = _handle  # noqa: N815 - the base class calls these

    port = int(port_file.read_text()) if port_file.exists() else 0
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    partial = port_file.with_suffix(".partial")
    partial.write_text(str(server.server_address[1]))
    partial.replace(port_file)
    server.serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
