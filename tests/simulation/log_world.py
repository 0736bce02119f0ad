"""The id log on a faulty disk, against a dictionary: epochs, crashes at every operation, power cuts, torn tails."""

from pathlib import Path
from typing import Any

from operators.dedupe_log import IdLog
from tests.operators.dedupe_cases import Key, Record, append, find, key
from tests.simulation.disk import FaultyDisk
from tests.simulation.fate import Died, Fate, require

IDS = 40
DAY_MINUTES = 1440


class LogWorld:
    """One shard's log, the engine's snapshots of it, and what it must hold at each."""

    def __init__(self, fate: Fate, directory: Path) -> None:
        self._fate = fate
        self._root = directory
        self._seal_records = fate.random.choice((3, 6, 25, 1000))
        self._minute = 100 * DAY_MINUTES
        self._horizon = 0
        self._state: dict[str, Any] | None = None
        self._durable: dict[Key, Record] = {}
        self._log: IdLog | None = None
        self._disk = FaultyDisk(fate, directory)

    def run(self) -> None:
        """Run some epochs with crashes, then check everything once more."""
        for _ in range(self._fate.random.randrange(4, 16)):
            try:
                with self._fate.process("epoch"):
                    self._epoch()
            except Died:
                self._crash()
        self._fate.calm()
        for _ in range(2):
            self._epoch()
        self._crash()
        self._check(self._opened(), self._durable)
        self.close()

    def _opened(self) -> IdLog:
        if self._log is None:
            directory = self._root / "shard"
            self._log = IdLog.open(
                directory, self._state, disk=self._disk, seal_records=self._seal_records, background=False
            )
            self._check(self._log, self._durable)
        return self._log

    def _epoch(self) -> None:
        """Append as the steps do, snapshot, and commit the epoch; each part may be the last."""
        chance, log = self._fate.random, self._opened()
        held = dict(self._durable)
        for _ in range(chance.randrange(0, 4)):
            log.committed()
            self._minute += chance.choice((0, 1, 700, DAY_MINUTES))
            chosen = [key(chance.randrange(IDS)) for _ in range(chance.randrange(1, 8))]
            records = [(name, chance.randrange(2**64), self._minute) for name in chosen]
            append(log, records)
            held.update({name: (content, minute) for name, content, minute in records})
            if chance.random() < 0.3:
                self._check(log, held)
        horizon = max(self._horizon, self._minute - chance.choice((2, 40)) * DAY_MINUTES)
        log.expire(horizon)
        state = log.snapshot()
        self._fate.step("log.commit")
        self._state, self._durable, self._horizon = state, held, horizon
        self._fate.step("log.after-commit")

    def _check(self, log: IdLog, expected: dict[Key, Record]) -> None:
        """Compare what the log says from the horizon on with what was appended."""
        names = [key(number) for number in range(IDS)]
        reached = {name: record for name, record in expected.items() if record[1] >= self._horizon}
        found = find(log, names, self._horizon)
        require(found == reached, f"the log holds {len(found)} ids, {len(reached)} were appended, or others")

    def _crash(self) -> None:
        self.close()
        self._disk.crash(power_lost=self._fate.random.random() < 0.5)
        self._disk = FaultyDisk(self._fate, self._root)

    def close(self) -> None:
        """Give the log up."""
        if self._log is not None:
            self._log.close()
            self._log = None
