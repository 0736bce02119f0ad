"""An HTTP proxy on loopback that stands between an adapter and its ERP and misbehaves where a script says so."""

import http.client
import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

FaultName = Literal[
    "pass",
    "lose_request",  # the request never arrives
    "lose_answer",  # it takes effect, the answer is dropped
    "truncate",  # it takes effect, half of the answer arrives
    "delay_answer",  # it takes effect, the answer comes after the client gave up
    "delay_request",  # it takes effect only when the held requests are released
    "duplicate",  # the network delivers the request twice
    "html",  # it takes effect, the answer is a page of HTML with status 200
    "answer",  # the proxy answers itself with `answer`; the request never arrives
]
MIXED: tuple[FaultName, ...] = ("lose_request", "lose_answer", "truncate", "delay_answer", "duplicate", "html")
HTML = b"<html><body><h1>It works!</h1></body></html>"
UPSTREAM_S_MAX = 120


@dataclass(frozen=True)
class Reply:
    """An answer of the proxy's own."""

    status: int
    body: bytes = b"<html>busy</html>"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Seen:
    """A request that went through: when, what, and what was done to it."""

    at_s: float
    method: str
    path: str
    fault: FaultName
    body: bytes


class FaultProxy:
    """Forwards to a port of this machine. Faults hit only the requests `concerns` picks, in order."""

    def __init__(self, port: int, concerns: Callable[[str, str, bytes], bool]) -> None:
        self.upstream_port = port
        self.concerns = concerns
        self.script: list[FaultName] = []
        self.chance: random.Random | None = None
        self.rate = 0.0
        self.mixed: tuple[FaultName, ...] = MIXED
        self.reply = Reply(503)
        self.delay_s = 0.7
        self.seen: list[Seen] = []
        self._held: list[Callable[[], Any]] = []
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="fault-proxy", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def heal(self) -> None:
        """Let everything through from now on."""
        self.script.clear()
        self.chance = None

    def mix(self, seed: int, rate: float, names: tuple[FaultName, ...] = MIXED) -> None:
        """Let that share of the requests meet one of these faults."""
        self.chance, self.rate, self.mixed = random.Random(seed), rate, names

    def release(self) -> None:
        """Let the held requests reach the ERP now, in order."""
        with self._lock:
            held, self._held = self._held, []
        for send in held:
            send()

    def hold(self, send: Callable[[], Any]) -> None:
        with self._lock:
            self._held.append(send)

    def next_fault(self, method: str, path: str, body: bytes) -> FaultName:
        with self._lock:
            fault: FaultName = "pass"
            if self.concerns(method, path, body):
                if self.script:
                    fault = self.script.pop(0)
                elif self.chance is not None and self.chance.random() < self.rate:
                    fault = self.chance.choice(self.mixed)
            self.seen.append(Seen(time.monotonic(), method, path, fault, body))
            return fault

    def concerned(self) -> list[Seen]:
        """Return the requests seen that the faults are for."""
        return [one for one in self.seen if self.concerns(one.method, one.path, one.body)]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: FaultProxy

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base class names it so
        return

    def _handle(self) -> None:
        proxy = self.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = proxy.next_fault(self.command, self.path, body)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in {"host", "connection"}}
        port = proxy.upstream_port

        def send() -> tuple[int, list[tuple[str, str]], bytes]:
            return forward(port, self.command, self.path, headers, body)

        if fault == "lose_request":
            self._hang_up()
            return
        if fault == "delay_request":
            proxy.hold(send)
            self._hang_up()
            return
        if fault == "answer":
            self._answer(proxy.reply.status, proxy.reply.headers, proxy.reply.body)
            return
        try:
            if fault == "duplicate":
                send()
            status, answered, content = send()
        except (OSError, http.client.HTTPException):
            self._hang_up()
            return
        self._hand_on(fault, status, answered, content)

    def _hand_on(self, fault: FaultName, status: int, answered: Iterable[tuple[str, str]], content: bytes) -> None:
        if fault == "lose_answer":
            self._hang_up()
            return
        if fault == "delay_answer":
            time.sleep(self.proxy.delay_s)
        if fault == "html":
            status, content = 200, HTML
        if fault == "truncate":
            self._answer(status, answered, content, keep=len(content) // 2)
        else:
            self._answer(status, answered, content)

    def _answer(
        self, status: int, headers: Iterable[tuple[str, str]], content: bytes, *, keep: int | None = None
    ) -> None:
        """Send an answer; with `keep` the length is announced, and only a part is sent."""
        dropped = {"content-length", "transfer-encoding", "connection", "date", "server"}
        try:
            if keep is not None and not content:
                # An answer without a body is cut in its headers.
                self.wfile.write(f"HTTP/1.1 {status} Cut\r\nX-Half".encode())
                self._hang_up()
                return
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in dropped:
                    self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content if keep is None else content[:keep])
            self.wfile.flush()
        except OSError:
            self.close_connection = True
            return
        if keep is not None:
            self._hang_up()

    def _hang_up(self) -> None:
        """Close the connection without an answer."""
        self.close_connection = True
        try:
            self.wfile.flush()
            self.connection.shutdown(2)
        except OSError:
            return

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815 - the base class calls these


def forward(
    port: int, method: str, path: str, headers: dict[str, str], body: bytes
) -> tuple[int, list[tuple[str, str]], bytes]:
    """Do the request for real and return status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=UPSTREAM_S_MAX)
    try:
        connection.request(method, path, body=body or None, headers=headers)
        response = connection.getresponse()
        return response.status, response.getheaders(), response.read()
    finally:
        connection.close()
