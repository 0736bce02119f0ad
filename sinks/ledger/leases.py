"""One poster per entity: a lease with a fencing token, checked inside every transaction of its holder.

The token grows with each new holder. A poster that was stopped for longer than its lease finds a newer token and
stops; what it may have sent in between is SUBMITTED, which its successor treats as unknown.

Leases end by the wall clock, since hosts share no other. Where that was set back, the lease of a dead holder would last
an hour too long: who wants it watches it (`LeaseWatch`) and takes it once it has not been renewed for as long as a
lease lasts by its own monotonic clock.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, insert, select, update
from sqlalchemy.exc import IntegrityError

from core.clock import Clock
from core.errors import RetryableError
from sinks.ledger import tables
from sinks.ledger.database import write
from sinks.ledger.times import to_ms

_TABLE = tables.leases

TTL = timedelta(seconds=60)
"""A holder renews before each batch. A call that takes longer (`timeout_s` allows it) may be overtaken by another
poster, which finds its postings SUBMITTED and looks them up, and after the settle window, before it sends any."""


class LeaseLost(RetryableError):
    """Another poster holds the lease now; nothing of this transaction was done."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A held lease: its name, its holder and the fencing token."""

    name: str
    holder: str
    fence: int


class LeaseWatch:
    """For how long the leases of others have stood unchanged, by a monotonic clock. One per process, in memory."""

    def __init__(self, clock: Clock, ttl: timedelta = TTL) -> None:
        self._clock, self._ttl_s = clock, ttl.total_seconds()
        self._seen: dict[str, tuple[tuple[int, int], float]] = {}

    def is_dead(self, name: str, fence: int, expires_at_ms: int) -> bool:
        """Note what a lease says now; tell whether its holder has been silent for longer than a lease lasts."""
        now_s, says = self._clock.monotonic_s(), (fence, expires_at_ms)
        known = self._seen.get(name)
        if known is None or known[0] != says:
            self._seen[name] = (says, now_s)
            return False
        return now_s - known[1] > self._ttl_s


def acquire(
    engine: Engine, name: str, holder: str, now: datetime, ttl: timedelta = TTL, watch: LeaseWatch | None = None
) -> Lease | None:
    """Take or renew a lease; return None while another holder's has not expired and, if watched, is renewed."""
    expires = to_ms(now + ttl)
    try:
        with write(engine) as connection:
            row = connection.execute(select(_TABLE).where(_TABLE.c.name == name).with_for_update()).first()
            if row is None:
                connection.execute(insert(_TABLE).values(name=name, holder=holder, fence=1, expires_at_ms=expires))
                return Lease(name, holder, 1)
            is_held = row.holder != holder and row.expires_at_ms > to_ms(now)
            if is_held and not (watch and watch.is_dead(name, row.fence, row.expires_at_ms)):
                return None
            fence = row.fence if row.holder == holder else row.fence + 1
            change = update(_TABLE).where(_TABLE.c.name == name)
            connection.execute(change.values(holder=holder, fence=fence, expires_at_ms=expires))
            return Lease(name, holder, fence)
    except IntegrityError:  # two made the row at once
        return None


def renew(engine: Engine, lease: Lease, now: datetime, ttl: timedelta = TTL) -> None:
    """Extend a held lease.

    :raises LeaseLost: a newer holder took it.
    """
    with write(engine) as connection:
        check(connection, lease)
        change = update(_TABLE).where(_TABLE.c.name == lease.name)
        connection.execute(change.values(expires_at_ms=to_ms(now + ttl)))


def release(engine: Engine, lease: Lease) -> None:
    """Give a lease up, if it is still held."""
    with write(engine) as connection:
        change = update(_TABLE).where(_TABLE.c.name == lease.name, _TABLE.c.fence == lease.fence)
        connection.execute(change.values(expires_at_ms=0))


def check(connection: Connection, lease: Lease) -> None:
    """Make sure the lease is still ours, and keep it so until this transaction ends.

    :raises LeaseLost: a newer holder took it.
    """
    row = connection.execute(select(_TABLE.c.fence).where(_TABLE.c.name == lease.name).with_for_update()).first()
    if row is None or row.fence != lease.fence:
        message = f"the posting lease {lease.name!r} was taken by another poster: this one stops posting for it"
        raise LeaseLost(message)
