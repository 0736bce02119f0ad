"""What a rate shard remembers, as bytes for the snapshot: chains, and frames of facts.

Snapshots are plain versioned values. Bytes of a part that did not change are kept and handed out again.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from io import BytesIO
from typing import Any, Final

import orjson
import polars as pl

from operators.rate_chains import Chain, ChainKey

_FAST: Final = 1


def pack(plain: Any) -> bytes:
    """Return plain values as compressed JSON."""
    return zlib.compress(orjson.dumps(plain), _FAST)


def unpack(data: bytes) -> Any:
    """Return what `pack` was given."""
    return orjson.loads(zlib.decompress(data))


def frame_bytes(frame: pl.DataFrame) -> bytes:
    """Return a frame as Arrow IPC bytes."""
    buffer = BytesIO()
    frame.write_ipc(buffer, compression="lz4")
    return buffer.getvalue()


class ChainStore:
    """Chains by the start of their billing period, each period's bytes cached."""

    def __init__(self, state: dict[int, bytes] | None = None) -> None:
        self._bytes: dict[int, bytes] = dict(state or {})
        self._periods: dict[int, dict[ChainKey, Chain]] = {}
        for start_us, data in self._bytes.items():
            chains = self._periods[start_us] = {}
            for *key, plain in unpack(data):
                chains[ChainKey(*key)] = Chain.from_plain(plain)

    def take(self, key: ChainKey, period_end_us: int) -> Chain:
        """Return the chain to be changed, a new one at zero if it was never touched."""
        chains = self._periods.setdefault(key.period_start_us, {})
        self._bytes.pop(key.period_start_us, None)
        chain = chains.get(key)
        if chain is None:
            chain = chains[key] = Chain(period_end_us=period_end_us)
        return chain

    def peek(self, key: ChainKey) -> Chain | None:
        """Return the chain without the right to change it."""
        return self._periods.get(key.period_start_us, {}).get(key)

    def keys_of(self, contracts: AbstractSet[tuple[str, str]]) -> list[ChainKey]:
        """Return the keys of the chains of these (customer, contract) pairs, sorted."""
        if not contracts:
            return []
        every = (key for chains in self._periods.values() for key in chains)
        return sorted(key for key in every if (key.customer, key.contract) in contracts)

    def drop_ended_before(self, time_us: int) -> None:
        """Forget chains of periods that ended before that time."""
        for start_us in list(self._periods):
            chains = self._periods[start_us]
            kept = {key: chain for key, chain in chains.items() if chain.period_end_us >= time_us}
            if len(kept) == len(chains):
                continue
            self._bytes.pop(start_us, None)
            self._periods[start_us] = kept
            if not kept:
                del self._periods[start_us]

    def __len__(self) -> int:
        """Return the number of chains."""
        return sum(map(len, self._periods.values()))

    def snapshot(self) -> dict[int, bytes]:
        """Return the bytes per period."""
        for start_us, chains in self._periods.items():
            if start_us not in self._bytes:
                rows = [[*key, chain.plain()] for key, chain in sorted(chains.items(), key=lambda item: item[0])]
                self._bytes[start_us] = pack(rows)
        return {start_us: self._bytes[start_us] for start_us in self._periods}


def _concatenated(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(frames)


class FrameStore:
    """Frames per booked hour. Neighbours of like size are joined, so few are ever re-encoded or held."""

    def __init__(self, state: dict[int, list[bytes]] | None = None) -> None:
        self._parts: dict[int, list[tuple[pl.DataFrame, bytes | None]]] = {
            hour: [(pl.read_ipc(BytesIO(data)), data) for data in parts] for hour, parts in (state or {}).items()
        }

    def add(
        self, hour: int, frame: pl.DataFrame, join: Callable[[Sequence[pl.DataFrame]], pl.DataFrame] = _concatenated
    ) -> None:
        """Add rows of that booked hour.

        :param join: makes one frame of two.
        """
        parts = self._parts.setdefault(hour, [])
        parts.append((frame, None))
        while len(parts) > 1 and len(parts[-2][0]) <= 2 * len(parts[-1][0]):
            last, _ = parts.pop()
            before, _ = parts.pop()
            parts.append((join([before, last]), None))

    def hours(self) -> Iterator[int]:
        """Return the booked hours that have rows, ascending."""
        return iter(sorted(self._parts))

    def first_hour(self) -> int | None:
        """Return the earliest booked hour that has rows."""
        return min(self._parts, default=None)

    def count(self, hour: int) -> int:
        """Return the number of rows of that hour."""
        return sum(map(len, self.rows(hour)))

    def rows(self, hour: int) -> list[pl.DataFrame]:
        """Return the frames of that hour."""
        return [frame for frame, _ in self._parts.get(hour, ())]

    def take(self, hour: int) -> list[pl.DataFrame]:
        """Remove and return the frames of that hour."""
        return [frame for frame, _ in self._parts.pop(hour, ())]

    def snapshot(self) -> dict[int, list[bytes]]:
        """Return the bytes per booked hour."""
        for parts in self._parts.values():
            for place, (frame, data) in enumerate(parts):
                if data is None:
                    parts[place] = (frame, frame_bytes(frame))
        return {hour: [data for _, data in parts if data is not None] for hour, parts in self._parts.items()}


def joined(frames: Iterable[pl.DataFrame], schema: Any) -> pl.DataFrame:
    """Return the frames as one, an empty one of the schema if there are none."""
    parts = list(frames)
    return pl.concat(parts) if parts else pl.DataFrame(schema=schema)
