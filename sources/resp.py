"""A small, fast connection to the event streams' server: requests in bulk, replies by hiredis.

The ordinary client costs as much per entry as the parsing of the reply. This one keeps what the reader and the
producer need: login, TLS, pipelining, a limit on the bytes of a reply, and waiting that sees the stop flag.
"""

import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import hiredis

from config.settings import RedisSettings
from core.errors import RejectedError, RetryableError, StopRequested, Unreachable
from core.redis_client import (
    RETRYABLE_REPLIES,
    connection_options,
    login_refused,
    tls_context,
    unreachable,
    uses_tls,
)

RECEIVE_BYTES: Final = 256 * 1024
STOP_POLL_S: Final = 0.1
CONNECT_S_MAX: Final = 5.0

Argument = bytes | str | int
_MISSING: Final = object()


class ReplyTooLarge(RetryableError):
    """A reply grew beyond the limit; the connection is closed, ask for less."""


class ReplyError(RejectedError):
    """The server refused a command; the message is its own."""


def pack(*arguments: Argument) -> bytes:
    """Return one command as it goes over the wire."""
    packed: bytes = hiredis.pack_command(arguments)  # type: ignore[arg-type]  # takes any number of arguments
    return packed


class RespConnection:
    """One connection. Not thread-safe. Closed for good after any error: make a new one.

    :raises Unreachable: by every method, when the server is away or cannot serve just now.
    :raises StopRequested: `is_stopping` became true while waiting for a reply.
    """

    def __init__(self, settings: RedisSettings, is_stopping: Callable[[], bool] = lambda: False) -> None:
        self._settings = settings
        self._is_stopping = is_stopping
        self._buffer = bytearray(RECEIVE_BYTES)
        self._reader = hiredis.Reader(notEnoughData=_MISSING)
        options = connection_options(settings)
        self._socket = self._open(options)
        try:
            self._log_in(options)
        except BaseException:
            self.close()
            raise

    def _open(self, options: dict[str, Any]) -> socket.socket:
        timeout_s = min(self._settings.connect_timeout_s, CONNECT_S_MAX)
        context = tls_context(self._settings) if uses_tls(self._settings) else None
        try:
            if "path" in options:
                opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                opened.settimeout(timeout_s)
                opened.connect(options["path"])
            else:
                host, port = options.get("host", "localhost"), int(options.get("port", 6379))
                opened = socket.create_connection((host, port), timeout_s)
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                if context is not None:
                    opened = context.wrap_socket(opened, server_hostname=host)
        except OSError as error:
            raise unreachable(self._settings, error) from error
        opened.settimeout(STOP_POLL_S)
        return opened

    def _log_in(self, options: dict[str, Any]) -> None:
        commands: list[bytes] = []
        if password := options.get("password"):
            username = options.get("username")
            commands.append(pack("AUTH", username, password) if username else pack("AUTH", password))
        if database := options.get("db"):
            commands.append(pack("SELECT", int(database)))
        if not commands:
            return
        for reply in self.call(commands):
            if isinstance(reply, Exception):
                raise login_refused(reply)

    def call(self, commands: Sequence[bytes], *, reply_bytes_max: int | None = None) -> list[Any]:
        """Send packed commands at once and return their replies in order; errors are returned, not raised.

        A reply that says "try later" raises `Unreachable`.

        :raises ReplyTooLarge: one reply exceeded `reply_bytes_max`.
        """
        self.send(b"".join(commands))
        return [self.receive(reply_bytes_max) for _ in commands]

    def send(self, data: bytes) -> None:
        """Send bytes, reading nothing; at most what the server's and our own socket buffers take without replies."""
        try:
            self._socket.settimeout(self._settings.socket_timeout_s)
            self._socket.sendall(data)
            self._socket.settimeout(STOP_POLL_S)
        except OSError as error:
            self.close()
            raise unreachable(self._settings, error) from error

    def receive(self, reply_bytes_max: int | None = None) -> Any:
        """Return the next reply, waiting for it up to the socket timeout."""
        reply = self._reader.gets()
        if reply is _MISSING:
            reply = self._wait(reply_bytes_max)
        if isinstance(reply, hiredis.ReplyError):
            text = str(reply)
            if text.startswith(RETRYABLE_REPLIES):
                self.close()
                raise unreachable(self._settings, text)
            return ReplyError(text)
        return reply

    def _wait(self, reply_bytes_max: int | None) -> Any:
        reader, sock, fed_bytes = self._reader, self._socket, 0
        deadline_s = time.monotonic() + self._settings.socket_timeout_s
        while True:
            try:
                received = sock.recv_into(self._buffer)
            except TimeoutError:
                self._check_waiting(deadline_s)
                continue
            except OSError as error:
                self.close()
                raise unreachable(self._settings, error) from error
            if not received:
                self.close()
                raise unreachable(self._settings, "the connection was closed by the server")
            deadline_s = time.monotonic() + self._settings.socket_timeout_s
            try:
                reader.feed(self._buffer, 0, received)  # type: ignore[arg-type]  # any buffer will do
                reply = reader.gets()
            except hiredis.HiredisError as error:
                self.close()
                raise unreachable(self._settings, error) from error
            if reply is not _MISSING:
                return reply
            fed_bytes += received
            if reply_bytes_max is not None and fed_bytes > reply_bytes_max:
                self.close()
                message = f"a reply of Redis is larger than {reply_bytes_max} bytes"
                raise ReplyTooLarge(message)

    def _check_waiting(self, deadline_s: float) -> None:
        if self._is_stopping():
            self.close()
            message = "stopped while waiting for Redis"
            raise StopRequested(message)
        if time.monotonic() > deadline_s:
            self.close()
            raise self._silent()

    def _silent(self) -> Unreachable:
        return unreachable(self._settings, f"no reply within {self._settings.socket_timeout_s:g} s")

    def close(self) -> None:
        """Close the connection; nothing can be called after it."""
        with contextlib.suppress(OSError):
            self._socket.close()
