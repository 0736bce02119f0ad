"""Structured logs on standard error: sentences with fields, times in UTC, secrets hidden.

Standard output belongs to a command's result. Level by what an operator has to do: ERROR means act now, WARNING
look today, INFO nothing.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final, Literal, TextIO

import structlog

_SECRET_NAMES: Final = re.compile(r"password|secret|api_?key|authorization|credential", re.IGNORECASE)
_URL_PASSWORD: Final = re.compile(r"(?P<head>[a-z][a-z0-9+.-]*://[^:/@\s]*:)[^@/\s]+(?=@)", re.IGNORECASE)
_VALUE_CHARACTERS_MAX: Final = 4096
_TRACEBACK_CHARACTERS_MAX: Final = 65_536
_SILENT: Final = ("clickhouse_connect", "urllib3")
"""Libraries that log what they also raise; the error that is made of it says more."""

EventDict = MutableMapping[str, Any]


def without_password(text: str) -> str:
    """Return the text with passwords inside URLs replaced by `***`."""
    return _URL_PASSWORD.sub(r"\g<head>***", text)


def _redact(_logger: Any, _method: str, event: EventDict) -> EventDict:
    for name, value in event.items():
        if _SECRET_NAMES.search(name):
            event[name] = "***"
        elif isinstance(value, str):
            text = without_password(value)
            limit = _TRACEBACK_CHARACTERS_MAX if name == "exception" else _VALUE_CHARACTERS_MAX
            event[name] = text if len(text) <= limit else text[:limit] + "..."
    return event


class _Stderr:
    """Writes to whatever standard error is at that moment."""

    def _stream(self) -> TextIO:
        return sys.stderr

    def write(self, text: str) -> int:
        return self._stream().write(text)

    def flush(self) -> None:
        self._stream().flush()

    def isatty(self) -> bool:
        return self._stream().isatty()


def configure(
    format: Literal["console", "json"] = "console",  # noqa: A002  # the setting's name
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO",
) -> None:
    """Set up structlog and the standard library's root logger alike; calling it again replaces the set-up."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,  # before the redaction, so that it covers tracebacks
        _redact,
    ]
    stream = _Stderr()
    renderers: list[structlog.typing.Processor]
    if format == "json":
        renderers = [structlog.processors.JSONRenderer(sort_keys=True)]
    else:
        # A plain traceback: the renderer's own shows local variables, and those hold credentials.
        plain = structlog.dev.plain_traceback
        renderers = [structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain)]
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level)),
        logger_factory=structlog.WriteLoggerFactory(stream),  # type: ignore[arg-type]  # it only writes
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    if level != "DEBUG":
        handler.addFilter(lambda record: not record.name.startswith(_SILENT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(getattr(logging, level), logging.WARNING))


def get_logger(name: str) -> Any:
    """Return a logger; `name` says which part speaks, for example `flow` or `poster`."""
    return structlog.get_logger(part=name)
