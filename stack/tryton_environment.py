"""A Python environment of its own with a Tryton server and our module for external ids, for demos and tests.

Tryton and everything it needs are pinned with hashes in `requirements-tryton.lock`. They never enter the app's own
environment: the module is GPL-3.0-or-later, and the app talks to it over HTTP alone.
If it dies half way, the stamp of that step is missing and the next call does the step again.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from core.errors import FatalError

LOCK_FILE: Final = "requirements-tryton.lock"
MODULE_FOLDER: Final = Path("erp_modules/tryton")
HOME: Final = ".venv-tryton"
INSTALL_S_MAX: Final = 600
_OUTPUT_CHARACTERS_MAX: Final = 2_000


def fingerprint(root: Path) -> str:
    """Return a digest of everything the environment and the set-up of a company depend on."""
    digest = hashlib.sha256(sys.version.encode())
    files = [root / LOCK_FILE, *sorted((root / MODULE_FOLDER).rglob("*"))]
    for path in files:
        if path.is_file() and path.suffix in {".lock", ".py", ".xml", ".cfg", ".toml"}:
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for and hold a lock file, so that two processes never set up the same folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def run(command: Sequence[str], what: str, *, seconds_max: float, environment: dict[str, str] | None = None) -> None:
    """Run a step of the set-up.

    :raises FatalError: it failed; the message holds the end of its output.
    """
    try:
        subprocess.run(  # noqa: S603  # the command is built here, never from input
            list(command),
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds_max,
            env={**os.environ, **(environment or {})},
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as error:
        output = str(getattr(error, "output", "") or error)[-_OUTPUT_CHARACTERS_MAX:]
        message = f"Tryton could not be set up: {what} failed: {output}"
        raise FatalError(message) from error


def prepare(root: Path) -> Path:
    """Return the folder of the environment under `root`, made first if it is missing or out of date.

    :raises FatalError: a package could not be fetched or installed; the message says which step.
    """
    home = root / HOME
    packages, module = home / "packages", home / "module"
    with locked(root / f"{HOME}.lock"):
        pip = [str(python(home)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        wanted = hashlib.sha256(sys.version.encode() + (root / LOCK_FILE).read_bytes()).hexdigest()
        if not _says(packages, wanted):
            shutil.rmtree(home, ignore_errors=True)
            venv.create(home, with_pip=True)
            requirements = ["--require-hashes", "-r", str(root / LOCK_FILE)]
            run([*pip, *requirements], f"installing {LOCK_FILE}", seconds_max=INSTALL_S_MAX)
            packages.write_text(wanted)
        wanted = fingerprint(root)
        if not _says(module, wanted):
            module.unlink(missing_ok=True)
            with tempfile.TemporaryDirectory() as folder:  # building writes beside the sources
                copy = Path(folder) / "module"
                shutil.copytree(root / MODULE_FOLDER, copy)
                options = ["--no-deps", "--no-build-isolation", "--force-reinstall", str(copy)]
                run([*pip, *options], f"installing {MODULE_FOLDER}", seconds_max=INSTALL_S_MAX)
            module.write_text(wanted)
    return home


def _says(stamp: Path, wanted: str) -> bool:
    """Tell whether a step was done, and for these very inputs."""
    return stamp.exists() and stamp.read_text() == wanted


def python(home: Path) -> Path:
    """Return the environment's interpreter."""
    return home / "bin" / "python"
