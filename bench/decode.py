"""Speed of decode: microseconds per event for clean and poisoned batches, and where the time goes.

    python -m bench.decode [--events 20000] [--rounds 7]

Prints one line per case. `--profile` adds the functions that take most of the time of the clean case.
"""

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import orjson

from bench.figures import Figure, figure
from bench.machine import COMPILED_DIR
from config.meters import Meter
from config.revision import Configuration, History, Revision
from operators.decode import Decoder
from operators.decode_scan import Compiled
from operators.items import EVENT, EVENTS, RawBatch

STREAMS = ("usage:0", "usage:1", "usage:2", "usage:3")
ENTRY_MS = 1_793_440_800_000

METERS = (
    Meter(
        id="input_tokens",
        event_type="llm.completion",
        aggregation="sum",
        value="$.input_tokens",
        group_by={"model": "$.model"},
    ),
    Meter(
        id="cost",
        event_type="llm.completion",
        aggregation="sum",
        value="$.cost",
        group_by={"model": "$.model", "region": "$.region"},
    ),
    Meter(id="requests", event_type="llm.completion", aggregation="count"),
)


def events(count: int, poison_every: int = 0) -> list[bytes]:
    """Return CloudEvents of about 210 bytes; every n-th one is poisoned in one of four ways."""
    made: list[bytes] = []
    for number in range(count):
        event: dict[str, object] = {
            "specversion": "1.0",
            "id": f"evt-{number:012d}",
            "source": "/api/eu-1",
            "type": "llm.completion",
            "subject": f"tenant-{number % 1000}",
            "time": f"2026-10-31T09:{number % 60:02d}:{number % 59:02d}.{number % 1000:03d}Z",
            "data": {
                "input_tokens": number % 5000,
                "model": f"gpt-{number % 7}",
                "region": "eu",
                "cost": f"0.{number % 9999:04d}",
            },
        }
        if poison_every and number % poison_every == 0:
            made.append(_poisoned(event, number // poison_every))
        else:
            made.append(orjson.dumps(event))
    return made


def _poisoned(event: dict[str, object], way: int) -> bytes:
    if way % 4 == 0:
        return orjson.dumps(event)[:-1]
    if way % 4 == 1:
        return orjson.dumps(event | {"subject": 5})
    if way % 4 == 2:
        return orjson.dumps(event | {"time": "yesterday"})
    return orjson.dumps(event | {"data": [1]})


def single_entries(lines: list[bytes]) -> RawBatch:
    """Return a batch with one event per entry."""
    return _batch(lines, EVENT)


def grouped_entries(lines: list[bytes], per_entry: int = 200) -> RawBatch:
    """Return a batch with many events per entry."""
    groups = range(0, len(lines), per_entry)
    return _batch([b"\n".join(lines[start : start + per_entry]) for start in groups], EVENTS)


def _batch(payloads: list[bytes], kind: int) -> RawBatch:
    count = len(payloads)
    return RawBatch(
        stream=(np.arange(count) % len(STREAMS)).astype(np.uint16),
        entry_ms=np.full(count, ENTRY_MS, dtype=np.int64),
        entry_seq=np.arange(count, dtype=np.int64),
        kinds=np.full(count, kind, dtype=np.uint8),
        payloads=payloads,
        details={},
    )


def best_us(run: Callable[[], object], count: int, rounds: int) -> float:
    """Return the best time of a few rounds, in microseconds per event."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times) / count * 1e6


def measure(*, quick: bool) -> list[Figure]:
    """Return events a second of clean and poisoned batches, through columns and line by line."""
    count, rounds = (20_000, 3) if quick else (20_000, 15)
    history = History([Revision(Configuration(meters=METERS))])
    decoders = {
        "": Decoder(history, STREAMS, 4, path="scan", compiled=Compiled(COMPILED_DIR)),
        ", without compiled code": Decoder(history, STREAMS, 4, path="fast"),
    }
    slow = Decoder(history, STREAMS, 4, path="slow")
    clean = events(count)
    few = single_entries(clean[:2000])
    return [
        figure(
            "decode",
            f"{name}, items of {count} events{how}",
            1e6 / best_us(partial(decoder.decode, batch), count, rounds),
            "events/s",
        )
        for how, decoder in decoders.items()
        for name, batch in _cases(clean, count).items()
    ] + [
        figure("decode", "reference path, line by line", 1e6 / best_us(partial(slow.decode, few), 2000, 2), "events/s")
    ]


def _cases(clean: list[bytes], count: int) -> dict[str, RawBatch]:
    return {
        "clean, one event per entry": single_entries(clean),
        "clean, 200 events per entry": grouped_entries(clean),
        "5 % poison, one event per entry": single_entries(events(count, poison_every=20)),
    }


def main() -> None:
    """Run the cases and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    history = History([Revision(Configuration(meters=METERS))])
    decoder = Decoder(history, STREAMS, 4, path="scan", compiled=Compiled(COMPILED_DIR))
    clean = events(options.events)
    cases = _cases(clean, options.events)
    for name, batch in cases.items():
        took = best_us(partial(decoder.decode, batch), options.events, options.rounds)
        print(f"{name:34s} {took:6.3f} us/event")
    slow = Decoder(history, STREAMS, 4, path="slow")
    few = single_entries(clean[:2000])
    print(f"{'reference, line by line':34s} {best_us(lambda: slow.decode(few), 2000, 2):6.3f} us/event")
    if options.profile:
        profile = cProfile.Profile()
        profile.runcall(decoder.decode, cases["clean, one event per entry"])
        pstats.Stats(profile).sort_stats("tottime").print_stats(14)


if __name__ == "__main__":
    main()
