"""A TCP link on loopback that can be cut and pointed elsewhere: a network, or the address that moves in a failover."""

import contextlib
import socket
import threading

CHUNK_BYTES = 1 << 16


class Link:
    """Forwards connections to a port of this machine. Cut, it refuses new ones and resets those it has."""

    def __init__(self, port: int) -> None:
        self._target: int | None = port
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Lose what is under way, and let nothing through any more."""
        with self._lock:
            self._target, ending = None, self._open
            self._open = []
        for one in ending:
            _end(one)

    def to(self, port: int) -> None:
        """Lead new connections to another port; those that stand are reset."""
        self.cut()
        with self._lock:
            self._target = port

    def close(self) -> None:
        self.cut()
        _end(self._listener)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                far = self._connect()
                if far is None:
                    near.close()
                    continue
                self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=(source, sink), daemon=True).start()

    def _connect(self) -> socket.socket | None:
        if self._target is None:
            return None
        try:
            return socket.create_connection(("127.0.0.1", self._target), timeout=5)
        except OSError:
            return None


def _pump(source: socket.socket, sink: socket.socket) -> None:
    source.settimeout(None)
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK_BYTES):
            sink.sendall(data)
    for one in (source, sink):
        _end(one)


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
