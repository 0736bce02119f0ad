"""Acts on periods and legal holds: `POST /api/v1/periods/{entity}/{period}/close`, `/record-close` and `/reopen`.

And `/holds/place` and `/holds/lift`. What they do is what `meterbridge close`, `erp close-period`, `erp reopen-period`
and `retention hold` do.
"""

from collections.abc import Callable

from starlette.responses import Response

from console import book_acts
from console.acts import Acting
from console.api.acts import ActBody, CloseBody, HoldBody, act_endpoint, perform
from console.closing import Closings
from console.endpoint import Call
from queries.stores import Row
from sinks.ledger.retention import HoldKind


async def close_period(call: Call) -> Response:
    """Check that an accounting period is complete, and freeze a signed summary of everything in it.

    Nothing is sealed unless everything holds, or what does not may be accepted and is. A month of much usage takes
    longer than a request may: ask again with the same key until the answer comes.
    """
    body = await call.body(CloseBody)
    closings = Closings.of(call.services)

    def work(_call: Call, acting: Acting, _subject: str) -> Row:
        entity, period = _named(call)
        return book_acts.seal(acting, closings, entity, period, accept=body.accept_exceptions)

    return await perform(call, "close", _subject(call), body, work, call.services.pool.ask_books)


async def record_close(call: Call) -> Response:
    """Record that a period takes nothing more from the next hour on, before its cut-off."""

    def work(_call: Call, acting: Acting, _subject: str) -> Row:
        return book_acts.record(acting, *_named(call), "close")

    body = await call.body(ActBody)
    return await perform(call, "record_close", _subject(call), body, work, call.services.pool.ask_books)


async def reopen_period(call: Call) -> Response:
    """Record that a period is open again from the next hour on, whatever its cut-off says."""

    def work(_call: Call, acting: Acting, _subject: str) -> Row:
        return book_acts.record(acting, *_named(call), "reopen")

    body = await call.body(ActBody)
    return await perform(call, "reopen", _subject(call), body, work, call.services.pool.ask_books)


async def place_hold(call: Call) -> Response:
    """Keep all rows of a customer or tenant, whatever the policy says."""
    return await _hold(call, "place_hold", book_acts.place_hold)


async def lift_hold(call: Call) -> Response:
    """End a hold: what is older than the policy says goes with the next run of `meterbridge retention --apply`."""
    return await _hold(call, "lift_hold", book_acts.lift_hold)


async def _hold(call: Call, act: str, do: Callable[[Acting, HoldKind, str], Row]) -> Response:
    body = await call.body(HoldBody)

    def work(_call: Call, acting: Acting, _subject: str) -> Row:
        return do(acting, body.kind, body.name)

    return await perform(call, act, f"{body.kind}/{body.name}", body, work, call.services.pool.ask_books)


def _named(call: Call) -> tuple[str, str]:
    return call.path["entity"], call.path["period"]


def _subject(call: Call) -> str:
    return "/".join(_named(call))


ENDPOINTS = (
    act_endpoint("/periods/{entity}/{period}/close", "approve", close_period, CloseBody),
    act_endpoint("/periods/{entity}/{period}/record-close", "approve", record_close, ActBody),
    act_endpoint("/periods/{entity}/{period}/reopen", "approve", reopen_period, ActBody),
    act_endpoint("/holds/place", "administer", place_hold, HoldBody, named=False),
    act_endpoint("/holds/lift", "administer", lift_hold, HoldBody, named=False),
)
