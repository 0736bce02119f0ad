"""What every request may use: settings, clock, stores, who asks, limits."""

from dataclasses import dataclass

from config.settings import Settings
from console.answers import to_json
from console.auth import Authenticator
from console.intake import Intake
from console.limits import READING_BYTES_MAX, RateLimiter, Room
from console.live import Broadcast, read_overview
from console.stores import StorePool, open_pool
from core.clock import Clock


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of one running service."""

    settings: Settings
    clock: Clock
    pool: StorePool
    authenticator: Authenticator
    intake: Intake
    live: Broadcast
    room: Room
    requests: RateLimiter
    events: RateLimiter

    def close(self) -> None:
        """Answer what was posted and close all connections."""
        self.intake.close()
        self.pool.close()
        self.pool.engine.dispose()


def open_services(settings: Settings, clock: Clock) -> Services:
    """Connect to the ledger and return the services.

    :raises Unreachable: the ledger does not answer.
    :raises InvalidRequest: it is not migrated.
    """
    pool = open_pool(settings, clock)

    async def live_message() -> bytes:
        return to_json(await read_overview(pool, clock))

    return Services(
        settings=settings,
        clock=clock,
        pool=pool,
        authenticator=Authenticator(pool, clock),
        intake=Intake(settings, pool, clock),
        live=Broadcast(live_message, settings.console.streams_max),
        room=Room(max(READING_BYTES_MAX, settings.console.body_bytes_max)),
        requests=RateLimiter(settings.console.requests_per_s_max, clock),
        events=RateLimiter(settings.console.events_per_s_max, clock),
    )
