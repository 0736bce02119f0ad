"""Our side of the comparison: the metering flow in one process, recovery on, over the same events in memory."""

import tempfile
from importlib.metadata import version
from pathlib import Path

from bench import engine, lines
from bench.peers.answer import Answer, Sums, directories, session_cpu_s
from bench.peers.job_input import read
from flows import threads


def run(directory: Path, state_dir: Path) -> Answer:
    """Run the flow over the events of a directory."""
    payloads = read(directory)
    arrival_ms = [lines.START_MS + number * 1000 // lines.EVENTS_PER_SECOND for number in range(len(payloads))]
    made = lines.Input(payloads, arrival_ms, accepted=0, tokens=0)
    began_cpu_s = session_cpu_s()
    seconds, totals = engine.run_flow(made, state_dir)
    sums = Sums(None, totals.accepted, int(totals.tokens))
    return Answer(sums, seconds, session_cpu_s() - began_cpu_s, version("meterbridge"))


def main() -> None:
    """Run over the warm-up, then over the input."""
    threads.limit(workers=1)
    for directory in directories():
        with tempfile.TemporaryDirectory(prefix="meterbridge-bench-") as state_dir:
            answer = run(directory, Path(state_dir))
    print(answer.line())


if __name__ == "__main__":
    main()
