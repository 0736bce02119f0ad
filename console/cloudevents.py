"""Bodies of requests as CloudEvents: structured, batch and binary mode of the HTTP protocol binding 1.0."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

import msgspec
import orjson

from console.problems import Problem

STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
PLAIN: Final = "application/json"
MEDIA_TYPES: Final = (STRUCTURED, BATCH, PLAIN)

_PREFIX: Final = "ce-"
_ATTRIBUTE: Final = re.compile(r"[a-z0-9]{1,64}")
_JSON_TYPE: Final = re.compile(r"(application/json|text/json|[\w.+-]+/[\w.+-]+\+json)")
_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])


def events_of(headers: Mapping[str, str], body: bytes) -> list[bytes]:
    """Return the events of a request, each as one JSON text; whether one is a valid event is not looked at.

    :raises Problem: 415 for another media type or an encoded body; 400 if a batch is not a JSON array.
    """
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem("unsupported_media_type", "an encoded body is not read: send it as it is")
    if "ce-specversion" in headers or "ce-id" in headers:
        return [_binary(headers, media, body)]
    if media == BATCH or (media == PLAIN and body.lstrip(b" \t\r\n")[:1] == b"["):
        try:
            return [bytes(raw) for raw in _LIST.decode(body)]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Problem("malformed_body", f"not a JSON array of events: {error}") from None
    if media in (STRUCTURED, PLAIN):
        return [body]
    supported = ", ".join(MEDIA_TYPES)
    detail = f"send {supported}, or an event in binary mode (attributes as `ce-` headers), not {media or 'no type'}"
    raise Problem("unsupported_media_type", detail)


def _binary(headers: Mapping[str, str], media: str, body: bytes) -> bytes:
    """Return the event whose attributes are headers and whose data is the body."""
    if _JSON_TYPE.fullmatch(media) is None:
        raise Problem("unsupported_media_type", f"the data of an event must be JSON, not {media or 'without a type'}")
    attributes: dict[str, str] = {}
    for name, value in headers.items():
        attribute = name.lower().removeprefix(_PREFIX)
        if attribute == name.lower() or not _ATTRIBUTE.fullmatch(attribute) or attribute == "data":
            continue
        # As HTTP carries them: Latin-1 where bytes are meant, everything beyond ASCII percent-encoded.
        attributes[attribute] = unquote(value.strip('"') if value[:1] == '"' else value, errors="replace")
    attributes["datacontenttype"] = media
    try:
        msgspec.json.decode(body)  # one whole JSON value: it must not end the object it is put into
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Problem("malformed_body", f"the data is not JSON: {error}") from None
    return orjson.dumps(attributes)[:-1] + b',"data":' + body + b"}"
