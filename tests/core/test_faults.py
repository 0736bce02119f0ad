import signal
import subprocess
import sys

import pytest

from core import faults
from core.errors import InvalidRequest


def _run(setting: str, environment: str = "development") -> "subprocess.CompletedProcess[str]":
    program = (
        "from core import faults\n"
        f"faults.arm({setting!r}, {environment!r})\n"
        "for number in range(1, 4):\n"
        "    print(number, flush=True)\n"
        "    faults.reach('log.sync')\n"
        "    faults.reach('source.read')\n"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("setting", "printed"), [("log.sync", "1"), ("source.read:2", "1\n2"), ("log.sync:3", "1\n2\n3")]
)
def test_an_armed_point_kills_the_process_at_the_nth_time(setting: str, printed: str) -> None:
    done = _run(setting)

    assert done.returncode == -signal.SIGKILL
    assert done.stdout.strip() == printed


@pytest.mark.parametrize("setting", ["", "log.sync:4", "outbox.stage"])
def test_a_point_that_is_not_armed_or_not_due_does_nothing(setting: str) -> None:
    done = _run(setting)

    assert done.returncode == 0
    assert done.stdout.split() == ["1", "2", "3"]


def test_production_refuses_fault_points() -> None:
    with pytest.raises(InvalidRequest, match="would kill a production process"):
        faults.arm("log.sync", "production")


@pytest.mark.parametrize("setting", ["log.synk", "log.sync:0", "log.sync:x", "log.sync:-1"])
def test_a_wrong_point_is_refused_with_the_list(setting: str) -> None:
    with pytest.raises(InvalidRequest, match=r"source\.read"):
        faults.arm(setting, "development")
