"""Growth: what an event costs the engine job with more streams, series and tenants, and under a skew.

    python -m bench.growth [--events 200000]

Each point is a run of the flow over the same number of events, so all that differs is what they are spread over.
Spread over more series they make more facts, a row for each series and minute: so it is said how many rows went out per
event, and what each row beyond those of the smallest point cost.
"""

import argparse
import ctypes
import gc
import tempfile
from pathlib import Path
from statistics import median
from time import process_time
from typing import Final

from bench import engine, lines
from bench.figures import Figure, figure

POINTS: Final[dict[str, tuple[tuple[int, lines.Shape], ...]]] = {
    "streams": tuple((count, lines.Shape(streams=count)) for count in (1, 4, 16)),
    "series": tuple((count, lines.Shape(tenants=count // 10, models=10)) for count in (100, 1_000, 10_000, 100_000)),
    "tenants": tuple((count, lines.Shape(tenants=count)) for count in (1, 10, 100, 1_000, 10_000)),
    "tenants, half of all events from one": tuple(
        (count, lines.Shape(tenants=count, skewed=True)) for count in (10, 1_000, 10_000)
    ),
}
"""What grows, and the sizes with the shape of their input."""


def measure(*, quick: bool) -> list[Figure]:
    """Return the processor time per event at each point.

    :raises SystemExit: a run's sums are not the input's.
    """
    return measure_points(200_000 if quick else 400_000, 1)


def measure_points(events: int, rounds: int) -> list[Figure]:
    """Run every point `rounds` times; a first run that is not counted loads what is loaded once."""
    _run(lines.make(100_000))
    figures: list[Figure] = []
    for what, points in POINTS.items():
        first: tuple[float, float] | None = None
        for size, shape in points:
            made = lines.make(events, shape)
            runs = [_run(made) for _ in range(rounds)]
            used_us, rows = [used for used, _ in runs], runs[0][1]
            figures.append(figure("growth", f"{size:,} {what}", used_us, "us/event"))
            figures.append(figure("growth", f"{size:,} {what}: rows of facts", rows, "rows/event"))
            first = first or (median(used_us), rows)
            if rows > 2 * first[1]:
                each_us = [(used - first[0]) / (rows - first[1]) for used in used_us]
                figures.append(figure("growth", f"{size:,} {what}: each further row of facts", each_us, "us/row"))
    return figures


def _run(made: lines.Input) -> tuple[float, float]:
    """Return processor time and rows of facts per event."""
    with tempfile.TemporaryDirectory(prefix="meterbridge-bench-") as directory:
        began_s = process_time()
        _, totals = engine.run_flow(made, Path(directory))
        used_s = process_time() - began_s
    engine.check("the flow", made, totals.accepted, int(totals.tokens))
    gc.unfreeze()  # the flow freezes what is loaded at its start: in one process the runs before it would stay for good
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return used_s / len(made.lines) * 1e6, totals.facts / len(made.lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    for one in measure_points(parser.parse_args().events, 1):
        print(f"{one.case}: {one.value:.2f} {one.unit}")
