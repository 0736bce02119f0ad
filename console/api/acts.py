"""Acts: `POST /api/v1/documents/{key}/approve` and `/reverse`, `/exceptions/{key}/retry` and `/resolve`, `/erp/pull`.

Those on periods and legal holds are in `console.api.period_acts`; all are performed here.

`dry_run` is true unless it is said to be false: what is asked for first is a preview. A real act needs a reason and the
header `Idempotency-Key`; the same request with the same key gets the same answer, and nothing is done twice.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, Literal

import msgspec
import orjson
from starlette.responses import Response

from console import acts
from console.acts import REASON_CHARACTERS_MAX, Acting
from console.answers import JSON, to_json
from console.api.documents import visible_document
from console.api.openapi import problem_answer
from console.auth import Permission
from console.endpoint import API, Answer, Call, Endpoint
from console.problems import Problem
from queries.stores import Row, Stores
from sinks.ledger import idempotency

KEY: Final = "Idempotency-Key"
EVENTS_MAX: Final = 10_000
_KEY: Final = re.compile(r"[!-~]{1,255}")
_REPLAYED: Final = "Idempotent-Replayed"

Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=REASON_CHARACTERS_MAX, pattern=r"\S")]


class ActBody(msgspec.Struct, forbid_unknown_fields=True):
    """Why, and whether it is only a preview (it is, unless `dry_run` is false)."""

    reason: Reason
    dry_run: bool = True


class CorrectedEvent(msgspec.Struct, forbid_unknown_fields=True):
    """A refused event, corrected. `position`: where it was refused, as in the group's samples."""

    event: dict[str, Any]
    position: Annotated[str, msgspec.Meta(max_length=256)] = ""


class RetryBody(msgspec.Struct, forbid_unknown_fields=True):
    """Without `events` the refused events of the group are sent again as they were."""

    reason: Reason
    dry_run: bool = True
    events: Annotated[list[CorrectedEvent], msgspec.Meta(min_length=1, max_length=EVENTS_MAX)] | None = None


class PullBody(msgspec.Struct, forbid_unknown_fields=True):
    """Which entity; all without one."""

    reason: Reason
    dry_run: bool = True
    entity: Annotated[str, msgspec.Meta(max_length=256)] = ""


class Done(msgspec.Struct):
    """What was done, or would be. `changed`: false if it was so before. `detail` depends on the act."""

    act: str
    subject: str
    dry_run: bool
    changed: bool
    said: str
    detail: dict[str, Any]


class CloseBody(msgspec.Struct, forbid_unknown_fields=True):
    """Why, and whether to seal over what is open and may be accepted; that is recorded."""

    reason: Reason
    dry_run: bool = True
    accept_exceptions: bool = False


class HoldBody(msgspec.Struct, forbid_unknown_fields=True):
    """On whom: a customer (with all its tenants), or one tenant."""

    reason: Reason
    kind: Literal["customer", "tenant"]
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]
    dry_run: bool = True


Body = ActBody | RetryBody | PullBody | CloseBody | HoldBody
Work = Callable[[Call, Acting, str], Row]
Ask = Callable[[Callable[[Stores], Any]], Awaitable[Any]]


async def approve_document(call: Call) -> Response:
    """Approve the posting of a document that waits for approval."""
    work = _on_document(acts.approve)
    return await perform(
        call, "approve", call.path["key"], await call.body(ActBody), work, call.services.pool.ask_books
    )


async def reverse_document(call: Call) -> Response:
    """Book the opposite of a document under a key of its own.

    Asking again answers with the reversal that was made the first time.
    """
    work = _on_document(acts.reverse)
    return await perform(
        call, "reverse", call.path["key"], await call.body(ActBody), work, call.services.pool.ask_books
    )


async def retry_exception(call: Call) -> Response:
    """Send the refused events of a group again, as they were or corrected, or try a held posting again."""
    body = await call.body(RetryBody)
    corrected = None if body.events is None else [msgspec.to_builtins(one) for one in body.events]
    try:
        orjson.dumps(corrected)
    except TypeError as error:
        detail = f"events: {error}: write such a number as text, quantities may be"
        raise Problem("malformed_body", detail) from None

    def work(_call: Call, acting: Acting, key: str) -> Row:
        return acts.retry(acting, key, corrected)

    return await perform(call, "retry", call.path["key"], body, work, call.services.pool.ask)


async def resolve_exception(call: Call) -> Response:
    """Mark a group as seen to; it is open again when something new comes."""

    def work(_call: Call, acting: Acting, key: str) -> Row:
        return acts.resolve(acting, key)

    return await perform(call, "resolve", call.path["key"], await call.body(ActBody), work, call.services.pool.ask)


async def pull_master_data(call: Call) -> Response:
    """Read parties, accounts, currencies and periods from the ERPs.

    Held postings that lacked something are checked again by the poster.
    """
    body = await call.body(PullBody)

    def work(_call: Call, acting: Acting, entity: str) -> Row:
        return acts.pull(acting, entity)

    return await perform(call, "pull", body.entity, body, work, call.services.pool.ask_books)


def _on_document(act: Callable[[Acting, str], Row]) -> Work:
    def on_visible(call: Call, acting: Acting, key: str) -> Row:
        visible_document(call, acting.stores, key)
        return act(acting, key)

    return on_visible


async def perform(call: Call, name: str, subject: str, body: Body, work: Work, ask: Ask) -> Response:
    """Do an act once, or say what would be done; `ask` runs it on a thread with the stores that it needs."""
    services, token = call.services, call.token

    def run(stores: Stores) -> bytes:
        acting = Acting(stores, token, services.clock, body.reason.strip(), body.dry_run)
        found = work(call, acting, subject)
        detail = {key: value for key, value in found.items() if key not in ("changed", "said")}
        done = Done(name, subject, body.dry_run, bool(found["changed"]), str(found["said"]), detail)
        return to_json(done)

    if body.dry_run:
        return Response(await ask(run), media_type=JSON)
    key = call.request.headers.get(KEY, "")
    if _KEY.fullmatch(key) is None:
        detail = f"an act needs the header {KEY}, 1 to 255 visible characters that you choose once for it"
        raise Problem("invalid_request", detail)
    digest = _digest(call, body)
    begun = await services.pool.ask_ledger(
        lambda engine: idempotency.begin(engine, token.id, key, digest, services.clock.now())
    )
    if begun.conflict:
        raise Problem("conflict", begun.conflict)
    if begun.answer is not None:
        status, text = begun.answer
        return Response(text, status, {_REPLAYED: "true"}, media_type=JSON)
    try:
        done: Response = await ask(lambda stores: _once(stores, token.id, key, run))
    except Problem as problem:
        if problem.code == "unavailable":  # it was never begun, and may be asked for with the same key at once
            await services.pool.ask_ledger(lambda engine: idempotency.forget(engine, token.id, key))
        raise
    return done


def _once(stores: Stores, token_id: str, key: str, run: Callable[[Stores], bytes]) -> Response:
    """Do it and keep the answer, on one thread: it is kept also if the caller has gone meanwhile."""
    try:
        answer = run(stores)
    except BaseException:
        idempotency.forget(stores.engine, token_id, key)
        raise
    idempotency.finish(stores.engine, token_id, key, 200, answer.decode())
    return Response(answer, media_type=JSON)


def _digest(call: Call, body: Body) -> str:
    plain = orjson.dumps([call.request.url.path, msgspec.to_builtins(body)], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(plain).hexdigest()


def act_endpoint(path: str, permission: Permission, handler: Any, body: Any, *, named: bool = True) -> Endpoint:
    """Return the endpoint of an act; `named`: its path names what it acts on, which may not be there."""
    answers = {
        200: Answer("What was done, or would be.", {JSON: Done}, (_REPLAYED,)),
        **{status: problem_answer(status) for status in (408, 409, 413, 415, 422)},
    }
    if named:
        answers[404] = problem_answer(404)
    headers = {KEY: "Chosen by the caller, once for each act that is no preview."}
    return Endpoint("POST", f"{API}{path}", permission, handler, answers, body={JSON: body}, headers=headers, tag="act")


ENDPOINTS = (
    act_endpoint("/documents/{key}/approve", "approve", approve_document, ActBody),
    act_endpoint("/documents/{key}/reverse", "approve", reverse_document, ActBody),
    act_endpoint("/exceptions/{key}/retry", "operate", retry_exception, RetryBody),
    act_endpoint("/exceptions/{key}/resolve", "operate", resolve_exception, ActBody),
    act_endpoint("/erp/pull", "operate", pull_master_data, PullBody, named=False),
)
