"""Without its packages Tryton's environment fails and says why; what was done half is done again."""

import shutil
from pathlib import Path

import pytest

from core.errors import FatalError
from stack import tryton_environment
from stack.tryton_environment import HOME, LOCK_FILE, MODULE_FOLDER, fingerprint, prepare, python

ROOT = Path(__file__).resolve().parents[2]


def checkout(folder: Path) -> Path:
    """Return a checkout that needs a package that no index has."""
    shutil.copytree(ROOT / MODULE_FOLDER, folder / MODULE_FOLDER)
    (folder / LOCK_FILE).write_text("trytond==8.2.1 --hash=sha256:" + "0" * 64 + "\n")
    return folder


def test_packages_that_cannot_be_fetched_are_an_error_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # offline
    root = checkout(tmp_path)
    for _ in range(2):
        with pytest.raises(FatalError, match=f"could not be set up: installing {LOCK_FILE} failed"):
            prepare(root)
    assert not (root / HOME / "packages").exists()


def test_a_changed_module_is_installed_again_but_not_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(tryton_environment, "run", lambda _command, what, **_: done.append(what))
    root = checkout(tmp_path)
    prepare(root)
    prepare(root)
    before = fingerprint(root)
    (root / MODULE_FOLDER / "usage_external_id" / "move.py").write_text("# changed\n")
    assert fingerprint(root) != before
    prepare(root)
    assert done == [f"installing {LOCK_FILE}", f"installing {MODULE_FOLDER}", f"installing {MODULE_FOLDER}"]
    (root / LOCK_FILE).write_text("")
    prepare(root)
    assert done[3:] == [f"installing {LOCK_FILE}", f"installing {MODULE_FOLDER}"]
    assert python(root / HOME).exists()
