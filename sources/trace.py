"""Real traces as load: CSV files with the columns TIMESTAMP, ContextTokens, GeneratedTokens.

A trace names no customers, so a tenant is assigned, and that is said here: XXH3-64 of the row's text, read as a
fraction of 2^64, picks a tenant of the default configuration by Zipf shares. The same row has the same tenant on
every machine. The model follows the file's name, the id is the file's name and the row's number.
"""

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import xxhash

from core.errors import InvalidRequest
from sources.workload_events import DEMO_SUBJECTS, REGIONS, zipf_bounds

COLUMNS: Final = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
MODEL_OF_FILE: Final = {"code": "gpt-4", "conv": "gpt-4-mini"}
"""By the file's name without its ending; another file's name is the model itself."""
TOKENS_MAX: Final = 10**12
_LINE_BYTES_MAX: Final = 256


def trace_workload(paths: Sequence[Path]) -> "TraceWorkload":
    """Return the traces as one workload in the order of their times."""
    return TraceWorkload(paths)


class TraceWorkload:
    """Iterate for records (arrival in Unix milliseconds, subject, event), in order of time.

    An event arrives in the millisecond of its own time. Raises InvalidRequest with file and line for a row that
    cannot be read or is not in order of time.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        stems = Counter(path.stem for path in paths)
        twice = sorted(stem for stem, count in stems.items() if count > 1)
        if not paths or twice:
            what = f"two files are called {twice[0]}" if twice else "no file was given"
            message = f"{what}: name CSV files with different names, since ids are made of the name and the row"
            raise InvalidRequest(message)
        self.paths = tuple(paths)
        self._counts: Counter[str] = Counter()

    @property
    def expected(self) -> dict[str, Any]:
        """Return the counts of the records given out so far, as `Workload.expected` does."""
        names = ("events", "accepted", "requests", "input_tokens", "output_tokens")
        return {name: self._counts[name] for name in names} | {
            "duplicates": 0,
            "conflicts": 0,
            "rejected": 0,
            "rejected_by_reason": {},
        }

    def __iter__(self) -> Iterator[tuple[int, str, bytes]]:
        self._counts = Counter()
        for time_us, subject, payload, tokens in heapq.merge(*map(_rows, self.paths), key=lambda row: row[0]):
            self._counts["events"] += 1
            self._counts["accepted"] += 1
            self._counts["requests"] += 1
            self._counts["input_tokens"] += tokens[0]
            self._counts["output_tokens"] += tokens[1]
            yield time_us // 1000, subject, payload


def _rows(path: Path) -> Iterator[tuple[int, str, bytes, tuple[int, int]]]:
    """Yield time (Unix microseconds), subject, event and tokens of each row."""
    model = MODEL_OF_FILE.get(path.stem, path.stem)
    bounds = zipf_bounds(len(DEMO_SUBJECTS))
    previous_us = 0
    try:
        with path.open("rb") as file:
            _check_header(path, file.readline(_LINE_BYTES_MAX))
            for number, line in enumerate(iter(lambda: file.readline(_LINE_BYTES_MAX), b""), start=1):
                row = line.rstrip(b"\r\n")
                if not row:
                    continue
                time_us, tokens = _parse(path, number, row)
                if time_us < previous_us:
                    raise InvalidRequest(_bad(path, number, "is earlier than the row before", "sort it by TIMESTAMP"))
                previous_us = time_us
                digest = xxhash.xxh3_64_intdigest(row)
                subject = DEMO_SUBJECTS[int(np.searchsorted(bounds, digest / 2**64, side="right"))]
                region = REGIONS[digest % len(REGIONS)]
                yield time_us, subject, _event(path.stem, number, subject, region, model, time_us, tokens), tokens
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror}; check the path"
        raise InvalidRequest(message) from error


def _check_header(path: Path, line: bytes) -> None:
    if tuple(line.decode("utf-8-sig", "replace").strip().split(",")) != COLUMNS:
        message = f"{path}:1: the columns must be {','.join(COLUMNS)}"
        raise InvalidRequest(message)


def _bad(path: Path, number: int, what: str, hint: str) -> str:
    return f"{path}:{number + 1}: the row {what}; {hint}"


def _parse(path: Path, number: int, row: bytes) -> tuple[int, tuple[int, int]]:
    """Return the time in whole microseconds (further digits are cut off) and both token counts."""
    try:
        stamp, context, generated = row.decode("ascii").split(",")
        seconds, _, fraction = stamp.partition(".")
        moment = datetime.strptime(seconds, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
        if fraction and not (fraction.isascii() and fraction.isdecimal()):
            raise ValueError(fraction)
        time_us = int(moment.timestamp()) * 1_000_000 + int((fraction + "000000")[:6])
        tokens = int(context), int(generated)
        if not all(0 <= count <= TOKENS_MAX for count in tokens):
            raise ValueError(row)
    except ValueError as error:
        hint = "expected a time such as 2023-11-16 18:17:03.9799600 and two counts"
        raise InvalidRequest(_bad(path, number, f"cannot be read: {row[:80]!r}", hint)) from error
    return time_us, tokens


def _event(
    stem: str, number: int, subject: str, region: str, model: str, time_us: int, tokens: tuple[int, int]
) -> bytes:
    time = datetime.fromtimestamp(time_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return (
        f'{{"specversion":"1.0","id":"{stem}-{number:08d}","source":"/traces/{stem}","type":"llm.completion",'
        f'"subject":"{subject}","time":"{time}.{time_us % 1_000_000:06d}Z","data":{{"model":"{model}",'
        f'"region":"{region}","input_tokens":{tokens[0]},"output_tokens":{tokens[1]}}}}}'
    ).encode()
