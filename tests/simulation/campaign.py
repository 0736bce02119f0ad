"""The simulator: `python -m tests.simulation --seeds 10000`, or `--seed N` to run one again and see its steps.

Exit code 0 if everything held in every run. A failure names its seed and the command that runs exactly it again.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from concurrent.futures import Future, ProcessPoolExecutor, as_completed

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


def _many(arguments: argparse.Namespace) -> int:
    os.environ.setdefault("POLARS_MAX_THREADS", "1")  # for the processes: the frames are tiny
    began_s = time.monotonic()
    runs: Counter[str] = Counter()
    deaths: Counter[str] = Counter()
    steps = failures = 0
    ends = range(arguments.first, arguments.first + arguments.seeds, CHUNK_SEEDS)
    chunks = [(first, min(CHUNK_SEEDS, arguments.first + arguments.seeds - first)) for first in ends]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.jobs, mp_context=context) as pool:
        running: set[Future[list[Outcome]]] = {
            pool.submit(_chunk, first, count, arguments.world, arguments.mutation) for first, count in chunks
        }
        for done in as_completed(running):
            if done.cancelled():
                continue
            for outcome in done.result():
                runs[outcome.world] += 1
                deaths += outcome.deaths
                steps += outcome.steps
                if outcome.wrong:
                    failures += 1
                    sys.stdout.write(f"seed {outcome.seed} ({outcome.world}): {outcome.wrong[:500]}\n")
                    sys.stdout.write(f"  again: {outcome.replay}\n")
                    sys.stdout.flush()
            if failures >= FAILURES_MAX or time.monotonic() - began_s > arguments.seconds_max:
                pool.shutdown(wait=False, cancel_futures=True)  # what has begun still counts
    seconds = time.monotonic() - began_s
    total = sum(runs.values())
    shown = ", ".join(f"{name} {count}" for name, count in deaths.most_common(DEATHS_SHOWN))
    sys.stdout.write(
        f"{total} runs ({', '.join(f'{name} {count}' for name, count in sorted(runs.items()))}) in {seconds:.0f} s, "
        f"{total / seconds * 60:.0f} a minute; {steps} steps, {sum(deaths.values())} deaths (most at: {shown}); "
        f"{failures} runs in which something did not hold\n"
    )
    return bool(failures)
