"""The service behind a real HTTP server in a thread of the test's process."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from cli.serve import options
from console.app import make_app
from console.server import Server
from console.services import Services


@contextmanager
def serving(services: Services) -> Iterator[str]:
    """Serve on a free port and yield the address; the services are closed at the end."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = Server(uvicorn.Config(make_app(services), **options(services.settings.console)), services)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            message = "the server ended before it began"
            raise RuntimeError(message)
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
