import threading
from collections.abc import Iterable
from typing import Any

from config.loader import load
from config.revision import History, Revision
from config.settings import Settings
from flows import metering, steps
from sources.redis_streams import RedisStreamSource
from tests.flows.harness import CONFIG

WITH_STATE = {
    "metering.read",
    "metering.dedupe",
    "metering.book",
    "metering.rate",
    "metering.outbox",
    "metering.write_usage_events",
    "metering.write_usage_rejects",
    "metering.write_intake_counts",
    "metering.write_usage_facts",
    "metering.write_rated_usage",
    "metering.write_exceptions",
    "metering.write_financial_documents",
}


def test_step_ids_are_pinned_because_state_is_loaded_by_them() -> None:
    assert steps.FLOW == "metering"
    assert (
        steps.READ,
        steps.DECODE,
        steps.DEDUPE,
        steps.TO_TENANT,
        steps.BOOK,
        steps.TO_CUSTOMER,
        steps.RATE,
        steps.DOCUMENT,
        steps.OUTBOX,
    ) == ("read", "decode", "dedupe", "to_tenant", "book", "to_customer", "rate", "document", "outbox")


def _with_state(operators: Iterable[Any]) -> set[str]:
    """Return the ids of the engine's own operators that keep something in the recovery partitions."""
    found: set[str] = set()
    for operator in operators:
        if operator.core and type(operator).__name__ in ("input", "stateful_batch", "output"):
            found.add(operator.step_id)
        found |= _with_state(operator.substeps)
    return found


def test_the_flow_as_it_is_wired_keeps_its_state_under_these_ids_alone() -> None:
    """A wrapper around an operator changes its full id as surely as a new name does."""
    settings, stop = Settings(), threading.Event()
    table_sink, outbox = metering.production_sinks(settings, stop)
    parts = metering.Parts(RedisStreamSource(settings, stop=stop), table_sink, outbox)
    flow = metering.build(settings, History([Revision(load(CONFIG))]), parts)
    assert _with_state(flow.substeps) == WITH_STATE
