"""Reconciliation on a schedule beside the flow: `run` starts it, Prometheus and `status` show what it found.

The work is done by `meterbridge reconcile` as a process of its own, at lower priority: a thread inside the flow would
take the interpreter from it for seconds. The thread here only waits, so a slow or absent ClickHouse, or a run that
fails in any way, reaches the flow as a metric and a line in the log and not otherwise.

If the flow dies, the kernel ends the process that reconciles too; it only reads, so nothing is left behind.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from config.settings import ReconcileSettings
from core.clock import Clock
from core.metrics import (
    CONTROL_MISSING,
    RECONCILE_BREAKS,
    RECONCILE_FAILURES,
    RECONCILE_LAST_RUN,
    RECONCILE_LAST_SUCCESS,
    RECONCILE_SECONDS,
)
from flows.supervise import die_with_parent
from queries.reconcile_control import NAME as CONTROL_CHECK
from sinks import ledger
from sinks.ledger.exceptions import open_details, raise_exception, resolve

log = structlog.get_logger()

FILE: Final = "reconcile.json"
"""In the state directory: what the last run found, for `status`."""
BREAK: Final = "reconciliation_break"
"""Kind of the exceptions of identities that do not hold."""
_SINCE: Final = "since "
_LAST: Final = "9999"
_TIMES: Final = ("booked_hour", "minute", "from")
"""Where a break says when its group was booked. RFC 3339 in UTC: the order of texts is that of times."""
POLL_S: Final = 0.2
FIRST_AFTER_S: Final = 120.0
"""The flow has a start of its own to make; behind it the first run comes soon, so that a restart is looked at."""
IDENTITIES_MAX: Final = 200
"""Labels of the metric: one per identity and meter. More are counted under `others`."""
NICENESS: Final = 10
_ANSWERED: Final = (0, 1)
"""Exit codes with a report: everything holds, or something does not."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run came to: a report as `reconcile --json` prints it, or why there is none."""

    report: dict[str, Any] | None
    error: str = ""


Run = Callable[[threading.Event], Outcome | None]
"""Reconciles; None if it was stopped."""


class Schedule:
    """Runs reconciliation every so often until the flag is set. One object per flow."""

    def __init__(
        self,
        settings: ReconcileSettings,
        state_dir: Path,
        run: Run,
        clock: Clock,
        first_after_s: float = FIRST_AFTER_S,
        record: Callable[[dict[str, Any]], None] = lambda _report: None,
    ) -> None:
        self._every_s = settings.every_minutes * 60.0
        self._first_after_s = min(first_after_s, self._every_s)
        self._path = state_dir / FILE
        self._run = run
        self._record = record
        self._clock = clock
        self._shown: set[str] = set()

    def start(self, stop: threading.Event) -> threading.Thread | None:
        """Begin in a daemon thread; None if the settings turn it off."""
        if not self._every_s:
            return None
        thread = threading.Thread(target=self._loop, args=(stop,), name="reconcile", daemon=True)
        thread.start()
        return thread

    def _loop(self, stop: threading.Event) -> None:
        wait_s = self._first_after_s
        while not stop.wait(wait_s):
            try:
                self.once(stop)
            except Exception as error:  # whatever it is, it must not end the schedule
                log.warning("Reconciliation on schedule failed; it is tried again.", cause=repr(error))
            wait_s = self._every_s

    def once(self, stop: threading.Event) -> Outcome | None:
        """Reconcile once, and show what came of it."""
        began, began_s = self._clock.now(), self._clock.monotonic_s()
        RECONCILE_LAST_RUN.set(began.timestamp())
        outcome = self._run(stop)
        if outcome is None:
            return None
        seconds = self._clock.monotonic_s() - began_s
        RECONCILE_SECONDS.set(seconds)
        if outcome.report is None:
            RECONCILE_FAILURES.inc()
            log.warning("Reconciliation on schedule came to no result; it is tried again.", cause=outcome.error)
        else:
            RECONCILE_LAST_SUCCESS.set(self._clock.now().timestamp())
            self._show(outcome.report)
        self._keep(outcome, began, seconds)
        if outcome.report is not None:
            self._record(outcome.report)
        return outcome

    def _show(self, report: dict[str, Any]) -> None:
        broken = {check["name"]: int(check["broken"]) for check in report["checks"]}
        counted = dict.fromkeys(self._shown, 0)
        for place, (name, breaks) in enumerate(broken.items()):
            label = name if place < IDENTITIES_MAX else "others"
            counted[label] = counted.get(label, 0) + breaks
        for name, breaks in counted.items():
            RECONCILE_BREAKS.labels(name).set(breaks)
        self._shown = set(counted)
        CONTROL_MISSING.set(_missing_events(report["checks"]))
        for check in report["checks"]:
            if check["broken"]:
                log.error(
                    "Reconciliation found a difference.",
                    identity=check["name"],
                    groups=check["broken"],
                    likely_cause=check["breaks"][0]["likely_cause"] if check["breaks"] else "",
                )

    def _keep(self, outcome: Outcome, began: datetime, seconds: float) -> None:
        """Write the file for `status`; a reader sees the old one or the new one."""
        report = outcome.report
        plain: dict[str, Any] = {"began": began, "seconds": round(seconds, 1), "error": outcome.error}
        if report is not None:
            plain |= {
                "holds": report["holds"],
                "from": report["from"],
                "to": report["to"],
                "checks": len(report["checks"]),
                "broken": {check["name"]: check["broken"] for check in report["checks"] if check["broken"]},
            }
        unfinished = self._path.with_suffix(".json.new")
        unfinished.write_bytes(orjson.dumps(plain, option=orjson.OPT_INDENT_2))
        unfinished.replace(self._path)


def _missing_events(checks: list[dict[str, Any]]) -> int:
    """Return how many events sources say they sent that did not come, as far as breaks were kept."""
    differences = (
        int(found["difference"])
        for check in checks
        if check["name"] == CONTROL_CHECK
        for found in check["breaks"]
        if found["where"]["compared"] == "events"
    )
    return sum(difference for difference in differences if difference > 0)


def as_exceptions(ledger_url: str, clock: Clock) -> Callable[[dict[str, Any]], None]:
    """Return what makes an exception of each identity that does not hold, and resolves those that hold again.

    The window moves on: an identity holds again only where a run looked at all that differed, and did not find it. What
    left the window before that stays open until a person resolves it.
    """

    def record(report: dict[str, Any]) -> None:
        engine = ledger.connect(ledger_url)
        try:
            with ledger.write(engine) as connection:
                known = {name: _since(text) for name, text in open_details(connection, BREAK).items()}
                for check in report["checks"]:
                    name = check["name"]
                    if check["broken"]:
                        since = min(_earliest(check, report["from"]), known.get(name, _LAST))
                        likely = check["breaks"][0]["likely_cause"] if check["breaks"] else ""
                        detail = f"{name}: {check['broken']} groups differ, booked {_SINCE}{since}; likely: {likely}"
                        if since < known.get(name, _LAST):
                            resolve(connection, BREAK, [name], clock.now())  # an open one keeps its first detail
                        raise_exception(connection, BREAK, name, detail, clock.now())
                    elif report["from"] <= known.get(name, ""):
                        resolve(connection, BREAK, [name], clock.now())
        finally:
            engine.dispose()

    return record


def _earliest(check: dict[str, Any], begins: str) -> str:
    """Return from when on the groups differ; the window's beginning where they do not say it, or not all are named."""
    if len(check["breaks"]) < check["broken"]:
        return begins
    wheres = [found.get("where", {}) for found in check["breaks"]]
    times = [next((where[name] for name in _TIMES if name in where), begins) for where in wheres]
    return max(begins, min(time.replace(" ", "T") for time in times))


def _since(detail: str) -> str:
    """Return from when on an exception's groups differ, by its detail; "" for one that does not say it."""
    _, _, text = detail.partition(_SINCE)
    return text.partition(";")[0]


def last_result(state_dir: Path) -> dict[str, Any] | None:
    """Return what the last scheduled run left, None before the first."""
    try:
        return dict(orjson.loads((state_dir / FILE).read_bytes()))
    except FileNotFoundError:
        return None


def in_process(command: Sequence[str], seconds_max: float) -> Run:
    """Return a run that starts this command, which prints a report as JSON, and waits for it."""

    def run(stop: threading.Event) -> Outcome | None:
        child = subprocess.Popen(  # noqa: S603  # our own command line
            list(command),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=_beside_the_flow,  # noqa: PLW1509  # it only calls the kernel
        )
        with child:
            found: list[bytes] = []
            reader = threading.Thread(target=lambda: found.extend(child.communicate()), daemon=True)
            reader.start()
            waited_s = 0.0
            while reader.is_alive():
                reader.join(POLL_S)
                waited_s += POLL_S
                if stop.is_set() or waited_s > seconds_max:
                    child.kill()
                    reader.join()
            if stop.is_set():
                return None
            if waited_s > seconds_max:
                return Outcome(None, f"it took more than {seconds_max:.0f} s (METERBRIDGE_RECONCILE__SECONDS_MAX)")
            printed, said = found
            if child.returncode not in _ANSWERED or not printed.strip():
                return Outcome(None, _message(said) or f"exit code {child.returncode}")
            return Outcome(dict(orjson.loads(printed)))

    return run


def _message(said: bytes) -> str:
    """Return what a command said about its end: the message of its error as JSON, else its last words."""
    text = said.decode(errors="replace").strip()
    try:
        return str(orjson.loads(text)["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return text[-2000:]


def command_of(settings: ReconcileSettings, config: Path) -> list[str]:
    """Return the command line of a scheduled run."""
    window = ["--last-hours", str(settings.window_hours)]
    return [sys.executable, "-P", "-m", "cli", "--config", str(config), "reconcile", *window, "--json"]


def _beside_the_flow() -> None:
    die_with_parent()
    os.nice(NICENESS)
