"""`POST /api/v1/events`: CloudEvents in, to the streams."""

from typing import Any, Final

import msgspec
from starlette.responses import Response

from console import limits
from console.answers import JSON, json_answer
from console.api.openapi import problem_answer
from console.cloudevents import BATCH, PLAIN, STRUCTURED, events_of
from console.endpoint import API, Answer, Call, Endpoint
from console.problems import RETRY_AFTER_S, Problem
from core.metrics import API_EVENTS

NO_CONTENT: Final = Response(status_code=204)
_ACCEPTED: Final = API_EVENTS.labels("accepted", "")


class CloudEvent(msgspec.Struct, omit_defaults=True):
    """A CloudEvent 1.0; more attributes are allowed. `subject` says whose usage it is."""

    specversion: str
    id: str
    source: str
    type: str
    subject: str
    data: dict[str, Any]
    time: str | None = None
    dataschema: str | None = None
    datacontenttype: str | None = None


class RefusedEvent(msgspec.Struct):
    """An event that was not accepted.

    `index`: its place in the request. `reason`: a code of docs/events.md, or `forbidden_tenant`.
    """

    index: int
    id: str | None
    reason: str
    detail: str


class PartlyAccepted(msgspec.Struct):
    """How many events were accepted, and which were not."""

    accepted: int
    refused: list[RefusedEvent]


async def post_events(call: Call) -> Response:
    """Take usage events.

    One CloudEvent (structured or binary mode) or a batch. What can be checked at once is; good events are appended to
    their stream, and the answer comes when the streams' server has them. Sending the same events again is harmless:
    an event (source, id) is counted once.
    """
    settings = call.services.settings.console
    body = await call.raw_body()
    # One pass over the headers instead of one for each that is looked for; of one that is repeated the first counts.
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(call.request.headers.raw)}
    events = events_of(headers, body)
    if len(events) > settings.batch_events_max:
        raise Problem(
            "body_too_large", f"at most {settings.batch_events_max:,} events in one request, not {len(events):,}"
        )
    limits.check(call.services.events, call.token.id, len(events))
    tenants = frozenset(call.token.tenants) if call.token.tenants else None
    request_id = call.request.state.request_id
    try:
        refused = await call.services.intake.accept(events, tenants, request_id, settings.request_s_max)
    except TimeoutError:
        detail = "the streams' server took too long; the events may be counted all the same: send them again"
        raise Problem("timed_out", detail, headers={"Retry-After": str(RETRY_AFTER_S)}) from None
    _ACCEPTED.inc(len(events) - len(refused))
    for one in refused:
        API_EVENTS.labels("refused", one.reason).inc()
    if not refused:
        return NO_CONTENT
    found = [RefusedEvent(one.index, one.id, one.reason, one.detail) for one in refused]
    if len(found) == len(events):
        more = {"refused": msgspec.to_builtins(found)}
        raise Problem("events_refused", f"{found[0].reason}: {found[0].detail}", more=more)
    return json_answer(call.request, PartlyAccepted(len(events) - len(found), found), 207)


ENDPOINTS = (
    Endpoint(
        "POST",
        f"{API}/events",
        "ingest",
        post_events,
        {
            204: Answer("All events are accepted."),
            207: Answer("Some events are accepted, the named ones are not.", {JSON: PartlyAccepted}),
            408: problem_answer(408),
            413: problem_answer(413),
            415: problem_answer(415),
        },
        body={STRUCTURED: CloudEvent, BATCH: list[CloudEvent], PLAIN: CloudEvent | list[CloudEvent]},
        tag="ingest",
    ),
)
