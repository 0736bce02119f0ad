"""How problems of the configuration are worded: `file:line: path: what is wrong (got ...). hint: ...`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from config.yaml_source import Location, Source

_GOT_CHARACTERS_MAX: Final = 80
_SECRET_WORDS: Final = ("password", "secret", "token", "api_key", "credential")

_HINTS: Final = {
    "missing": "add the field",
    "extra_forbidden": "remove it, or check the spelling",
    "string_type": "put the value in quotes",
    "string_pattern_mismatch": "see the pattern",
    "tuple_type": "write a list",
    "list_type": "write a list",
    "dict_type": "write a mapping",
    "model_type": "write a mapping",
    "model_attributes_type": "write a mapping",
    "int_parsing": "write a whole number",
    "int_from_float": "write a whole number",
    "float_parsing": "write a number",
    "bool_parsing": "write true or false",
    "literal_error": "use one of those listed",
    "union_tag_not_found": "add `model`, such as per_unit, graduated or flat",
    "union_tag_invalid": "write one of the models listed",
    "decimal_parsing": 'write a decimal as text, such as "0.25"',
    "datetime_parsing": "write a time such as 2026-01-01T00:00:00Z",
    "datetime_from_date_parsing": "write a time such as 2026-01-01T00:00:00Z",
    "time_delta_parsing": "write a duration such as P5D",
}


def is_secret(location: Location, values: Any = None) -> bool:
    """Tell whether what stands there must not be printed. URLs may hold a password."""
    names = [str(part).lower() for part in location]
    return any(word in name for name in names for word in _SECRET_WORDS) or bool(names and names[-1] == "url")


def got(location: Location, value: Any) -> str:
    """Return ` (got ...)` for a message, empty for containers, cut when long, hidden for secrets."""
    if isinstance(value, Mapping | BaseModel) or (isinstance(value, Sequence) and not isinstance(value, str)):
        return ""
    if is_secret(location) or isinstance(value, SecretStr):
        return " (got a value that is not shown)"
    text = repr(value) if isinstance(value, str) else str(value)
    if len(text) > _GOT_CHARACTERS_MAX:
        text = text[:_GOT_CHARACTERS_MAX] + "..."
    return f" (got {text})"


def problem(where: str, name: str, message: str, hint: str) -> str:
    """Join the parts of one problem."""
    end = f". hint: {hint}" if hint else ""
    return f"{where}: {name}: {message}{end}" if name else f"{where}: {message}{end}"


def from_validation(
    error: ValidationError,
    source: Source,
    base: Location = (),
    place: Callable[[Location], str | None] = lambda _location: None,
) -> list[str]:
    """Word all errors of a pydantic validation whose root stands at `base`.

    `place` may name another origin than the file (an environment variable). Errors of the alternatives of a
    union stand at one place of the file and become one problem.
    """
    grouped: dict[Location, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False, include_context=True):
        location = (*base, *details["loc"])
        shown = location if details["type"] == "missing" else _shown(location, source)
        grouped.setdefault(shown, []).append(details)
    return [
        _word(shown, group, source, place)
        for shown, group in grouped.items()
        if not _is_consequence(shown, group, grouped)
    ]


def _is_consequence(location: Location, group: list[ErrorDetails], grouped: Iterable[Location]) -> bool:
    """Tell whether a list is too short only because its elements have errors of their own."""
    inner = any(other[: len(location)] == location and other != location for other in grouped)
    return inner and all(details["type"] == "too_short" for details in group)


def _shown(location: Location, source: Source) -> Location:
    """Cut what pydantic adds to a location (names of union members) but was never written."""
    written = source.written(location)
    return written if len(written) > 1 else location


def _word(
    location: Location,
    group: Iterable[ErrorDetails],
    source: Source,
    place: Callable[[Location], str | None],
) -> str:
    details = list(group)
    first = details[0]
    messages = list(dict.fromkeys(_message(item) for item in details))
    value = "" if first["type"] == "missing" else got(location, first["input"])
    hint = _HINTS.get(first["type"], "")
    where = place(location) or source.where(location)
    text, _, own_hint = " or ".join(messages).partition(". hint: ")
    return problem(where, source.name(location), f"{text}{value}", own_hint or hint)


def _message(details: ErrorDetails) -> str:
    kind = details["type"]
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return "is not a known field"
    if kind == "union_tag_not_found":
        return "has no model"
    message = details["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return message[:1].lower() + message[1:]


def plain_errors(error: ValidationError) -> list[tuple[Location, str, str]]:
    """Return place, message with value, and hint of each error, for a caller that knows the place's base."""
    return [
        (
            tuple(details["loc"]),
            _message(details) + ("" if details["type"] == "missing" else got(details["loc"], details["input"])),
            _HINTS.get(details["type"], ""),
        )
        for details in error.errors(include_url=False)
    ]
