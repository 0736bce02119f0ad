"""Small real sources and sinks for tests of the wiring: fixed partitions, as in production."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from bytewax._bytewax import cluster_main
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.recovery import RecoveryConfig


class _ListPartition(StatefulSourcePartition[Any, int]):
    def __init__(self, batches: list[list[Any]], start: int) -> None:
        self._batches = batches
        self._next = start

    def next_batch(self) -> list[Any]:
        if self._next >= len(self._batches):
            raise StopIteration
        batch = self._batches[self._next]
        self._next += 1
        return batch

    def snapshot(self) -> int:
        return self._next


class ListSource(FixedPartitionedSource[Any, int]):
    """Emits the given batches, one `next_batch` call each, in one partition per list."""

    def __init__(self, partitions: dict[str, list[list[Any]]]) -> None:
        self._partitions = partitions

    def list_parts(self) -> list[str]:
        return sorted(self._partitions)

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _ListPartition:
        return _ListPartition(self._partitions[for_part], resume_state or 0)


class _CollectPartition(StatefulSinkPartition[Any, None]):
    def __init__(self, take: Callable[[Any], None]) -> None:
        self._take = take

    def write_batch(self, values: list[Any]) -> None:
        for value in values:
            self._take(value)

    def snapshot(self) -> None:
        return None


class CollectSink(FixedPartitionedSink[Any, None]):
    """Appends what arrives to a list."""

    def __init__(self, out: list[Any], parts: int = 2) -> None:
        self._out = out
        self._parts = parts

    def list_parts(self) -> list[str]:
        return [f"part-{index}" for index in range(self._parts)]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _CollectPartition:
        return _CollectPartition(self._out.append)


def run(flow: Dataflow, workers: int = 1, epoch_ms: int = 10, recovery: RecoveryConfig | None = None) -> None:
    """Run a flow in this process with that many worker threads."""
    cluster_main(
        flow,
        [],
        0,
        epoch_interval=timedelta(milliseconds=epoch_ms),
        recovery_config=recovery,
        worker_count_per_proc=workers,
    )
