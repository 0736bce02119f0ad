"""One flow at a time writes to a ledger: the one that was started last."""

import os
import threading

import pytest
from sqlalchemy import Engine

from core.errors import LockHeld
from sinks.ledger import flow_fence
from sinks.ledger.database import write


def _take(engine: Engine) -> int:
    with write(engine) as connection:
        return flow_fence.take(connection)


def test_only_the_flow_that_was_started_last_may_write(engine: Engine) -> None:
    first = _take(engine)
    with write(engine) as connection:
        flow_fence.check(connection, first)
    second = _take(engine)
    assert second == first + 1
    with (
        pytest.raises(LockHeld, match=rf"another metering flow \(process {os.getpid()} on "),
        write(engine) as connection,
    ):
        flow_fence.check(connection, first)
    with write(engine) as connection:
        flow_fence.check(connection, second)


def test_a_ledger_that_lost_its_fence_lets_nobody_write(engine: Engine) -> None:
    with pytest.raises(LockHeld), write(engine) as connection:
        flow_fence.check(connection, 1)


def test_what_was_checked_stays_true_until_the_transaction_ends(engine: Engine) -> None:
    """Given a flow in the middle of a transaction; then another is started behind it, and not within."""
    fence = _take(engine)
    taken: list[int] = []
    other = threading.Thread(target=lambda: taken.append(_take(engine)))
    with write(engine) as connection:
        flow_fence.check(connection, fence)
        other.start()
        other.join(timeout=0.3)
        assert taken == []
    other.join(timeout=10)
    assert taken == [fence + 1]
