"""The HTTP server of the service."""

import socket

import uvicorn

from console.services import Services


class Server(uvicorn.Server):
    """Lets live streams go when it ends, and then waits for the requests under way: a stream never ends by itself."""

    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self._services = services

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End in order."""
        self._services.end_streams()
        await super().shutdown(sockets)
