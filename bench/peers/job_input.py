"""The input of the comparison: the engine bench's events as NDJSON files, and the sums that are right for them."""

from pathlib import Path
from typing import Final

import orjson

from bench.peers.answer import Sums

FILE_EVENTS: Final = 250_000
"""Events in a file, which is a micro-batch of Spark."""
MINUTE_CHARS: Final = len("2026-10-31T10:00")
CLOSING: Final = orjson.dumps(
    {
        "specversion": "1.0",
        "id": "closing",
        "source": "/closing",
        "type": "llm.completion",
        "subject": "closing",
        "time": "2027-01-01T00:00:00.000Z",
        "data": {"input_tokens": 0, "model": "closing"},
    }
)
"""Later than all others: it closes every window but its own. For engines whose input does not end."""


def expected(lines: list[bytes]) -> Sums:
    """Return the sums of these events, worked out one by one: the first of each identity counts."""
    seen: set[tuple[str, str, str]] = set()
    facts: set[tuple[str, str, str]] = set()
    tokens = 0
    for line in lines:
        event = orjson.loads(line)
        identity = (event["subject"], event["source"], event["id"])
        if identity in seen:
            continue
        seen.add(identity)
        facts.add((event["subject"], event["data"]["model"], event["time"][:MINUTE_CHARS]))
        tokens += event["data"]["input_tokens"]
    return Sums(len(facts), len(seen), tokens)


def write(lines: list[bytes], directory: Path, *, closing: bool = False) -> None:
    """Write the events in order, in files whose names and times keep that order; `closing` adds the event that ends."""
    directory.mkdir(parents=True)
    chunks = [lines[start : start + FILE_EVENTS] for start in range(0, len(lines), FILE_EVENTS)]
    if closing:
        chunks.append([CLOSING])
    for number, chunk in enumerate(chunks):
        (directory / f"{number:04d}.json").write_bytes(b"".join(line + b"\n" for line in chunk))


def read(directory: Path) -> list[bytes]:
    """Return the events that `write` wrote, in order."""
    return [line for path in sorted(directory.glob("*.json")) for line in path.read_bytes().splitlines()]
