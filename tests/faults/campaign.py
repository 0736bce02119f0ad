"""The kill campaign: `python -m tests.faults.campaign --seeds 200`.

Each seed is a run of real processes (Valkey, ClickHouse, flow, poster) in which some of them are killed with SIGKILL:
at a random moment, or at a fault point; while starting, inside a snapshot, between flush and commit, twice in a row.
Then everything is started once more and must equal a batch oracle computed from the streams alone.
"""

import argparse
import random
import shutil
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core import faults
from tests.faults.world import PROCESSES, SERVERS, World

EVENTS_HISTORY = 6_000
EVENTS_LIVE = 1_500
KILLS = 5
_HITS_MAX = 6


@dataclass
class Outcome:
    """What happened in one run."""

    seed: int
    seconds: float = 0.0
    deaths: Counter[str] = field(default_factory=Counter)
    steps: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def run_seed(seed: int, directory: Path) -> Outcome:
    """Run one seed; the steps depend on the seed, their exact moments on the machine."""
    chance = random.Random(seed)
    outcome = Outcome(seed)
    began_s = time.monotonic()
    world = World(directory, seed, (_free_port(), _free_port()))
    try:
        world.start(EVENTS_HISTORY)
        live = world.send_live(EVENTS_LIVE)
        for _ in range(KILLS):
            _step(world, chance, outcome)
        live.join(timeout=120)
        world.settle()
        outcome.wrong = world.check()
    except AssertionError as error:
        outcome.wrong.append(str(error))
    finally:
        world.close()
        outcome.deaths = world.deaths
        outcome.seconds = time.monotonic() - began_s
    return outcome


def _step(world: World, chance: random.Random, outcome: Outcome) -> None:
    """Start what is down, perhaps with a fault point armed, wait a moment, and kill somebody, perhaps twice."""
    world.start_servers()
    armed = {name: _point(chance, name) if chance.random() < 0.5 else "" for name in PROCESSES}
    for name in PROCESSES:
        world.ensure(name, armed[name])
    outcome.steps.extend(f"{name} dies at {point}" for name, point in armed.items() if point)
    time.sleep(chance.uniform(0.1, 3.0))
    victim = chance.choice((*PROCESSES, *PROCESSES, *SERVERS))
    outcome.steps.append(f"kill {victim}")
    world.kill(victim)
    if victim in PROCESSES and chance.random() < 0.3:
        outcome.steps.append(f"kill {victim} while it starts")
        world.ensure(victim)
        time.sleep(chance.uniform(0.05, 1.2))
        world.kill(victim)
    if victim in SERVERS:
        time.sleep(chance.uniform(0.0, 1.0))


def _point(chance: random.Random, process: str) -> str:
    ours = [name for name in faults.POINTS if name.startswith(("poster.", "books.")) == (process == "poster")]
    return f"{chance.choice(ours)}:{chance.randint(1, _HITS_MAX)}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def report(outcomes: Sequence[Outcome]) -> str:
    """Return the result as the part of a page."""
    deaths: Counter[str] = Counter()
    for outcome in outcomes:
        deaths += outcome.deaths
    broken = [outcome for outcome in outcomes if outcome.wrong]
    lines = [
        f"Seeds {outcomes[0].seed} to {outcomes[-1].seed}: {len(outcomes)} runs,"
        f" {sum(outcome.seconds for outcome in outcomes) / 60:.0f} minutes, {sum(deaths.values())} deaths of a process"
        f" ({', '.join(f'{name}: {count}' for name, count in sorted(deaths.items()))}).",
        "",
        f"Runs in which something was not equal at the end: {len(broken)}.",
        "",
    ]
    lines += [f"- seed {outcome.seed}: {'; '.join(outcome.wrong)[:300]}" for outcome in broken]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Run seeds one after the other and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seconds-max", type=float, default=7_200.0, help="begin no further seed after this")
    parser.add_argument("--output", type=Path, help="write the summary here")
    arguments = parser.parse_args()
    began_s = time.monotonic()
    outcomes = []
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        if time.monotonic() - began_s > arguments.seconds_max:
            break
        directory = Path(tempfile.mkdtemp(prefix=f"meterbridge-kill-{seed}-"))
        outcome = run_seed(seed, directory)
        outcomes.append(outcome)
        said = "equal" if not outcome.wrong else f"WRONG: {outcome.wrong}; kept in {directory}"
        sys.stdout.write(f"seed {seed}: {said} ({outcome.seconds:.0f} s; {'; '.join(outcome.steps)})\n")
        sys.stdout.flush()
        if not outcome.wrong:
            shutil.rmtree(directory, ignore_errors=True)
    text = report(outcomes)
    sys.stdout.write(text)
    if arguments.output:
        arguments.output.write_text(text)
    sys.exit(any(outcome.wrong for outcome in outcomes))


if __name__ == "__main__":
    main()
