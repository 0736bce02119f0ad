"""Gives events the arrival times they have behind a producer that collects them: that of the last one of each entry."""

from collections.abc import Iterable, Iterator

from sources.sending import Record, stream_of


def collected(records: Iterable[Record], streams: tuple[str, ...], batch: int) -> Iterator[Record]:
    """Yield the records stream by stream in entries of `batch`, each with one arrival time; the last ones are smaller.

    Without this, events with arrival times of their own never share an entry, however large the batch.
    """
    waiting: dict[str, list[Record]] = {name: [] for name in streams}
    arrival_ms: int | None = None
    for record in records:
        arrival_ms = record[0]
        entry = waiting[stream_of(record[1], streams)]
        entry.append(record)
        if len(entry) == batch:
            yield from ((arrival_ms, subject, event) for _, subject, event in entry)
            entry.clear()
    for entry in waiting.values():
        yield from ((arrival_ms, subject, event) for _, subject, event in entry)
