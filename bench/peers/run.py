"""Runs the comparison: `python -m bench.peers.run`, which `make bench-peers` calls once the environments stand.

Every contestant works on the same events in a process of its own, one after the other, round by round. Rounds are
repeated until five are done or the time is used up. Results that are not those of the input fail the run. The result
goes to `bench/results/peers-*.json`, and `docs/benchmarks.md` is written again with it.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson

from bench import lines
from bench.figures import Figure, figure
from bench.machine import describe
from bench.peers import job_input
from bench.peers.answer import CORES, Answer, Sums, differences, from_output
from bench.peers.contestants import OWN, PEERS, ROOT, Contestant
from bench.report import PEERS_BENCH, peers_table
from bench.run import RESULTS, write_page

EVENTS: Final = 1_500_000
WARM_UP_EVENTS: Final = 100_000
ROUNDS: Final = 5
BUDGET_S: Final = 330
MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a file system in memory, so that no disk takes part


class OutOfTimeError(SystemExit):
    """A contestant did not end within the time of the whole comparison."""


def main(arguments: list[str] | None = None) -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers.run", description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="at most; fewer when the time is used up")
    parser.add_argument("--budget", type=int, default=BUDGET_S, help="seconds for everything")
    parser.add_argument("--only", choices=[one.environment for one in PEERS], action="append", help="this peer only")
    parser.add_argument("--no-store", action="store_true", help="print the figures, and store nothing")
    options = parser.parse_args(arguments)
    peers = tuple(one for one in PEERS if not options.only or one.environment in options.only)
    use_cores()
    result = run(peers, options.events, options.rounds, time.monotonic() + options.budget)
    if not options.no_store:
        stamp = result["began"].replace(":", "").replace("-", "")
        text = orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n"
        (RESULTS / f"peers-{stamp}.json").write_bytes(text)
        write_page()
    sys.stdout.write(peers_table(result))


def use_cores() -> None:
    """Leave two cores to this process and all that it starts."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def run(peers: Sequence[Contestant], events: int, rounds: int, deadline_s: float) -> dict[str, Any]:
    """Return the result: all contestants in turn, at least once, as long as the time lasts.

    :raises SystemExit: a contestant failed, took too long or came to other sums than the input has.
    """
    began, load = datetime.now(UTC), os.getloadavg()[0]
    answers: dict[str, list[Answer]] = {one.name: [] for one in (OWN, *peers)}
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="meterbridge-peers-") as directory:
        made = lines.make(events).lines
        expected = job_input.expected(made)
        for closing, name in ((False, "open"), (True, "closed")):
            job_input.write(made[:WARM_UP_EVENTS], Path(directory) / name / "warm-up", closing=closing)
            job_input.write(made, Path(directory) / name / "input", closing=closing)
        del made
        longest_s = 0.0
        for number in range(rounds):
            began_s = time.monotonic()
            if number and began_s + longest_s > deadline_s:
                break
            try:
                of_round = [job(one, Path(directory), deadline_s) for one in (OWN, *peers)]
            except OutOfTimeError:
                if number == 0:
                    raise
                break  # a round counts as a whole, because ratios are those within one
            for one, answer in zip((OWN, *peers), of_round, strict=True):
                check(one.name, expected, answer.sums)
                answers[one.name].append(answer)
                sys.stderr.write(f"round {number + 1}: {one.name} {events / answer.seconds:,.0f} events/s\n")
            longest_s = max(longest_s, time.monotonic() - began_s)
    return {
        "began": began.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "machine": describe(),
        "load_before": load,
        "events": events,
        "versions": {name: found[-1].version for name, found in answers.items()},
        "figures": [one.to_plain() for one in figures(events, answers)],
    }


def check(name: str, expected: Sums, got: Sums) -> None:
    """Stop where results differ: rates of jobs that do not do the same are not compared.

    :raises SystemExit: they differ.
    """
    found = differences(expected, got)
    if found:
        message = f"{name} does not agree with the input: {', '.join(found)}"
        raise SystemExit(message)


def figures(events: int, answers: dict[str, list[Answer]]) -> list[Figure]:
    """Return the rates, processor times and ratios, those pair by pair of a round."""
    found = []
    own = answers[OWN.name]
    for name, of_name in answers.items():
        rates = [events / one.seconds for one in of_name]
        found.append(figure(PEERS_BENCH, name, rates, "events/s"))
        cpu_us = [one.cpu_s / events * 1e6 for one in of_name]
        found.append(figure(PEERS_BENCH, f"{name}, processor time", cpu_us, "us/event"))
        if name != OWN.name:
            ratios = [theirs.seconds / ours.seconds for theirs, ours in zip(of_name, own, strict=True)]
            found.append(figure(PEERS_BENCH, f"{OWN.name} against {name}", ratios, "times"))
    return found


def job(one: Contestant, directory: Path, deadline_s: float) -> Answer:
    """Run one contestant in a session of its own, which is ended with everything in it when the time is up.

    :raises OutOfTimeError: it took too long.
    :raises SystemExit: it failed.
    """
    python = sys.executable if one.environment is None else str(one.venv() / "bin" / "python")
    if shutil.which(python) is None:
        message = f"{one.name}: no environment at {one.venv().name}; run make bench-peers"
        raise SystemExit(message)
    inputs = directory / ("closed" if one.closing else "open")
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [python, "-m", one.job, "--warm-up", str(inputs / "warm-up"), "--input", str(inputs / "input")],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | one.variables,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=max(1.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            message = f"{one.name} did not end within the time of the whole comparison (see --budget)"
            raise OutOfTimeError(message) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        errors.seek(0)
        if process.returncode:
            message = f"{one.name} failed with {process.returncode}:\n{errors.read()[-4000:]}"
            raise SystemExit(message)
    return from_output(output)


if __name__ == "__main__":
    main()
