"""What every request may use: settings, clock, stores, who asks, limits."""

from dataclasses import dataclass, field

from config.settings import Settings
from console.answers import to_json
from console.auth import WRONG_PER_S, Authenticator
from console.intake import Intake
from console.limits import READING_BYTES_MAX, Limiter, MakeLimiter, RateLimiter, Room
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
    requests: Limiter
    events: Limiter
    make_limiter: MakeLimiter
    feeds: list[Broadcast] = field(default_factory=list)
    """Live figures of all kinds."""

    def end_streams(self) -> None:
        """Let all go who get live figures: what else is under way is waited for."""
        for feed in (self.live, *self.feeds):
            feed.end()

    def close(self) -> None:
        """Answer what was posted and close all connections."""
        self.intake.close()
        self.pool.close()
        self.pool.engine.dispose()


def open_services(settings: Settings, clock: Clock, make_limiter: MakeLimiter | None = None) -> Services:
    """Connect to the ledger and return the services.

    :param make_limiter: for limits that several processes share.
    :raises Unreachable: the ledger does not answer.
    :raises InvalidRequest: it is not migrated.
    """
    pool = open_pool(settings, clock)
    make = make_limiter or (lambda _name, per_s: RateLimiter(per_s, clock))

    async def live_message() -> bytes:
        return to_json(await read_overview(pool, clock))

    return Services(
        settings=settings,
        clock=clock,
        pool=pool,
        authenticator=Authenticator(pool, clock, make("wrong tokens", WRONG_PER_S)),
        intake=Intake(settings, pool, clock),
        live=Broadcast(live_message, settings.console.streams_max),
        room=Room(max(READING_BYTES_MAX, settings.console.body_bytes_max)),
        requests=make("requests", settings.console.requests_per_s_max),
        events=make("events", settings.console.events_per_s_max),
        make_limiter=make,
    )
