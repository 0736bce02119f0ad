"""What every command gets: settings, configuration, where to print, and whether a machine reads."""

from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from config.revision import Configuration
    from config.settings import Settings


@dataclass
class Context:
    """The state of one call of the command line."""

    config: Path | None = None
    """The value of `--config`; None if not given."""
    json: bool = False
    """Print JSON for machines on standard output, nothing else."""
    console: Console = field(default_factory=Console)
    """Standard output, for results."""
    error_console: Console = field(default_factory=lambda: Console(stderr=True))
    """Standard error, for progress and notes."""

    @cached_property
    def config_path(self) -> Path:
        """Return `--config`, else METERBRIDGE_CONFIG_FILE, else `config/meterbridge.yaml`, else the shipped one."""
        from config import environment  # noqa: PLC0415  # keeps `--help` fast

        named = self.config or environment.config_file()
        if named is not None:
            return Path(named)
        here = Path("config/meterbridge.yaml")
        shipped = Path(environment.__file__).with_name("meterbridge.yaml")
        return here if here.exists() else shipped

    @cached_property
    def settings(self) -> "Settings":
        """Return the settings and set up logging by them. Raises ConfigError with all problems."""
        from config.loader import load_settings  # noqa: PLC0415
        from core.logging import configure  # noqa: PLC0415

        settings = load_settings(self.config_path)
        configure(settings.log.format, settings.log.level)
        return settings

    def configuration(self) -> "Configuration":
        """Return the checked configuration of the files. Raises ConfigError with all problems.

        What is in force is the journal in the ledger; this is what `migrate` and `run` would add to it.
        """
        from config.loader import load  # noqa: PLC0415

        return load(self.config_path)

    @property
    def shows_progress(self) -> bool:
        """Tell whether a person watches standard error."""
        return self.error_console.is_terminal and not self.json


_current: ContextVar[Context | None] = ContextVar("meterbridge_cli", default=None)


def context() -> Context:
    """Return the context of the running command; outside a command a new one with the defaults."""
    found = _current.get()
    if found is None:
        found = Context()
        _current.set(found)
    return found


def start(new: Context) -> None:
    """Make that context the current one."""
    _current.set(new)
