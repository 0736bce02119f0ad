"""How far and how to read: what a merged reader is told, and what it keeps of each stream and may forget."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sources.stream_commands import Claim
from sources.stream_state import START, Id, StreamState

FIRST_COUNT: Final = 16
HELD_BYTES_MAX: Final = 128 << 20


OnLoss = Callable[[str, str, str], None]


class Connection(Protocol):
    """What the reader needs of `sources.resp.RespConnection`."""

    def call(self, packed: list[bytes], *, reply_bytes_max: int | None = None) -> list[Any]:
        """Send commands, return replies."""
        ...

    def send(self, data: bytes) -> None:
        """Send commands, read nothing."""
        ...

    def receive(self, reply_bytes_max: int | None = None) -> Any:
        """Return the next reply."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


@dataclass(frozen=True, slots=True)
class Reading:
    """How far and how to read.

    `end_ids`, `end_watermark_ms`: where a read-only reader ends. `high_water_ms`: up to where books exist, which no
    stream may be below. `on_loss` records what was accepted as lost: stream, id it stood behind, what happened.
    """

    drain: bool = False
    read_only: bool = False
    accept_gap: bool = False
    end_ids: Mapping[str, Id] | None = None
    end_watermark_ms: int | None = None
    high_water_ms: int = 0
    item_events_max: int = 20_000
    item_bytes_max: int = 16 << 20
    held_bytes_max: int = HELD_BYTES_MAX
    on_loss: OnLoss = lambda _stream, _after, _detail: None

    def end_of(self, stream: str) -> bytes:
        """Return the last id a read may return, as XRANGE takes it."""
        if self.end_ids is not None and stream in self.end_ids:
            return b"%d-%d" % self.end_ids[stream]
        if self.read_only and self.end_watermark_ms is not None:
            return b"(%d-0" % self.end_watermark_ms
        return b"+"

    @property
    def end_ms(self) -> int:
        """Return a watermark above everything a read-only reader reads."""
        ends = [entry_ms + 1 for entry_ms, _ in (self.end_ids or {}).values()]
        return max([self.end_watermark_ms or 0, *ends])


@dataclass(frozen=True, slots=True)
class Asked:
    """A read that was sent: of which stream, by its place, and whether it begins with our last entry."""

    place: int
    inclusive: bool
    count: int


@dataclass(slots=True)
class Cursor:
    """What the reader needs to know of one stream beside its state, and may forget."""

    state: StreamState
    end: bytes
    count: int
    """How many entries the next read asks for."""
    at_top: bool = False
    """The last read found nothing new."""
    claim_at_s: float = 0.0
    last_size_bytes: int = 0
    is_new: bool = False
    """Not in the snapshot the others come from."""
    drain_to: Id = START
    claim: Claim | None = None
    """The last one, while it holds."""
    is_ahead: bool = False
    """The last id was ahead of the server's clock, and that was said."""
    trimmed_at_start: int = 0
    first_ms: int | None = None
