"""Reads the configuration: one YAML file, or all `*.yaml` of a directory, and the environment on top of it.

Sections: `settings` (processes, see `config.settings`), `rules`, `meters`, `plans`, `entities`, `customers`
(the revision, see `config.revision`). Every problem is found in one go and named with file and line.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from config import checks, environment
from config.customers import Customer
from config.entities import Entity
from config.journal_rules import Past, refusals
from config.meters import Meter
from config.plans import Plan
from config.problems import from_validation, problem
from config.revision import Configuration, Rules
from config.settings import Settings
from config.yaml_source import Source, read
from core.errors import ConfigError

_LISTS: Final[dict[str, type[BaseModel]]] = {
    "meters": Meter,
    "plans": Plan,
    "entities": Entity,
    "customers": Customer,
}
SECTIONS: Final = ("settings", "rules", *_LISTS)

ModelT = TypeVar("ModelT", bound=BaseModel)


@dataclass(frozen=True)
class Examination:
    """What a configuration holds, and everything that is wrong with it."""

    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    settings: Settings | None
    """None if the settings have problems."""
    configuration: Configuration | None
    """None if the revision has problems of its own."""
    counts: dict[str, int] = field(default_factory=dict)


def load(path: Path, rules: Mapping[str, Any] | None = None) -> Configuration:
    """Return the checked configuration (the content of a revision).

    `rules` replaces single rules, on top of the file and the environment. Raises ConfigError with all problems
    of the revision; those of the settings are `load_settings`'s.
    """
    source = _read(path)
    configuration, problems, _ = _revision(source, rules)
    if configuration is None:
        raise ConfigError(_ordered([*source.problems, *problems]))
    return configuration


def load_settings(path: Path) -> Settings:
    """Return the settings: environment over file over defaults. Raises ConfigError with all problems."""
    source = _read(path)
    settings, problems = _settings(source)
    if settings is None:
        raise ConfigError(_ordered([*source.problems, *problems]))
    return settings


def examine(path: Path, past: Past | None = None) -> Examination:
    """Return everything that is wrong with a configuration, settings and revision together.

    With the revisions of a ledger also what it changes of them and may not, once it has no other problem.
    """
    source = _read(path)
    settings, settings_problems = _settings(source)
    configuration, revision_problems, warnings = _revision(source, None)
    if configuration is not None and past is not None:
        revision_problems = [
            problem(source.where(refusal.location), refusal.name, refusal.message, refusal.hint)
            for refusal in refusals(past, configuration)
        ]
    counts = {name: len(source.values.get(name) or ()) for name in _LISTS}
    problems = _ordered([*source.problems, *settings_problems, *revision_problems])
    return Examination(tuple(problems), tuple(warnings), settings, configuration, counts)


def _read(path: Path) -> Source:
    source = read(path)
    for name in source.values:
        if name not in SECTIONS:
            hint = f"sections are {', '.join(SECTIONS)}"
            source.problems.append(problem(source.where((name,)), name, "is not a known section", hint))
    return source


def _settings(source: Source) -> tuple[Settings | None, list[str]]:
    overrides = environment.settings_overrides(Settings)
    problems = list(overrides.problems)
    section = _mapping(source, "settings", problems)
    merged = environment.overlay(section, overrides.values)
    try:
        _FileOnly(**merged)
    except ValidationError as error:
        problems += from_validation(error, source, ("settings",), lambda location: overrides.variable(location[1:]))
    if problems or source.problems:
        return None, problems
    return Settings(**merged), problems


class _FileOnly(Settings):
    """The settings without sources of their own: what is given has the environment in it already."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the arguments only."""
        return (init_settings,)


def _revision(source: Source, rules: Mapping[str, Any] | None) -> tuple[Configuration | None, list[str], list[str]]:
    """Return the configuration or None, its problems and its warnings."""
    problems: list[str] = []
    checked_rules = _rules(source, rules, problems)
    meters = _elements(source, "meters", Meter, problems)
    plans = _elements(source, "plans", Plan, problems)
    entities = _elements(source, "entities", Entity, problems)
    customers = _elements(source, "customers", Customer, problems)
    ids = {name: _written_ids(source, name) for name in _LISTS}
    draft = checks.Draft(meters, plans, entities, customers, ids, checked_rules)
    warnings: list[str] = []
    for finding in [*checks.check(draft), *_broken_plans(source, draft)]:
        text = problem(source.where(finding.location), source.name(finding.location), finding.message, finding.hint)
        (warnings if finding.is_warning else problems).append(text)
    if problems or source.problems or checked_rules is None:
        return None, problems, warnings
    configuration = Configuration(
        meters=tuple(meters.values()),
        plans=tuple(plans.values()),
        entities=tuple(entities.values()),
        customers=tuple(customers.values()),
        rules=checked_rules,
    )
    return configuration, problems, warnings


def _broken_plans(source: Source, draft: checks.Draft) -> Iterator[checks.Finding]:
    value = source.values.get("plans")
    for index, element in enumerate(value if isinstance(value, list) else ()):
        if index not in draft.plans:
            yield from checks.broken_plan(draft, element, ("plans", index))


def _rules(source: Source, rules: Mapping[str, Any] | None, problems: list[str]) -> Rules | None:
    overrides = environment.rules_overrides(Rules)
    problems += overrides.problems
    merged = environment.overlay(_mapping(source, "rules", problems), overrides.values)
    try:
        return Rules.model_validate(environment.overlay(merged, rules or {}))
    except ValidationError as error:
        problems += from_validation(error, source, ("rules",), lambda location: overrides.variable(location[1:]))
        return None


def _mapping(source: Source, section: str, problems: list[str]) -> dict[str, Any]:
    value = source.values.get(section)
    if value is None:
        return {}
    if not isinstance(value, dict):
        problems.append(problem(source.where((section,)), section, "must be a mapping", "write `field: value` lines"))
        return {}
    return value


def _elements(source: Source, section: str, model: type[ModelT], problems: list[str]) -> dict[int, ModelT]:
    """Return the valid elements of a list by index, so that the cross checks run on what is sound."""
    value = source.values.get(section)
    if value is None:
        return {}
    if not isinstance(value, list):
        problems.append(problem(source.where((section,)), section, "must be a list", "begin each element with `- id:`"))
        return {}
    result: dict[int, ModelT] = {}
    for index, element in enumerate(value):
        try:
            result[index] = model.model_validate(element)
        except ValidationError as error:
            problems += from_validation(error, source, (section, index))
    return result


def _written_ids(source: Source, section: str) -> frozenset[str]:
    """Return the ids written in a list, those of broken elements too: a reference to them is not unknown."""
    value = source.values.get(section)
    elements = value if isinstance(value, list) else []
    ids = (element.get("id") for element in elements if isinstance(element, dict))
    return frozenset(name for name in ids if isinstance(name, str))


def _ordered(problems: list[str]) -> list[str]:
    """Sort by file and line, keeping each text once."""

    def key(text: str) -> tuple[str, int, str]:
        file, _, rest = text.partition(":")
        line, _, _ = rest.partition(":")
        return (file, int(line) if line.isdecimal() else 0, text)

    return sorted(set(problems), key=key)
