import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core.directory_lock import DirectoryLock
from core.errors import FatalError, LockHeld

HOLD = """
import sys, time
from pathlib import Path
from core.directory_lock import DirectoryLock
lock = DirectoryLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_lock_is_refused_and_names_the_process(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path / "lock"), pytest.raises(LockHeld, match=f"process {os.getpid()}.*stop that"):
        DirectoryLock(tmp_path / "lock")


def test_release_lets_the_next_one_in(tmp_path: Path) -> None:
    first = DirectoryLock(tmp_path / "lock")
    first.release()
    first.release()
    with DirectoryLock(tmp_path / "lock"):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_forgotten_lock_is_given_up(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path / "lock")
    del lock
    with DirectoryLock(tmp_path / "lock"):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_another_process_holds_it_until_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LockHeld, match=f"process {holder.pid}"):
            DirectoryLock(path)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate(timeout=10)
    DirectoryLock(path).release()


def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FatalError, match=r"cannot open the lock file .*absent"):
        DirectoryLock(tmp_path / "absent" / "lock")
