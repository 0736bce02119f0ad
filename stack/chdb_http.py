"""ClickHouse's HTTP interface in front of the embedded engine, as far as clickhouse-connect needs it.

Served: `/ping`, queries with `param_` parameters and settings, inserts whose data follow the statement in any
input format, request bodies chunked and compressed (gzip, deflate, lz4, zstd), streamed results, the error
code in `X-ClickHouse-Exception-Code`. Not served: users and passwords (it listens on a loopback address and
refuses browsers), sessions (each request stands alone), external data, compressed results.

Guarantee: an insert is applied whole or not at all per block of `max_insert_block_size` rows, as in ClickHouse.
If the process dies, an insert without an answer may or may not have been applied.
Unit of parallelism: one statement per thread, at most `STATEMENTS_MAX` at once.
"""

import json
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, BinaryIO, Final

from stack.chdb_engine import Engine, EngineError, Result, Statement
from stack.http_body import BodyError, form_fields, read_body
from stack.insert_spool import Spooled, spool_insert
from stack.sql_text import is_streamable, parse_insert, result_format

BODY_BYTES_MAX: Final = 1 << 30
SQL_BYTES_MAX: Final = 16 << 20
CONNECTIONS_MAX: Final = 128
STATEMENTS_MAX: Final = 8
STATEMENT_WAIT_S_MAX: Final = 30.0
IDLE_S_MAX: Final = 300.0

_RESERVED: Final = frozenset(
    {
        *("query", "database", "user", "password", "quota_key", "query_id", "role", "stacktrace"),
        *("compress", "decompress", "enable_http_compression", "default_format", "buffer_size"),
        *("wait_end_of_query", "send_progress_in_http_headers", "http_headers_progress_interval_ms"),
        *("session_id", "session_timeout", "session_check", "close_session", "client_protocol_version"),
    }
)
"""Parameters of the interface itself; every other one is a setting or, with `param_`, a query parameter."""
_CODE_TOO_MANY_QUERIES: Final = 202
_HTTP_OF_CODE: Final = {60: 404, 81: 404, 47: 404, 62: 400, 164: 403, _CODE_TOO_MANY_QUERIES: 503}


class Server(ThreadingHTTPServer):
    """The listening server with its engine and its limits."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], engine: Engine) -> None:
        self.engine = engine
        self.statements = threading.BoundedSemaphore(STATEMENTS_MAX)
        self._connections = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self.stopping = threading.Event()
        super().__init__(address, Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in its own thread, or refuse it above the limit."""
        if not self._connections.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Give the connection's place back at its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are no error of the server."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    def wait_for_statements(self, seconds: float) -> bool:
        """Refuse new statements and wait for running ones; return whether all ended in time."""
        self.stopping.set()
        return all(self.statements.acquire(timeout=seconds) for _ in range(STATEMENTS_MAX))


class Handler(BaseHTTPRequestHandler):
    """One connection: reads requests, runs statements, writes results."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_S_MAX
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    server: Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Keep access logs out; errors are answered, not logged."""

    def do_GET(self) -> None:
        """Answer `/ping`, `/` and queries in the address."""
        path = urllib.parse.urlsplit(self.path)
        if path.path in ("/ping", "/replicas_status"):
            return self._answer(200, b"Ok.\n", {})
        if not path.query:
            return self._answer(200, b"Ok.\n", {})
        return self._serve()

    def do_POST(self) -> None:
        """Run a statement."""
        self._serve()

    def _serve(self) -> None:
        try:
            self._check_origin()
            self._run()
        except BodyError as error:
            self.close_connection = True
            self._answer(error.status, f"{error}\n".encode(), {})
        except EngineError as error:
            status = _HTTP_OF_CODE.get(error.code, 500)
            body = f"{error} (version {self.server.engine.version})\n".encode()
            self._answer(status, body, {"X-ClickHouse-Exception-Code": str(error.code)})

    def _check_origin(self) -> None:
        """Refuse browsers: a page from elsewhere could otherwise send statements to this machine."""
        if self.headers.get("Origin") is not None:
            raise BodyError(403, "requests from browsers are refused")
        if self.server.stopping.is_set():
            raise BodyError(503, "the server is stopping")

    def _run(self) -> None:
        query = urllib.parse.urlsplit(self.path).query
        params = dict(urllib.parse.parse_qsl(query, keep_blank_values=True, max_num_fields=1000))
        body = self._body()
        if self.headers.get_content_type() == "multipart/form-data":
            fields = form_fields(self.headers["Content-Type"], _joined(body, SQL_BYTES_MAX))
            params |= fields
            body = iter(())
        with Spooled() as spooled:
            sql = self._sql(params.get("query", "").encode(), body, spooled)
            default = params.get("default_format") or self.headers.get("X-ClickHouse-Format") or "TabSeparated"
            shown = result_format(sql, default)
            statement = Statement(
                sql=sql,
                format=default,
                database=params.get("database") or self.headers.get("X-ClickHouse-Database"),
                settings={
                    name: value
                    for name, value in params.items()
                    if name not in _RESERVED and not name.startswith("param_")
                },
                parameters={
                    name.removeprefix("param_"): value for name, value in params.items() if name.startswith("param_")
                },
            )
            self._execute(statement, shown, streamed=params.get("wait_end_of_query") != "1")

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        return read_body(self.rfile_binary, self.headers, BODY_BYTES_MAX)

    @property
    def rfile_binary(self) -> BinaryIO:
        """Return the request's stream."""
        return self.rfile  # type: ignore[return-value]

    def _sql(self, prefix: bytes, body: Iterator[bytes], spooled: Spooled) -> str:
        """Return the statement; the data of an insert go to a file in shared memory."""
        head, rest = _until_statement(prefix, body)
        insert = parse_insert(head)
        if insert is None:
            text = _joined(_chain(head, rest), SQL_BYTES_MAX)
            try:
                return text.decode()
            except UnicodeDecodeError as error:
                raise BodyError(400, "the statement is not UTF-8") from error
        data = _chain(head[insert.data_at :], rest)
        return spool_insert(insert, data, spooled, self.server.engine.spool_dir)

    def _execute(self, statement: Statement, shown: str | None, *, streamed: bool) -> None:
        if not self.server.statements.acquire(timeout=STATEMENT_WAIT_S_MAX):
            message = f"Code: {_CODE_TOO_MANY_QUERIES}. DB::Exception: {STATEMENTS_MAX} statements are running"
            raise EngineError(_CODE_TOO_MANY_QUERIES, message)
        try:
            if streamed and is_streamable(statement.sql, shown):
                self._answer_stream(self.server.engine.stream(statement), shown)
            else:
                result = self.server.engine.execute(statement)
                self._answer(200, result.body, _headers(self.server.engine, shown, result))
        finally:
            self.server.statements.release()

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in {"Content-Type": "text/plain; charset=UTF-8", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _answer_stream(self, pieces: Iterator[bytes], shown: str | None) -> None:
        """Send a result as it comes; an error before the first piece still gets its code.

        After that the connection is cut without the last chunk, so that no client takes a part for the whole.
        """
        first = next(pieces, b"")
        self.send_response_only(200)
        for name, value in _headers(self.server.engine, shown, None).items():
            self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            piece: bytes | None = first
            while piece:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                piece = next(pieces, None)
        except EngineError:
            self.close_connection = True
            self.wfile.flush()
            return
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()


def _headers(engine: Engine, shown: str | None, result: Result | None) -> dict[str, str]:
    headers = {"X-ClickHouse-Timezone": engine.timezone, "X-ClickHouse-Server-Display-Name": "embedded"}
    if shown is not None:
        headers["X-ClickHouse-Format"] = shown
    if result is not None:
        summary = {
            "read_rows": str(result.rows_read),
            "read_bytes": str(result.bytes_read),
            "written_rows": str(result.rows_written),
            "elapsed_ns": str(int(result.elapsed_s * 1e9)),
        }
        headers["X-ClickHouse-Summary"] = json.dumps(summary)
    return headers


def _chain(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if head:
        yield head
    yield from rest


def _joined(pieces: Iterator[bytes], bytes_max: int) -> bytes:
    out = bytearray()
    for piece in pieces:
        out += piece
        if len(out) > bytes_max:
            raise BodyError(413, f"a statement may have {bytes_max} bytes: send data with INSERT ... FORMAT")
    return bytes(out)


def _until_statement(prefix: bytes, body: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Return a head that holds the whole INSERT statement, if it is one, and what follows.

    A statement in the address ends with a line feed, as in ClickHouse, before the body goes on.
    """
    head = prefix + b"\n" if prefix else b""
    while len(head) < 1 << 16:
        piece = next(body, None)
        if piece is None:
            break
        head += piece
    return head, body
