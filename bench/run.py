"""Runs the benchmarks: `python -m bench.run [--quick] [--only NAME]`, which `make bench` calls.

Each bench runs in a process of its own, with as many threads as the flow. A whole run stores its result in
`bench/results/` and generates `docs/benchmarks.md` from it; a quick or partial one prints the page and leaves its
JSON in `latest-partial.json.tmp`, unless `--store` is given.
"""

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson

from bench.figures import from_plain
from bench.machine import describe
from bench.report import PLOTS, render
from flows import threads

ROOT: Final = Path(__file__).parents[1]
RESULTS: Final = ROOT / "bench" / "results"
PAGE: Final = ROOT / "docs" / "benchmarks.md"

BENCHES: Final = (
    "decode",
    "dedupe",
    "dedupe_horizon",
    "book",
    "charges",
    "journal",
    "poster",
    "whatif",
    "ingest",
    "reconcile",
    "queries",
    "pages",
    "growth",
    "freshness",
    "engine",
    "engine_processes",
    "end_to_end",
)
"""Modules of this package with `measure(*, quick)`; those that need servers start them."""

SECONDS_MAX: Final = 1200
"""A bench that takes longer is broken."""


def main(arguments: list[str] | None = None) -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: a look, not a result")
    parser.add_argument("--only", choices=BENCHES, action="append", help="run this bench only; may be repeated")
    parser.add_argument("--into", type=Path, help="run the one bench in this process and write its figures there")
    parser.add_argument("--store", action="store_true", help="store the result and the page of a quick run, too")
    options = parser.parse_args(arguments)
    if options.into is not None:
        options.into.write_bytes(orjson.dumps(_measure(options.only[0], quick=options.quick)))
        return
    result = run(tuple(options.only or BENCHES), quick=options.quick)
    RESULTS.mkdir(parents=True, exist_ok=True)
    whole = not options.only and (options.store or not options.quick)
    name = f"{result['began'].replace(':', '').replace('-', '')}.json" if whole else "latest-partial.json.tmp"
    (RESULTS / name).write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")
    if whole:
        write_page()
        for bench, draw in PLOTS.items():
            path = PAGE.parent / "plots" / f"{bench}.svg"
            path.parent.mkdir(exist_ok=True)
            path.write_text(draw(from_plain(result["figures"])), encoding="utf-8")
    sys.stdout.write(render(result, newest("peers-"), newest("load-")))


def newest(prefix: str) -> dict[str, Any] | None:
    """Return the latest stored result whose name is this prefix and a time; None where there is none."""
    found = max(RESULTS.glob(f"{prefix}2*Z.json"), default=None)
    return None if found is None else orjson.loads(found.read_bytes())


def write_page() -> None:
    """Generate the page from the latest whole run, comparison with peers, and run of the service under load.

    :raises SystemExit: no whole run is stored.
    """
    result = newest("")
    if result is None:
        message = f"no result of a whole run in {RESULTS.relative_to(ROOT)}; run make bench first"
        raise SystemExit(message)
    PAGE.write_text(render(result, newest("peers-"), newest("load-")), encoding="utf-8")


def run(names: tuple[str, ...], *, quick: bool) -> dict[str, Any]:
    """Return the result of these benches, each run in a process of its own.

    :raises SystemExit: a bench failed.
    """
    figures: list[dict[str, Any]] = []
    load: dict[str, float] = {}
    began = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="meterbridge-bench-") as directory:
        for name in names:
            load[name] = os.getloadavg()[0]
            began_s = time.monotonic()
            sys.stderr.write(f"{name} ... ")
            sys.stderr.flush()
            figures += _in_process(name, Path(directory) / f"{name}.json", quick=quick)
            sys.stderr.write(f"{time.monotonic() - began_s:.0f} s\n")
    return {
        "began": began.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "quick": quick,
        "machine": describe(),
        "load_before": load,
        "figures": figures,
    }


def _in_process(name: str, into: Path, *, quick: bool) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "bench.run", "--only", name, "--into", str(into)]
    done = subprocess.run(
        [*command, *(["--quick"] if quick else [])],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    if done.returncode:
        message = f"the bench {name} failed:\n{done.stderr[-4000:]}"
        raise SystemExit(message)
    figures: list[dict[str, Any]] = orjson.loads(into.read_bytes())
    return figures


def _measure(name: str, *, quick: bool) -> list[dict[str, Any]]:
    threads.limit(workers=1)
    threads.keep_memory()
    module = importlib.import_module(f"bench.{name}")
    return [one.to_plain() for one in module.measure(quick=quick)]


if __name__ == "__main__":
    main()
