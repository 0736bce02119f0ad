"""Puts a pure logic object behind the engine's stateful operator.

The engine does not tell a logic its key, so every item says which shard it is for, and the logic is built by
the first one; on resume the shard number is in the state.

Guarantee: state and emitted items are exactly-once within the dataflow. If the process dies anywhere here, the
epoch is replayed from the last snapshot.
Unit of parallelism: one shard.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Any, Protocol, runtime_checkable

from bytewax.operators import StatefulBatchLogic

from core import faults
from core.errors import StateMismatch
from core.metrics import STEP_SECONDS

_VERSION = 1

Shard = int
Routed = tuple[str, tuple[Shard, Any]]
"""An item on a keyed hop: (key, (shard number, item))."""


class Logic(Protocol):
    """What a keyed step computes, free of the engine."""

    def process(self, items: list[Any]) -> list[Any]:
        """Take the items of one activation and return what to emit, the marker last."""
        ...

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain versioned values that no later call changes."""
        ...


@runtime_checkable
class Finishing(Protocol):
    """A logic that has something left to hand on when no more input comes."""

    def finish(self) -> list[Any]:
        """Return what is left to emit, the marker last; called once, before the last snapshot."""
        ...


Build = Callable[[Shard, dict[str, Any] | None], Logic]


class KeyedStep(StatefulBatchLogic[tuple[Shard, Any], Any, dict[str, Any]]):
    """Adapter from `Logic` to the engine; never discards, since the key space is a few shards."""

    def __init__(self, step: str, build: Build, state: dict[str, Any] | None) -> None:
        self._build = build
        self._seconds = STEP_SECONDS.labels(step)
        self._shard: Shard | None = None
        self._logic: Logic | None = None
        if state is not None:
            if state.get("version") != _VERSION:
                message = (
                    f"step {step}: state version {state.get('version')} is not {_VERSION}: "
                    "run the release that wrote it, or make the state again with `meterbridge rebuild`"
                )
                raise StateMismatch(message)
            self._shard = state["shard"]
            self._logic = build(state["shard"], state["logic"])

    def on_batch(self, values: list[tuple[Shard, Any]]) -> tuple[list[Any], bool]:
        """Run the logic over all items of this activation."""
        started_s = perf_counter()
        if self._logic is None:
            self._shard = values[0][0]
            self._logic = self._build(self._shard, None)
        emitted = self._logic.process([item for _, item in values])
        self._seconds.observe(perf_counter() - started_s)
        return emitted, StatefulBatchLogic.RETAIN

    def on_eof(self) -> tuple[list[Any], bool]:
        """Hand on what the logic has held back for the next epoch: there is none."""
        left: list[Any] = self._logic.finish() if isinstance(self._logic, Finishing) else []
        return left, StatefulBatchLogic.RETAIN

    def snapshot(self) -> dict[str, Any]:
        """Wrap the logic's state with the shard number."""
        faults.reach("step.snapshot")
        if self._logic is None:
            return {"version": _VERSION, "shard": self._shard, "logic": None}
        return {"version": _VERSION, "shard": self._shard, "logic": self._logic.snapshot()}
