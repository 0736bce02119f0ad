"""One event, read step by step: the reference that the fast path must agree with (design 2.2).

The order of checks is fixed, and the first that fails gives the reason:

1. `too_large`: more bytes than `rules.event_bytes_max`.
2. `malformed_json`: not UTF-8, not one JSON object, a byte order mark, NaN or Infinity, a lone surrogate in any
   string, nesting deeper than NESTING_MAX.
3. Attributes in the order specversion, id, source, type, subject, time, dataschema, data: `missing_field`, then
   `invalid_field`. A null attribute is an absent one, as the CloudEvents JSON format says; a null `data` is not an
   object. With duplicate keys the last one counts, at every level.
4. For a void, its original: `invalid_field`.
5. `future_time`, `too_old`; a void's original is not asked for its age.
6. `invalid_quantity`: meters want the event and none can read it.

Numbers are taken from their literals, never through a parser's own idea of integers and floats.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, NoReturn

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError

from core import digests
from core.quantities import (
    UNIT,
    decimal_of_scaled,
    number_text,
    scaled_of_json_number,
    scaled_of_text,
)
from core.reasons import CONTROL_TYPE, VOID_TYPE, Reason
from operators.decode_control import control_totals
from operators.decode_plan import (
    ATTRIBUTE_CHARS_MAX,
    NESTING_MAX,
    SUBJECT_CHARS_MAX,
    MeterPlan,
    Path,
    RevisionPlan,
    is_out_of_time,
)
from operators.decode_times import time_us

Members = dict[str, str]
"""An object taken apart one level deep: key to compact JSON text of the value."""

# --- the answer --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rejected:
    """The event is refused."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """The event's columns (all but position and raw), and the details of meters that could not read it."""

    columns: dict[str, Any]
    exceptions: tuple[str, ...]


class _Refusal(Exception):  # it is an answer, not an error
    def __init__(self, rejected: Rejected) -> None:
        super().__init__(rejected)
        self.rejected = rejected


def _refuse(reason: Reason, detail: str) -> NoReturn:
    raise _Refusal(Rejected(reason, detail))


def decode_event(raw: bytes, entry_ms: int, plan: RevisionPlan) -> Accepted | Rejected:
    """Decode one event without surrounding whitespace that arrived at `entry_ms`.

    Guarantee: pure; the same bytes, time and revision give the same answer.
    Unit of parallelism: the event. If the process dies here nothing is lost: the entry is read again.
    """
    try:
        return _decode(raw, entry_ms, plan)
    except _Refusal as refusal:
        return refusal.rejected


def _decode(raw: bytes, entry_ms: int, plan: RevisionPlan) -> Accepted:
    if len(raw) > plan.rules.event_bytes_max:
        _refuse("too_large", f"{len(raw)} bytes; at most {plan.rules.event_bytes_max} are allowed")
    envelope = _envelope(_object(raw))
    event_us = entry_ms * 1000 if envelope.time is None else _known_time_us(envelope.time)
    original = _original(envelope) if envelope.type == VOID_TYPE else None
    out_of_time = is_out_of_time(event_us, entry_ms, plan.rules)
    if out_of_time == "future_time":
        _refuse("future_time", f"time is more than {plan.rules.future_s} s after arrival")
    if out_of_time == "too_old":
        _refuse("too_old", f"time is more than {plan.rules.too_old_days} days before arrival")
    columns: dict[str, Any] = {
        "source": envelope.source,
        "id": envelope.id,
        "type": envelope.type,
        "tenant": envelope.subject,
        "event_time_us": event_us,
        "usage_time_us": event_us,
        "void_content": 0,
        "sign": 1,
    }
    metered = envelope if original is None else original
    columns["identity_hi"], columns["identity_lo"] = digests.identity(metered.source, metered.id)
    columns["content"] = metered.digest()
    if original is not None:
        columns["sign"] = -1
        columns["usage_time_us"] = None if original.time is None else _known_time_us(original.time)
        columns["void_content"] = digests.void_content(envelope.source, envelope.id, envelope.digest())
    if envelope.type == CONTROL_TYPE:
        _check_control(envelope)
        return Accepted(columns, ())
    exceptions = _meter(metered, plan, columns, is_void=original is not None)
    return Accepted(columns, exceptions)


# --- JSON --------------------------------------------------------------------------------------------------


class _Number:
    """A number literal; deliberately not a str, so that no check takes it for text."""

    __slots__ = ("literal",)

    def __init__(self, literal: str) -> None:
        self.literal = literal


def _refuse_constant(name: str) -> NoReturn:
    message = f"{name} is not JSON"
    raise ValueError(message)


_JSON: Final = json.JSONDecoder(parse_float=_Number, parse_int=_Number, parse_constant=_refuse_constant)
# A string, or what is left of the text if it does not end: so that looking for strings takes linear time always.
_STRING: Final = r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'
_STRINGS: Final = re.compile(_STRING, re.DOTALL)
_STRING_OR_SPACE: Final = re.compile(rf"({_STRING})|[ \t\r\n]+", re.DOTALL)
_STRING_OR_BRACKET: Final = re.compile(rf"{_STRING}|[\[\]{{}}]", re.DOTALL)


def _object(raw: bytes) -> Members:
    """Parse and check the whole text; return its members."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        _refuse("malformed_json", f"not UTF-8 at byte {error.start}")
    if _depth(text) > NESTING_MAX:
        _refuse("malformed_json", f"nested deeper than {NESTING_MAX}")
    try:
        value = _JSON.decode(text)
    except json.JSONDecodeError as error:
        _refuse("malformed_json", f"{error.msg} at character {error.pos}")
    except ValueError as error:
        _refuse("malformed_json", str(error))
    if not isinstance(value, dict):
        _refuse("malformed_json", "not a JSON object")
    if "\\u" in text and _has_lone_surrogate(text):
        _refuse("malformed_json", "a string holds half of a surrogate pair")
    return _members(_without_whitespace(text))


def _without_whitespace(text: str) -> str:
    if not any(space in text for space in " \t\r\n"):
        return text
    return _STRING_OR_SPACE.sub(lambda match: match[1] or "", text)


def _leaf(compact: str) -> Any:
    """Parse the compact text of one value."""
    return _JSON.raw_decode(compact)[0]


def _depth(text: str) -> int:
    if text.count("[") + text.count("{") <= NESTING_MAX:
        return 0
    depth = deepest = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        if match[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif match[0] in "]}":
            depth -= 1
    return deepest


def _has_lone_surrogate(text: str) -> bool:
    for match in _STRINGS.finditer(text):
        try:
            json.loads(match[0]).encode("utf-8")
        except UnicodeEncodeError:
            return True
    return False


def _members(compact: str) -> Members:
    """Take a valid, compact object apart; of equal keys the last counts."""
    members: Members = {}
    place = 1
    while compact[place] != "}":
        key, value_start = json.decoder.scanstring(compact, place + 1)  # type: ignore[attr-defined]
        _, value_end = _JSON.raw_decode(compact, value_start + 1)
        members[key] = compact[value_start + 1 : value_end]
        place = value_end + 1 if compact[value_end] == "," else value_end
    return members


# --- attributes --------------------------------------------------------------------------------------------

# The characters that CloudEvents forbids in text attributes: C0 and C1 controls and DEL.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _without_controls(text: str) -> str:
    if _CONTROL.search(text):
        message = "holds a control character"
        raise ValueError(message)
    return text


def _rfc3339(text: str) -> str:
    if time_us(text) is None:
        message = "is not an RFC 3339 time with an offset, such as 2026-10-31T10:00:00Z"
        raise ValueError(message)
    return text


_Attribute = Annotated[
    str, StringConstraints(min_length=1, max_length=ATTRIBUTE_CHARS_MAX), AfterValidator(_without_controls)
]
_Subject = Annotated[
    str, StringConstraints(min_length=1, max_length=SUBJECT_CHARS_MAX), AfterValidator(_without_controls)
]


class _Envelope(BaseModel):
    """The attributes in the order in which they are checked; `data` is taken apart one level deep."""

    model_config = ConfigDict(strict=True, frozen=True)

    specversion: Literal["1.0"]
    id: _Attribute
    source: _Attribute
    type: _Attribute
    subject: _Subject
    time: Annotated[str, AfterValidator(_rfc3339)] | None = None
    dataschema: str | None = None
    data: dict[str, str]
    compact_data: str

    def digest(self) -> int:
        """Return the content digest."""
        return digests.content(self.subject, self.type, self.time, self.compact_data)


_NAMES: Final = tuple(name for name in _Envelope.model_fields if name not in ("data", "compact_data"))


def _envelope(members: Members) -> _Envelope:
    values: dict[str, Any] = {"compact_data": members.get("data", "")}
    for name in _NAMES:
        text = members.get(name, "null")
        if text != "null":
            values[name] = _leaf(text)
    if "data" in members:
        compact = members["data"]
        values["data"] = _members(compact) if compact.startswith("{") else None
    try:
        return _Envelope.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = str(first["loc"][0])
        if first["type"] == "missing":
            _refuse("missing_field", f"{name} is absent")
        _refuse("invalid_field", f"{name}: {first['msg']}")


def _known_time_us(text: str) -> int:
    value = time_us(text)
    if value is None:  # pragma: no cover  the envelope has checked it
        _refuse("invalid_field", "time: is not an RFC 3339 time")
    return value


def _original(void: _Envelope) -> _Envelope:
    try:
        original = _envelope(void.data)
    except _Refusal as refusal:
        rejected = refusal.rejected
        _refuse("invalid_field", f"data is not a valid event: {rejected.detail}")
    if original.type == VOID_TYPE:
        _refuse("invalid_field", "data is a void; a void cannot be taken back")
    if original.type == CONTROL_TYPE:
        _refuse("invalid_field", "data is a control total; send the right one instead, the newest counts")
    if original.subject != void.subject:
        _refuse("invalid_field", "subject differs from the original's subject")
    return original


def _check_control(event: _Envelope) -> None:
    try:
        control_totals(event.compact_data)
    except ValueError as error:
        _refuse("invalid_field", f"data: {error}")


# --- meters ------------------------------------------------------------------------------------------------


def _meter(event: _Envelope, plan: RevisionPlan, columns: dict[str, Any], *, is_void: bool) -> tuple[str, ...]:
    """Add the meters' columns; return the details of those that cannot take the event."""
    exceptions: list[str] = []
    wanted = read = 0
    for meter in plan.meters_by_type.get(event.type, ()):
        if any(_text(_find(event.data, path)) not in allowed for path, allowed in meter.filters):
            continue
        wanted += 1
        value = _value(meter, event.data)
        if value is None:
            exceptions.append(meter.unreadable_detail)
            continue
        read += 1
        if is_void and not meter.takes_voids:
            exceptions.append(meter.void_detail)
            continue
        columns[meter.value_column] = value
        dimensions = {name: _text(_find(event.data, path)) for name, path in meter.dimensions}
        columns[meter.dimensions_column] = orjson.dumps(dimensions, option=orjson.OPT_SORT_KEYS).decode()
    if wanted and not read:
        detail = "; ".join(exceptions)
        if is_void:
            _refuse("invalid_field", f"data is not a valid event: {detail}")
        _refuse("invalid_quantity", detail)
    return tuple(exceptions)


def _find(data: Mapping[str, str], path: Path) -> str:
    """Return the compact JSON text at the path; `null` if there is none."""
    text = data.get(path[0], "null")
    for key in path[1:]:
        text = _members(text).get(key, "null") if text.startswith("{") else "null"
    return text


def _text(compact: str) -> str:
    """Return the text of a dimension: strings unquoted, null empty, numbers canonical, the rest as it is."""
    if compact == "null":
        return ""
    value = _leaf(compact)
    if isinstance(value, str):
        return value
    return number_text(value.literal) if isinstance(value, _Number) else compact


def _value(meter: MeterPlan, data: Mapping[str, str]) -> Any:
    """Return the Decimal (or for `unique_count` the text) the event brings; None if it cannot be read."""
    if meter.value is None:
        return decimal_of_scaled(UNIT)
    compact = _find(data, meter.value)
    if meter.counts_unique:
        return None if compact == "null" or compact[0] in "[{" else _text(compact)
    value = _leaf(compact)
    if isinstance(value, str):
        scaled = scaled_of_text(value)
    elif isinstance(value, _Number):
        scaled = scaled_of_json_number(value.literal)
    else:
        scaled = None
    if scaled is None or (scaled < 0 and not meter.allow_negative):
        return None
    return decimal_of_scaled(scaled)
