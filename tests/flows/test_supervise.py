"""Restarts: what is a crash, what is a crash loop, what needs a person."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.errors import FatalError, RetryableError
from flows.supervise import BACKOFF_S_MAX, STEADY_S, End, Restart, RestartPolicy, said

ROOT = Path(__file__).parents[2]
PROGRAM = (
    "import sys, logging; from core.clock import SystemClock; from flows.supervise import supervise;"
    "sys.exit(supervise(sys.argv[1:], SystemClock()))"
)


def test_success_ends_it() -> None:
    assert RestartPolicy().ended(0, 1.0, 1.0) == End(0)


@pytest.mark.parametrize("code", [1, 2, FatalError.exit_code])
def test_what_needs_a_person_is_not_tried_again(code: int) -> None:
    verdict = RestartPolicy().ended(code, 1.0, 1.0)

    assert isinstance(verdict, End)
    assert verdict.code == code
    assert "person" in verdict.why


def test_backoff_doubles_and_begins_anew_after_a_steady_run() -> None:
    policy = RestartPolicy(crashes_max=1_000)

    waits = [policy.ended(-9, 1.0, float(n)) for n in range(8)]
    after = policy.ended(-9, STEADY_S, 100.0)

    assert waits == [Restart(s) for s in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, BACKOFF_S_MAX, BACKOFF_S_MAX)]
    assert after == Restart(1.0)


def test_a_crash_loop_ends_with_the_cause() -> None:
    policy = RestartPolicy(crashes_max=3, window_s=60.0)

    assert isinstance(policy.ended(-11, 1.0, 0.0), Restart)
    assert isinstance(policy.ended(-11, 1.0, 30.0), Restart)
    verdict = policy.ended(-11, 1.0, 59.0)

    assert verdict == End(FatalError.exit_code, "it crashed 3 times in 1 minutes, last by SIGSEGV")


def test_crashes_far_apart_are_no_loop() -> None:
    policy = RestartPolicy(crashes_max=2, window_s=60.0)

    assert all(isinstance(policy.ended(-9, 1.0, n * 61.0), Restart) for n in range(10))


def test_a_server_that_is_away_is_waited_for_without_end() -> None:
    policy = RestartPolicy(crashes_max=2)

    verdicts = [policy.ended(RetryableError.exit_code, 1.0, float(n)) for n in range(20)]

    assert all(isinstance(verdict, Restart) for verdict in verdicts)


def test_a_crash_behind_an_outage_is_one_crash() -> None:
    policy = RestartPolicy(crashes_max=3)

    for second in range(10):
        policy.ended(RetryableError.exit_code, 1.0, float(second))

    assert isinstance(policy.ended(-9, 1.0, 11.0), Restart)
    assert isinstance(policy.ended(-9, 1.0, 12.0), Restart)
    assert isinstance(policy.ended(-9, 1.0, 13.0), End)


def test_exit_codes_in_words() -> None:
    assert (said(-9), said(7), said(-63)) == ("by SIGKILL", "with exit code 7", "by signal 63")


def _start(*command: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_a_killed_child_is_started_again_and_sigterm_ends_both(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    child = f"import os, time; open({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n'); time.sleep(60)"
    supervisor = _start(sys.executable, "-c", child)
    try:
        first = _wait_for(pids, 1)[0]
        os.kill(first, signal.SIGKILL)
        second = _wait_for(pids, 2)[1]
        assert second != first
        supervisor.send_signal(signal.SIGTERM)
        output, _ = supervisor.communicate(timeout=20)
    finally:
        supervisor.kill()
    assert supervisor.returncode == 0, output
    assert "SIGKILL" in output
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)


def test_a_fatal_error_is_handed_on(tmp_path: Path) -> None:
    supervisor = _start(sys.executable, "-c", f"import sys; sys.exit({FatalError.exit_code})")
    output, _ = supervisor.communicate(timeout=20)

    assert supervisor.returncode == FatalError.exit_code
    assert "needs a person" in output


def _wait_for(path: Path, lines: int) -> list[int]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = path.read_text().split() if path.exists() else []
        if len(found) >= lines:
            return [int(pid) for pid in found]
        time.sleep(0.05)
    pytest.fail(f"{path} has not {lines} lines")


def test_the_supervisor_logs_as_the_settings_say(tmp_path: Path) -> None:
    own = {"METERBRIDGE_STATE_DIR": str(tmp_path), "METERBRIDGE_LOG__FORMAT": "json"}
    done = subprocess.run(
        [sys.executable, "-m", "cli", "post", "--supervise"],  # there is no ledger: that needs a person
        cwd=ROOT,
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    line = json.loads(done.stderr.splitlines()[-1])
    assert (line["event"], line["level"]) == ("The supervised command is not started again.", "error")
