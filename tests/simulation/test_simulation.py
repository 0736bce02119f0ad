"""A bounded number of simulated runs, the proof that they can fail, and seeds that once did."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.simulation.fate import Fate
from tests.simulation.flow_world import FlowWorld
from tests.simulation.mutations import MUTATIONS, WORLD_OF
from tests.simulation.run import WORLDS, run_seed, world_of

SEEDS = {"log": 250, "reader": 250, "posting": 25, "flow": 8}
"""About twenty seconds in all on an idle machine; `make simulate-faults` runs thousands."""
SEEDS_UNTIL_CAUGHT = {"log": 60, "reader": 60, "posting": 80, "flow": 25}


@pytest.mark.parametrize("world", WORLDS)
def test_everything_holds_whatever_fails(world: str) -> None:
    deaths = 0
    for seed in range(SEEDS[world]):
        outcome = run_seed(seed, world)
        assert not outcome.wrong, f"{outcome.wrong}\n{outcome.replay}"
        deaths += sum(outcome.deaths.values())
    assert deaths > SEEDS[world] / 2, "a simulation in which nothing dies proves nothing"


@pytest.mark.parametrize("mutation", [name for name in MUTATIONS if name])
def test_a_broken_rule_is_caught_within_few_seeds(mutation: str) -> None:
    world = WORLD_OF[mutation]
    caught = (run_seed(seed, world, mutation).wrong for seed in range(1, 1 + SEEDS_UNTIL_CAUGHT[world]))
    assert any(caught), f"nobody noticed {mutation}"


@pytest.mark.parametrize("seed", [11, 20])
def test_a_seed_replays_exactly(seed: int) -> None:
    """In another process, where the interpreter orders its sets otherwise."""
    here = run_seed(seed)
    command = [sys.executable, "-m", "tests.simulation", "--seed", str(seed)]
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONHASHSEED": "77"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
    *trace, said = done.stdout.splitlines()
    assert said == f"seed {seed} ({world_of(seed)}): everything held"
    assert trace == here.trace


def test_a_failure_names_the_command_that_runs_it_again() -> None:
    outcome = next(one for seed in range(1, 80) if (one := run_seed(seed, "posting", "promote_early")).wrong)
    assert (
        outcome.replay == f"python -m tests.simulation --world posting --seed {outcome.seed} --mutation promote_early"
    )
    again = run_seed(outcome.seed, "posting", "promote_early")
    assert (again.wrong, again.trace) == (outcome.wrong, outcome.trace)


def test_a_power_cut_that_takes_an_epoch_and_its_fences_is_a_false_alarm_that_a_person_can_accept(
    tmp_path: Path,
) -> None:
    """Found as seed 21360: the flow says that a stream lost its end, although it was only idle."""
    for seed in range(10):
        fate = Fate(seed, "flow")
        fate.aim("engine.commit")
        directory = tmp_path / str(seed)
        directory.mkdir()
        with capture_logs(), fate.at_fault_points():
            world = FencesLost(fate, directory)
            try:
                world.run()
            finally:
                world.close()
        if world.alarms:
            return
    pytest.fail("no run had the alarm")


class FencesLost(FlowWorld):
    """Every crash of the flow is a power cut of the machine that also keeps the streams."""

    def _crash(self) -> None:
        super()._crash()
        self.server.restart()
