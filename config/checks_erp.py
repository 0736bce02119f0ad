"""Checks of an entity's ERP: the adapter's name and its options, by the adapter's own model."""

from collections.abc import Iterator, Mapping
from typing import Final

from pydantic import BaseModel, ValidationError

from config.checks import Finding
from config.entities import EntityErp
from config.erp_options import JournalOptions, TrytonOptions
from config.erp_rest import RestOptions
from config.problems import plain_errors
from config.yaml_source import Location

OPTIONS: Final[Mapping[str, type[BaseModel]]] = {
    "journal": JournalOptions,
    "tryton": TrytonOptions,
    "tryton-vanilla": TrytonOptions,
    "rest": RestOptions,
}
"""The options' model of each adapter."""


def erp(found: EntityErp, base: Location) -> Iterator[Finding]:
    """Report an unknown adapter, and everything that is wrong with its options."""
    model = OPTIONS.get(found.adapter)
    if model is None:
        message = f"unknown adapter {found.adapter!r}"
        yield Finding((*base, "adapter"), message, f"use one of {', '.join(sorted(OPTIONS))}")
        return
    try:
        model.model_validate(found.options)
    except ValidationError as error:
        for location, text, hint in plain_errors(error):
            yield Finding((*base, "options", *location), text, hint)
