"""What each ERP adapter is told in `erp.options`. Secrets are only named here, never written.

The options are part of the journaled revision, so that a password in them would be stored for ever: a credential
names an environment variable or a file instead.
"""

import os
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, SecretStr, model_validator

from config.base import Model
from core.errors import ConfigError

SECRET_BYTES_MAX: Final = 16_384


def _http_url(value: str) -> str:
    """Accept an absolute http(s) URL without user, password, query or fragment."""
    scheme, _, rest = value.partition("://")
    if scheme not in {"http", "https"} or not rest.strip("/"):
        message = "must be a URL such as https://erp.example.com"
        raise ValueError(message)
    if any(mark in rest for mark in "@?#"):
        message = "must not hold a user, a password, a query or a fragment"
        raise ValueError(message)
    return value.rstrip("/")


HttpUrl = Annotated[str, AfterValidator(_http_url)]
Timeout = Annotated[float, Field(gt=0, le=900)]


class Credential(Model):
    """Where a secret is: in an environment variable, or in a file, which is read anew for every call."""

    environment: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    file: Path | None = None

    @model_validator(mode="after")
    def _one(self) -> "Credential":
        if (self.environment is None) == (self.file is None):
            message = "name either `environment` (a variable) or `file` (a path), one of them"
            raise ValueError(message)
        return self

    def read(self) -> SecretStr:
        """Return the secret as it is now.

        :raises ConfigError: the variable is not set, or the file cannot be read or is empty.
        """
        if self.environment is not None:
            where, text = f"the environment variable {self.environment}", os.environ.get(self.environment, "")
        else:
            where, text = f"the file {self.file}", self._from_file()
        if not text.strip():
            raise ConfigError([f"the ERP credential is empty: set {where}"])
        return SecretStr(text.strip())

    def _from_file(self) -> str:
        try:
            with (self.file or Path()).open(encoding="utf-8") as file:
                return file.read(SECRET_BYTES_MAX)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError([f"the ERP credential in {self.file} cannot be read: {error}"]) from error


class JournalOptions(Model):
    """The journal adapter has none; its directory is the setting `poster.journal_directory`."""


class TrytonOptions(Model):
    """A Tryton server (8.2) with our module `usage_external_id`, or without it for `tryton-vanilla`."""

    url: HttpUrl
    database: str = Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9_-]+$")
    credential: Credential
    """The key of the integration user's REST application."""
    journal: str = Field(default="REV", min_length=1, max_length=64)
    """Code of the accounting journal the entries go to."""
    timeout_s: Timeout = 60.0
    batch_documents: int = Field(default=100, ge=1, le=1000)
    """50 to 100 are the fastest; one call is one transaction."""
    required_dimensions: tuple[str, ...] = ()
    """Dimensions every line must have; a posting without one is held."""
    taxes: dict[str, str | None] = Field(default_factory=dict)
    """Tax category of an invoice's line to the name of Tryton's tax, where `erp.mappings.taxes` is not used."""
    settle_window_s: float = Field(default=60.0, ge=0)
    """For `tryton-vanilla`: how long a request whose answer was lost may still take effect."""


class RestAuth(Model):
    """How a request proves who we are."""

    kind: Literal["none", "bearer", "basic", "header"] = "bearer"
    username: str = ""
    """For `basic`."""
    header: str = Field(default="Authorization", pattern=r"^[A-Za-z0-9-]+$")
    """For `header`: its name; the value is the secret."""
    credential: Credential | None = None

    @model_validator(mode="after")
    def _complete(self) -> "RestAuth":
        if (self.kind == "none") != (self.credential is None):
            message = "needs a `credential`, unless its kind is none"
            raise ValueError(message)
        if self.kind == "basic" and not self.username:
            message = "needs a `username` for kind basic"
            raise ValueError(message)
        return self
