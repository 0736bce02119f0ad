"""A marker never overtakes the data it speaks for, over three keyed hops and two workers."""

import random
import time
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.operators import KeyedStream

from core.shard_keys import CUSTOMER_KEYS, ID_KEYS, TENANT_KEYS
from flows.keyed import KeyedStep
from operators.items import Marker
from tests.flows.engine import CollectSink, ListSource, run

SHARDS = 4


class _Relay:
    """Passes data on, forwards the minimum of its senders' markers, and notes data below a sender's marker."""

    def __init__(self, name: str, senders: list[str], violations: list[str]) -> None:
        self._name = name
        self._last = dict.fromkeys(senders, 0)
        self._violations = violations
        self._random = random.Random(name)

    def process(self, items: list[Any]) -> list[Any]:
        time.sleep(self._random.random() / 2000)
        out: list[Any] = []
        before = min(self._last.values())
        for item in items:
            if isinstance(item, Marker):
                self._last[item.sender] = max(self._last[item.sender], item.watermark_ms)
            else:
                sender, value = item
                if value < self._last[sender]:
                    self._violations.append(f"{self._name}: {value} from {sender} after {self._last[sender]}")
                out.append((self._name, value))
        if min(self._last.values()) > before:
            out.append(Marker(self._name, min(self._last.values())))
        return out

    def snapshot(self) -> dict[str, Any]:
        return {"last": dict(self._last)}


def _hop(
    name: str, up: KeyedStream[Any], keys: tuple[str, ...], senders: list[str], violations: list[str]
) -> KeyedStream[Any]:
    def build(shard: int, _state: dict[str, Any] | None) -> _Relay:
        return _Relay(keys[shard], senders, violations)

    return op.stateful_batch(name, up, lambda state: KeyedStep(name, build, state))


def _spread(keys: tuple[str, ...], keyed: bool = True) -> Any:
    def route(items: list[Any]) -> list[Any]:
        out: list[Any] = []
        for entry in items:
            item = entry[1] if keyed else entry
            shards = range(SHARDS) if isinstance(item, Marker) else [item[1] % SHARDS]
            out.extend((keys[shard], (shard, item)) for shard in shards)
        return out

    return route


@pytest.mark.parametrize("workers", [1, 2])
def test_no_data_arrives_below_its_senders_marker(workers: int) -> None:
    readers = ["reader-00", "reader-01"]
    chance = random.Random(7)
    partitions: dict[str, list[list[Any]]] = {}
    for reader in readers:
        batches, now = [], 0
        for _ in range(150):
            data: list[Any] = [(reader, now + chance.randrange(50)) for _ in range(30)]
            now += 40
            batches.append([*data, Marker(reader, now)] if chance.random() < 0.7 else data)
            # Data below the marker of its own batch would be the source's fault, not the engine's.
            now = max([now, *(value for _, value in data)])
            batches[-1] = [item if not isinstance(item, Marker) else Marker(reader, now) for item in batches[-1]]
        partitions[reader] = batches
    violations: list[str] = []
    out: list[Any] = []
    flow = Dataflow("order")
    up = op.flat_map_batch("r0", op.input("in", flow, ListSource(partitions)), _spread(ID_KEYS, keyed=False))
    one = _hop("one", up, ID_KEYS, readers, violations)
    two = _hop(
        "two",
        op.flat_map_batch("r1", one, _spread(TENANT_KEYS)),
        TENANT_KEYS,
        list(ID_KEYS[:SHARDS]),
        violations,
    )
    three = _hop(
        "three",
        op.flat_map_batch("r2", two, _spread(CUSTOMER_KEYS)),
        CUSTOMER_KEYS,
        list(TENANT_KEYS[:SHARDS]),
        violations,
    )
    op.output("out", three, CollectSink(out))
    run(flow, workers)
    assert violations == []
    assert sum(not isinstance(item, Marker) for item in out) == 2 * 150 * 30
    assert any(isinstance(item, Marker) for item in out)
