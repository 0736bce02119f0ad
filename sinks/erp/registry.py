"""Adapters by name. A new adapter is one file, its options' model in `config.checks_erp`, and one line here."""

from collections.abc import Callable
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from config.entities import EntityErp
from config.erp_options import JournalOptions, TrytonOptions
from config.erp_rest import RestOptions
from config.problems import plain_errors
from config.settings import Settings
from core.errors import ConfigError
from sinks.erp.journal import JournalAdapter
from sinks.erp.port import ErpPort
from sinks.erp.rest import RestAdapter
from sinks.erp.tryton import TrytonAdapter
from sinks.erp.tryton_vanilla import TrytonVanillaAdapter

OptionsT = TypeVar("OptionsT", bound=BaseModel)
Factory = Callable[[Settings, EntityErp], ErpPort]


def _journal(settings: Settings, erp: EntityErp) -> ErpPort:
    _options(JournalOptions, erp)
    return JournalAdapter(settings.books_dir)


def _tryton(_settings: Settings, erp: EntityErp) -> ErpPort:
    return TrytonAdapter(_options(TrytonOptions, erp), erp.company)


def _tryton_vanilla(_settings: Settings, erp: EntityErp) -> ErpPort:
    return TrytonVanillaAdapter(_options(TrytonOptions, erp), erp.company)


def _rest(_settings: Settings, erp: EntityErp) -> ErpPort:
    return RestAdapter(_options(RestOptions, erp), erp.company)


def _options(model: type[OptionsT], erp: EntityErp) -> OptionsT:
    """Return the adapter's options; `config check` reports the same problems with file and line."""
    try:
        return model.model_validate(erp.options)
    except ValidationError as error:
        problems = [f"erp.options.{'.'.join(map(str, where))}: {text}" for where, text, _ in plain_errors(error)]
        raise ConfigError(problems) from error


FACTORIES: Final[dict[str, Factory]] = {
    "journal": _journal,
    "rest": _rest,
    "tryton": _tryton,
    "tryton-vanilla": _tryton_vanilla,
}


def create(settings: Settings, erp: EntityErp) -> ErpPort:
    """Return the adapter an entity names.

    :raises ConfigError: no adapter has that name.
    """
    factory = FACTORIES.get(erp.adapter)
    if factory is None:
        raise ConfigError([f"erp.adapter {erp.adapter!r} is unknown: use one of {', '.join(sorted(FACTORIES))}"])
    return factory(settings, erp)


class Adapters:
    """One adapter per entity's ERP, made when first needed; other options are another adapter."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made: dict[str, ErpPort] = {}

    def __call__(self, erp: EntityErp) -> ErpPort:
        """Return the entity's adapter."""
        key = erp.without_mappings().model_dump_json()
        if key not in self._made:
            self._made[key] = create(self._settings, erp)
        return self._made[key]
