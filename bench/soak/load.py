"""Steady input of a soak run, and the exact totals of what was sent: `python -m bench.soak.load`, a process of its own.

Every event counts in two meters (requests, tokens) under one model, so `series` series are half as many pairs of
tenant and model. Tenants differ in size by Zipf's law; models do not. 1 % of the events are sent again, unchanged, up
to several minutes later; 1 % are late by 2 to 120 minutes.
"""

import argparse
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Final

import numpy as np
import numpy.typing as npt

from config.settings import RedisSettings
from core.errors import InvalidRequest
from sources.producer import Producer, Record
from sources.workload_events import mixed, zipf_bounds

MODELS: Final = 50
SERIES_PER_TENANT: Final = 2 * MODELS
DUPLICATE_SHARE: Final = 0.01
LATE_SHARE: Final = 0.01
POOL_EVENTS: Final = 50_000
TICK_S: Final = 0.05
PART_EVENTS_MAX: Final = 20_000
US_PER_MINUTE: Final = 60_000_000

_EVENT: Final = (
    '{"specversion":"1.0","id":"%016x","source":"/gateway","type":"llm.completion","subject":"%s","time":"%sZ",'
    '"data":{"model":"model-%02d","tokens":%d,"region":"eu"}}'
)


def tenant_names(series: int) -> list[str]:
    """Return the subjects of a run with that many series.

    :raises InvalidRequest: the number is no multiple of those of a tenant.
    """
    if series < SERIES_PER_TENANT or series % SERIES_PER_TENANT:
        message = f"series must be a multiple of {SERIES_PER_TENANT}, not {series}"
        raise InvalidRequest(message)
    return [f"tenant-{number:05d}" for number in range(series // SERIES_PER_TENANT)]


class Load:
    """Makes events and adds up what they must come to. The totals are arrays [tenant, model]."""

    def __init__(self, seed: int, series: int) -> None:
        self._random = np.random.default_rng(seed)
        self._seed = seed
        self.names = tenant_names(series)
        self._bounds = zipf_bounds(len(self.names))
        self._number = 0
        self._pool: list[tuple[str, bytes]] = []
        self.events: npt.NDArray[np.int64] = np.zeros((len(self.names), MODELS), dtype=np.int64)
        self.tokens: npt.NDArray[np.int64] = np.zeros_like(self.events)
        self.by_minute: dict[int, list[int]] = {}
        """Events and tokens by usage minute (Unix minutes)."""
        self.duplicates = 0
        self.late = 0

    def make(self, count: int, now_us: int) -> list[Record]:
        """Return that many records which are sent at that time, new events and copies of earlier ones."""
        random = self._random
        copies = int(random.binomial(count, DUPLICATE_SHARE)) if self._pool else 0
        fresh = count - copies
        tenants = np.searchsorted(self._bounds, random.random(fresh), side="right").clip(max=len(self.names) - 1)
        models = random.integers(0, MODELS, fresh)
        tokens = random.lognormal(6.0, 1.0, fresh).astype(np.int64).clip(1, 100_000)
        late = random.random(fresh) < LATE_SHARE
        age_us = np.where(late, random.integers(2 * US_PER_MINUTE, 120 * US_PER_MINUTE, fresh), 0)
        times_us = now_us - random.integers(0, 2_000_000, fresh) - age_us
        ids = mixed(np.arange(self._number, self._number + fresh, dtype=np.uint64), self._seed)
        self._number += fresh
        self._count(tenants, models, tokens, times_us)
        self.late += int(late.sum())
        names = [self.names[tenant] for tenant in tenants.tolist()]
        texts = np.datetime_as_string(times_us.astype("datetime64[us]")).tolist()
        rows = zip(ids.tolist(), names, texts, models.tolist(), tokens.tolist(), strict=True)
        sent = [(row[1], (_EVENT % row).encode()) for row in rows]
        again = [self._pool[place] for place in random.integers(0, max(1, len(self._pool)), copies).tolist()]
        self.duplicates += copies
        self._remember(sent)
        return [(None, subject, event) for subject, event in (*sent, *again)]

    def _count(
        self, tenants: npt.NDArray[np.int64], models: npt.NDArray[np.int64], *rest: npt.NDArray[np.int64]
    ) -> None:
        tokens, times_us = rest
        np.add.at(self.events, (tenants, models), 1)
        np.add.at(self.tokens, (tenants, models), tokens)
        minutes, which = np.unique(times_us // US_PER_MINUTE, return_inverse=True)
        events = np.bincount(which, minlength=len(minutes))
        sums = np.bincount(which, weights=tokens.astype(np.float64), minlength=len(minutes)).astype(np.int64)
        for minute, count, total in zip(minutes.tolist(), events.tolist(), sums.tolist(), strict=True):
            known = self.by_minute.setdefault(minute, [0, 0])
            known[0] += count
            known[1] += total

    def _remember(self, sent: list[tuple[str, bytes]]) -> None:
        """Put one of a hundred events at a random place of the pool of those that may come again."""
        for chosen in sent[::100]:
            if len(self._pool) < POOL_EVENTS:
                self._pool.append(chosen)
            else:
                self._pool[int(self._random.integers(0, POOL_EVENTS))] = chosen

    def store(self, path: Path, seconds: float) -> None:
        """Write the totals to a file, whole or not at all."""
        minutes = np.array([(minute, *sums) for minute, sums in sorted(self.by_minute.items())], dtype=np.int64)
        temporary = path.with_suffix(".tmp.npz")
        np.savez(
            temporary,
            names=np.array(self.names),
            events=self.events,
            tokens=self.tokens,
            minutes=minutes,
            counts=np.array([self._number, self.duplicates, self.late], dtype=np.int64),
            seconds=np.array([seconds]),
        )
        temporary.replace(path)


def run(redis: RedisSettings, load: Load, rate: float, seconds: float, path: Path) -> None:
    """Send at a steady rate until the time is over or SIGTERM comes, then write the totals.

    What could not be sent in time is sent as fast as it goes: the rate is that of the whole run.
    """
    ended: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        ended.append(number)

    signal.signal(signal.SIGTERM, end)
    began_s, sent = time.monotonic(), 0
    with Producer(redis) as producer:
        while not ended and (spent_s := time.monotonic() - began_s) < seconds:
            due = min(int(spent_s * rate) - sent, PART_EVENTS_MAX)
            if due > 0:
                producer.send(load.make(due, time.time_ns() // 1000))
                sent += due
            if due < PART_EVENTS_MAX:
                time.sleep(TICK_S)
    load.store(path, time.monotonic() - began_s)


def main() -> None:
    """Send as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--rate", type=float, required=True, help="events a second")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--series", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--totals", type=Path, required=True)
    options = parser.parse_args()
    load = Load(options.seed, options.series)
    run(RedisSettings(url=options.url), load, options.rate, options.seconds, options.totals)


if __name__ == "__main__":
    main()
