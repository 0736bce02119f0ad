"""Compares two commits in one run: `python -m bench.compare --base COMMIT`, which `make bench-compare BASE=...` calls.

Each commit is checked out into a worktree of its own; the same benches run in turn, base and present, in processes of
their own, so that what else the machine does meets both. The medians of all figures are compared; the run fails if
one is worse by more than the threshold. Processor time and ratios are the figures to trust on a busy machine: there,
`--only-processor-time` looks at no others.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import orjson

from bench.figures import Figure, from_plain
from bench.report import number
from bench.run import BENCHES, ROOT, SECONDS_MAX

DEFAULT_BENCHES: Final = ("decode", "dedupe", "book", "engine")
HIGHER_IS_BETTER: Final = ("/s", "times")
"""Ends of the units of which more is better; of all others, such as us/event, ms and MiB, less is."""
PROCESSOR_TIME: Final = "processor time"

Key = tuple[str, str]
"""Bench and case."""


@dataclass(frozen=True, slots=True)
class Change:
    """One figure in both commits. `better` is the relative change for the better, negative for the worse."""

    key: Key
    unit: str
    base: float
    present: float
    better: float


def changes(base: list[list[Figure]], present: list[list[Figure]]) -> list[Change]:
    """Return the change of every case that both commits measure, from the figures of each round."""
    base_values, present_values = _by_case(base), _by_case(present)
    units = {(one.bench, one.case): one.unit for one in present[0]}
    found = []
    for key, unit in units.items():
        if key not in base_values:
            continue
        before, after = median(base_values[key]), median(present_values[key])
        if min(before, after) <= 0:
            continue
        ratio = after / before if unit.endswith(HIGHER_IS_BETTER) else before / after
        found.append(Change(key, unit, before, after, ratio - 1))
    return found


def _by_case(rounds: list[list[Figure]]) -> dict[Key, list[float]]:
    values: dict[Key, list[float]] = {}
    for figures in rounds:
        for one in figures:
            values.setdefault((one.bench, one.case), []).append(one.value)
    return values


def table(found: list[Change], threshold: float) -> str:
    """Return the comparison as text, what became worse marked."""
    lines = ["| case | base | present | unit | change |", "|---|---|---|---|---|"]
    for one in found:
        mark = " **worse**" if one.better < -threshold else ""
        name = ": ".join(one.key)
        lines.append(f"| {name} | {number(one.base)} | {number(one.present)} | {one.unit} | {one.better:+.0%}{mark} |")
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """Check a commit out into a directory that is removed again.

    :raises SystemExit: there is no such commit.
    """
    with tempfile.TemporaryDirectory(prefix="meterbridge-base-") as directory:
        path = Path(directory) / "tree"
        done = subprocess.run(
            ["git", "worktree", "add", "--detach", str(path), commit],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            message = f"cannot check out {commit}: {done.stderr.strip()}; name a commit of this repository"
            raise SystemExit(message)
        try:
            yield path
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(path)], cwd=ROOT, check=False)


def measure(tree: Path, bench: str, *, quick: bool) -> list[Figure]:
    """Run one bench of a checked-out commit.

    :raises SystemExit: it failed.
    """
    with tempfile.TemporaryDirectory(prefix="meterbridge-bench-") as directory:
        into = Path(directory) / "figures.json"
        command = [sys.executable, "-m", "bench.run", "--only", bench, "--into", str(into)]
        done = subprocess.run(
            [*command, *(["--quick"] if quick else [])],
            cwd=tree,
            env=os.environ | {"PYTHONPATH": str(tree)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        if done.returncode:
            message = f"the bench {bench} failed in {tree}:\n{done.stderr[-4000:]}"
            raise SystemExit(message)
        return from_plain(orjson.loads(into.read_bytes()))


def main(arguments: list[str] | None = None) -> None:
    """Compare, print the table, and fail if something became worse."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.add_argument("--base", required=True, help="commit to compare with, such as main~5")
    parser.add_argument("--only", choices=BENCHES, action="append", help="this bench only; may be repeated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--full", action="store_true", help="full sizes; each round takes minutes")
    parser.add_argument("--threshold", type=float, default=10.0, help="per cent by which a figure may be worse")
    parser.add_argument("--only-processor-time", action="store_true", help="compare no wall times")
    options = parser.parse_args(arguments)
    base: list[list[Figure]] = []
    present: list[list[Figure]] = []
    with worktree(options.base) as tree:
        for number_of_round in range(options.rounds):
            sys.stderr.write(f"round {number_of_round + 1} of {options.rounds}\n")
            for path, rounds in ((tree, base), (ROOT, present)):
                figures: list[Figure] = []
                for bench in options.only or DEFAULT_BENCHES:
                    figures += measure(path, bench, quick=not options.full)
                rounds.append(figures)
    found = changes(base, present)
    if options.only_processor_time:
        found = [one for one in found if PROCESSOR_TIME in one.key[1]]
    sys.stdout.write(table(found, options.threshold / 100))
    if any(one.better < -options.threshold / 100 for one in found):
        message = f"worse than {options.base} by more than {options.threshold:g} %"
        raise SystemExit(message)


if __name__ == "__main__":
    main()
