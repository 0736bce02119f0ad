"""The simulator: `python -m tests.simulation --seeds 10000`, or `--seed N` to run one again and see its steps.

Exit code 0 if everything held in every run. A failure names its seed and the command that runs exactly it again.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice

from tests.simulation.run import WORLDS, Outcome, run_seed

CHUNK_SEEDS = 20
FAILURES_MAX = 20
DEATHS_SHOWN = 12


def main() -> None:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one and print its steps")
    parser.add_argument("--seeds", type=int, default=1000, help="how many to run (default 1000)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default 0)")
    parser.add_argument("--world", choices=sorted(WORLDS), default="", help="default: each seed has its own")
    parser.add_argument("--mutation", default="", help="put a defect of tests/simulation/mutations.py into the product")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    parser.add_argument("--seconds-max", type=float, default=86_400.0, help="begin nothing new after this")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        sys.exit(_one(arguments.seed, arguments.world, arguments.mutation))
    sys.exit(_many(arguments))


def _one(seed: int, world: str, mutation: str) -> int:
    outcome = run_seed(seed, world, mutation)
    for line in outcome.trace:
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"seed {seed} ({outcome.world}): {outcome.wrong or 'everything held'}\n")
    return bool(outcome.wrong)


def _chunk(first: int, count: int, world: str, mutation: str) -> list[Outcome]:
    outcomes = [run_seed(seed, world, mutation) for seed in range(first, first + count)]
    for outcome in outcomes:
        outcome.trace = []
    return outcomes


class _Tally:
    """What all runs came to."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self.deaths: Counter[str] = Counter()
        self.steps = 0
        self.failures = 0

    def add(self, outcome: Outcome) -> None:
        """Count a run, and say at once what did not hold in it."""
        self.runs[outcome.world] += 1
        self.deaths += outcome.deaths
        self.steps += outcome.steps
        if outcome.wrong:
            self.failures += 1
            sys.stdout.write(f"seed {outcome.seed} ({outcome.world}): {outcome.wrong[:500]}\n  {outcome.replay}\n")
            sys.stdout.flush()

    def report(self, seconds: float) -> str:
        """Return the summary."""
        total = sum(self.runs.values())
        shown = ", ".join(f"{name} {count}" for name, count in self.deaths.most_common(DEATHS_SHOWN))
        return (
            f"{total} runs ({', '.join(f'{name} {count}' for name, count in sorted(self.runs.items()))}) in"
            f" {seconds:.0f} s, {total / seconds * 60:.0f} a minute; {self.steps} steps, {self.deaths.total()} deaths"
            f" (most at: {shown}); {self.failures} runs in which something did not hold\n"
        )


def _many(arguments: argparse.Namespace) -> int:
    os.environ.setdefault("POLARS_MAX_THREADS", "1")  # for the processes: the frames are tiny
    began_s = time.monotonic()
    tally = _Tally()
    end = arguments.first + arguments.seeds
    chunks = iter([(first, min(CHUNK_SEEDS, end - first)) for first in range(arguments.first, end, CHUNK_SEEDS)])
    with ProcessPoolExecutor(arguments.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        running: set[Future[list[Outcome]]] = set()
        while True:
            goes_on = tally.failures < FAILURES_MAX and time.monotonic() - began_s < arguments.seconds_max
            for first, count in islice(chunks, arguments.jobs + 1 - len(running) if goes_on else 0):
                running.add(pool.submit(_chunk, first, count, arguments.world, arguments.mutation))
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for one in done:
                for outcome in one.result():
                    tally.add(outcome)
    sys.stdout.write(tally.report(time.monotonic() - began_s))
    return bool(tally.failures)
