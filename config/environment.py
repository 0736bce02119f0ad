"""Environment variables `METERBRIDGE_...` as a tree of overrides that remembers each variable's name.

`METERBRIDGE_REDIS__URL` sets `redis.url` of the settings, `METERBRIDGE_RULES__GRACE_S` the rule `grace_s`. The
variables mean the same as pydantic-settings reads them; they are read here first so that every bad one is
reported by name, together with all other problems.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final

import orjson
from pydantic import BaseModel

from config.yaml_source import Location

PREFIX: Final = "METERBRIDGE_"
RULES: Final = "RULES"
NOT_SETTINGS: Final = frozenset({"METERBRIDGE_VERSION"})
"""Names with our prefix that are for others: the image's version in docker-compose.yml."""
VALUE_CHARACTERS_MAX: Final = 1 << 20


@dataclass
class Overrides:
    """Values from the environment, the variable behind each place, and problems by variable name."""

    values: dict[str, Any] = field(default_factory=dict)
    variables: dict[Location, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def variable(self, location: Location) -> str | None:
        """Return the variable that set that place or a part around it, else None."""
        for end in range(len(location), 0, -1):
            found = self.variables.get(location[:end])
            if found is not None:
                return found
        return None


def config_file(environment: Mapping[str, str] | None = None) -> str | None:
    """Return the configuration file the environment names, else None."""
    return (os.environ if environment is None else environment).get(f"{PREFIX}CONFIG_FILE")


def settings_overrides(model: type[BaseModel], environment: Mapping[str, str] | None = None) -> Overrides:
    """Return what the environment says about the settings; unknown names are problems."""
    return _overrides(model, PREFIX, environment, skip=f"{PREFIX}{RULES}__")


def rules_overrides(model: type[BaseModel], environment: Mapping[str, str] | None = None) -> Overrides:
    """Return what the environment says about the rules of intake and booking."""
    return _overrides(model, f"{PREFIX}{RULES}__", environment, skip=None)


def names(model: type[BaseModel], prefix: str = PREFIX) -> dict[str, tuple[Location, Any]]:
    """Return every variable's name with the place it sets and the field's annotation."""
    result: dict[str, tuple[Location, Any]] = {}
    for name, info in model.model_fields.items():
        variable = f"{prefix}{name.upper()}"
        result[variable] = ((name,), info.annotation)
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            for inner, (location, annotation) in names(info.annotation, f"{variable}__").items():
                result[inner] = ((name, *location), annotation)
    return result


def _overrides(
    model: type[BaseModel], prefix: str, environment: Mapping[str, str] | None, skip: str | None
) -> Overrides:
    known = names(model, prefix)
    result = Overrides()
    # Shorter names first: a whole section as JSON, then single fields on top of it.
    for variable, text in sorted((os.environ if environment is None else environment).items()):
        name = variable.upper()
        if not name.startswith(prefix) or name in NOT_SETTINGS or (skip is not None and name.startswith(skip)):
            continue
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "remove it; sections and fields are joined by `__`"
            result.problems.append(f"{variable}: no such setting. hint: {hint}")
            continue
        location, annotation = known[name]
        value, problem = _decode(text, annotation)
        if problem:
            result.problems.append(f"{variable}: {problem}")
            continue
        _place(result.values, location, value)
        result.variables[location] = variable
    return result


def _decode(text: str, annotation: Any) -> tuple[Any, str]:
    """Return the value, or what is wrong. Lists and sections are JSON, as pydantic-settings wants them."""
    if len(text) > VALUE_CHARACTERS_MAX:
        return None, f"longer than {VALUE_CHARACTERS_MAX} characters. hint: use the file"
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    if not is_section and getattr(annotation, "__origin__", None) not in (tuple, list, dict):
        return text, ""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        example = '{"name": "value"}' if is_section else '["usage:0", "usage:1"]'
        return None, f"is not JSON. hint: write it like {example}"
    expected = dict if is_section or annotation.__origin__ is dict else list
    if not isinstance(value, expected):
        return None, f"must be a JSON {'object' if expected is dict else 'list'}"
    return value, ""


def _place(values: dict[str, Any], location: Location, value: Any) -> None:
    inner = values
    for part in location[:-1]:
        inner = inner.setdefault(str(part), {})
    inner[str(location[-1])] = value


def overlay(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Return `lower` with `upper` laid over it, mapping by mapping."""
    result = dict(lower)
    for key, value in upper.items():
        present = result.get(key)
        both = isinstance(present, Mapping) and isinstance(value, Mapping)
        result[key] = overlay(present, value) if both else value  # type: ignore[arg-type]
    return result
