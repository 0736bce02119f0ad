"""Plans from a file of their own, laid over a recorded configuration: what `whatif` rates with.

The file has the section `plans`, and may have `customers`, to give contracts another plan or other overrides. Both
replace the recorded elements of the same id; all others stay.
"""

from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from config.checks import check
from config.customers import Customer
from config.plans import Plan
from config.problems import from_validation, problem
from config.revision import Configuration
from config.yaml_source import Source, read
from core.errors import ConfigError

_SECTIONS: Final = ("plans", "customers")
ElementT = TypeVar("ElementT", Plan, Customer)


def with_plans(recorded: Configuration, path: Path) -> Configuration:
    """Return the recorded configuration with the file's plans (and customers) in place of its own.

    The result is checked as a whole, apart from the rule that versions in force are never edited: asking what
    another price would have come to is the point. Raises ConfigError with all problems.
    """
    source = read(path)
    problems = list(source.problems)
    for name in source.values:
        if name not in _SECTIONS:
            hint = "this file holds plans and, if need be, customers; everything else is as recorded"
            problems.append(problem(source.where((name,)), name, "does not belong here", hint))
    plans = _elements(source, "plans", Plan, problems)
    customers = _elements(source, "customers", Customer, problems)
    if not plans and not customers and not problems:
        problems.append(problem(str(path), "", "holds no plans", "begin with `plans:` and a list of plans"))
    if problems:
        raise ConfigError(problems)
    changed = recorded.model_copy(
        update={
            "plans": _laid_over(recorded.plans, plans),
            "customers": _laid_over(recorded.customers, customers),
            # The file's prices are asked about, not those that replaced them.
            "price_corrections": tuple(
                one for one in recorded.price_corrections if one.plan not in {plan.id for plan in plans}
            ),
        }
    )
    for finding in check(changed):
        if not finding.is_warning:
            problems.append(problem(str(path), _name(finding.location, changed), finding.message, finding.hint))
    if problems:
        raise ConfigError(problems)
    return changed


def plans_of(path: Path) -> list[Plan]:
    """Return the plans of a file, as they are written. Raises ConfigError with all problems of theirs."""
    source = read(path)
    problems = list(source.problems)
    plans = _elements(source, "plans", Plan, problems)
    if problems:
        raise ConfigError(problems)
    return plans


def _elements(source: Source, section: str, model: type[ElementT], problems: list[str]) -> list[ElementT]:
    value = source.values.get(section)
    if value is None:
        return []
    if not isinstance(value, list):
        problems.append(problem(source.where((section,)), section, "must be a list", "begin each element with `- id:`"))
        return []
    found = []
    for index, element in enumerate(value):
        try:
            found.append(model.model_validate(element))
        except ValidationError as error:
            problems += from_validation(error, source, (section, index))
    return found


def _laid_over(recorded: tuple[ElementT, ...], changed: list[ElementT]) -> tuple[ElementT, ...]:
    """Return the recorded elements, those of the same id replaced, new ones behind them."""
    by_id = {element.id: element for element in recorded} | {element.id: element for element in changed}
    return tuple(by_id.values())


def _name(location: tuple[str | int, ...], configuration: Configuration) -> str:
    """Return the place for people: elements of the sections by their id."""
    text, value = "", configuration.model_dump(by_alias=True)
    node: Any = value
    for part in location:
        try:
            node = node[part]
        except (KeyError, IndexError, TypeError):
            node = None
        if isinstance(part, int):
            label = node.get("id", part) if isinstance(node, dict) else part
            text += f"[{label}]"
        else:
            text += f".{part}" if text else part
    return text
