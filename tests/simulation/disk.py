"""A disk that keeps what was synced and may lose or tear the rest, over files in memory."""

from collections.abc import Iterable
from pathlib import Path

from operators.dedupe_disk import Buffer
from tests.operators.dedupe_cases import RememberingDisk
from tests.simulation.fate import Fate


class FaultyDisk(RememberingDisk):
    """One machine's disk for as long as it has power. Each operation is a step; an append may be cut short."""

    def __init__(self, fate: Fate, root: Path) -> None:
        super().__init__(lambda _disk, operation: fate.step(f"disk.{operation}"))
        self._fate = fate
        self._root = root
        for path in _files(root):
            self.adopt(path)

    def append(self, path: Path, data: Buffer) -> None:
        """Append, or die after a part of it."""
        if len(data) > 1 and self._fate.is_dying_at("disk.append-torn"):
            part = self._fate.random.randrange(1, len(data))
            super().append(path, bytes(data)[:part])
            self._fate.die(f"disk.append-torn {path.name}")
        super().append(path, data)

    def crash(self, *, power_lost: bool) -> None:
        """Leave in the directory what the crash leaves: all after a kill, what chance spares after a power cut."""
        if not power_lost:
            return
        survivors = self._surviving_names()
        for path in _files(self._root):
            path.unlink()
        for path, data in survivors.items():
            path.write_bytes(data)

    def _surviving_names(self) -> dict[Path, bytes]:
        chance = self._fate.random
        found: dict[Path, bytes] = {}
        for path in sorted(self.names.keys() | self.durable_names.keys()):
            now, durable = self.names.get(path), self.durable_names.get(path)
            file = now if now is durable or chance.random() < 0.5 else durable
            if file is not None:
                found[path] = self._surviving_bytes(bytes(file.data), file.durable)
        return found

    def _surviving_bytes(self, data: bytes, durable: bytes) -> bytes:
        """Unsynced bytes are there, lost, cut off, or there as zeros; an unsynced cut may have happened or not."""
        chance = self._fate.random
        if data == durable:
            return data
        if len(data) < len(durable):
            return chance.choice((data, durable))
        unsynced = len(data) - len(durable)
        kept = chance.choice((0, unsynced, chance.randrange(unsynced + 1)))
        torn = data[: len(durable) + kept]
        if kept and chance.random() < 0.3:
            torn = torn[: len(durable)] + bytes(kept)
        return torn


def _files(root: Path) -> Iterable[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() and path.name != "lock")
