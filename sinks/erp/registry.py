"""Adapters by name. A new adapter is one file and one line here."""

from collections.abc import Callable
from typing import Final

from config.entities import EntityErp
from config.settings import Settings
from core.errors import ConfigError
from sinks.erp.journal import JournalAdapter
from sinks.erp.port import ErpPort

Factory = Callable[[Settings, EntityErp], ErpPort]


def _journal(settings: Settings, _erp: EntityErp) -> ErpPort:
    return JournalAdapter(settings.books_dir)


FACTORIES: Final[dict[str, Factory]] = {"journal": _journal}


def create(settings: Settings, erp: EntityErp) -> ErpPort:
    """Return the adapter an entity names.

    :raises ConfigError: no adapter has that name.
    """
    factory = FACTORIES.get(erp.adapter)
    if factory is None:
        raise ConfigError([f"erp.adapter {erp.adapter!r} is unknown: use one of {', '.join(sorted(FACTORIES))}"])
    return factory(settings, erp)


class Adapters:
    """One adapter per (name, company), made when first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made: dict[tuple[str, str], ErpPort] = {}

    def __call__(self, erp: EntityErp) -> ErpPort:
        """Return the entity's adapter."""
        key = (erp.adapter, erp.company)
        if key not in self._made:
            self._made[key] = create(self._settings, erp)
        return self._made[key]
