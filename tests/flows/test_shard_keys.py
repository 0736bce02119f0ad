"""The pinned keys against the engine itself: which worker thread gets which key."""

import threading
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic

from core.shard_keys import CUSTOMER_KEYS, ID_KEYS, TENANT_KEYS
from tests.flows.engine import CollectSink, ListSource, run


class _WhichThread(StatefulBatchLogic[str, tuple[str, int], None]):
    def on_batch(self, values: list[str]) -> tuple[list[tuple[str, int]], bool]:
        return [(value, threading.get_ident()) for value in values], False

    def snapshot(self) -> None:
        return None


def _threads_by_key(keys: tuple[str, ...], workers: int) -> dict[str, int]:
    out: list[Any] = []
    flow = Dataflow("keys")
    items = op.input("in", flow, ListSource({"a": [[(key, key) for key in keys]]}))
    where = op.stateful_batch("where", items, lambda _: _WhichThread())
    op.output("out", where, CollectSink(out))
    run(flow, workers)
    return dict(out)


@pytest.mark.parametrize("workers", [2, 4, 8])
@pytest.mark.parametrize("keys", [ID_KEYS, TENANT_KEYS, CUSTOMER_KEYS], ids=["id", "tenant", "customer"])
def test_keys_spread_evenly_over_workers(keys: tuple[str, ...], workers: int) -> None:
    threads = _threads_by_key(keys, workers)
    loads = [list(threads.values()).count(thread) for thread in set(threads.values())]
    assert loads == [len(keys) // workers] * workers


@pytest.mark.parametrize("workers", [2, 4])
def test_the_default_four_shards_spread_evenly_too(workers: int) -> None:
    threads = _threads_by_key(ID_KEYS[:4], workers)
    loads = [list(threads.values()).count(thread) for thread in set(threads.values())]
    assert loads == [4 // workers] * workers
