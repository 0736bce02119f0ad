"""A soak run: `python -m bench.soak --minutes 60 --rate 40000 --series 100000`, or `make soak`.

Valkey (append-only file, everysec), the ClickHouse engine and the flow, each a process, under steady input. Streams
are trimmed by `meterbridge trim`. Near its end the flow is killed with SIGKILL and started again, while input goes on;
then everything is drained and compared with what was sent. The result goes to `bench/results/soak.json` and
`docs/images/soak.svg`, or where `--output` and `--graph` say.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import orjson
from redis import RedisError
from sqlalchemy.exc import SQLAlchemyError

from bench.machine import describe
from bench.soak.deployment import ROOT, Soaked, settings_of
from bench.soak.oracle import Totals, differences
from bench.soak.report import figures, picture, verdicts
from bench.soak.sampling import Sample, Sampler
from sinks import ledger

SAMPLE_S: Final = 10.0
TRIM_S: Final = 30.0
KEEP_MINUTES: Final = 1
TAIL_S: Final = 60.0
"""Input goes on for this long behind the kill."""
LIVE_S: Final = 6.0
"""Live: durable in all stores up to this age, three epochs."""
RESUME_S_MAX: Final = 300.0
STARTED_S_MAX: Final = 120.0


def main() -> None:
    """Run and report; exit 1 if totals differ or a bound is broken."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=40_000.0, help="events a second")
    parser.add_argument("--series", type=int, default=100_000)
    parser.add_argument("--directory", type=Path, help="where the state goes; default a temporary directory")
    parser.add_argument("--output", type=Path, default=ROOT / "bench" / "results" / "soak.json")
    parser.add_argument("--graph", type=Path, default=ROOT / "docs" / "images" / "soak.svg")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="meterbridge-soak-", dir=options.directory))
    try:
        result = run(directory, options.minutes, options.rate, options.series)
    except BaseException:
        sys.stderr.write(f"the state is kept in {directory}\n")
        raise
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")
    options.graph.parent.mkdir(parents=True, exist_ok=True)
    options.graph.write_text(picture(result), encoding="utf-8")
    for line in verdicts(result):
        sys.stdout.write(line + "\n")
    if result["differences"]:
        sys.stderr.write(f"not equal; the state is kept in {directory}\n")
        sys.exit(1)
    shutil.rmtree(directory, ignore_errors=True)


def run(directory: Path, minutes: float, rate: float, series: int) -> dict[str, Any]:
    """Return everything that was measured."""
    settings = settings_of(directory)
    soaked = Soaked(settings, series, directory / "soak.log")
    engine = ledger.connect(settings.ledger_url)
    try:
        pids = soaked.start_servers()
        pids["flow"] = soaked.start_flow()
        sampler = Sampler(settings, engine, pids)
        _wait(lambda: sampler.freshness_s() < LIVE_S, STARTED_S_MAX, "the flow is not live")
        soaked.start_load(rate, minutes * 60 + TAIL_S)
        samples, removed = _watch(soaked, sampler, minutes * 60, directory / "samples.jsonl")
        resume = _resume(soaked, sampler)
        ended_s = time.monotonic()
        _wait(lambda: not soaked.is_running("load"), TAIL_S + STARTED_S_MAX, "the load does not end")
        totals = Totals(soaked.totals)
        wanted = int(totals.new + totals.duplicates)
        soaked.stop("flow", 120)
        soaked.command("run", "--drain")
        drain_s = time.monotonic() - ended_s
        sampler.close()
        return {
            "minutes": minutes,
            "rate_wanted_events_per_s": rate,
            "series": series,
            "events_sent": wanted,
            "events_duplicate": totals.duplicates,
            "events_late": totals.late,
            "rate_events_per_s": round(wanted / totals.seconds, 1),
            "entries_trimmed": removed,
            "resume": resume,
            "drain_s": round(drain_s, 1),
            "differences": differences(settings.clickhouse, totals),
            "figures": figures(samples),
            "machine": describe(),
            "samples": [sample.to_plain() for sample in samples],
        }
    finally:
        soaked.close()
        engine.dispose()


def _watch(soaked: Soaked, sampler: Sampler, seconds: float, path: Path) -> tuple[list[Sample], int]:
    """Sample and trim until the time is over; return the samples and how many entries were trimmed.

    Samples go to the file as they are taken. One that fails, as the ledger may be locked, is left out; all the others
    tell the same story.
    """
    began_s = time.monotonic()
    samples: list[Sample] = []
    removed, looks, trim_at_s = 0, 0, began_s + TRIM_S
    while (now_s := time.monotonic()) - began_s < seconds:
        for name in ("flow", "load"):
            if not soaked.is_running(name):
                message = f"the {name} ended by itself; see soak.log in the state directory"
                raise SystemExit(message)
        looks += 1
        try:
            samples.append(sampler.look())
        except (OSError, SQLAlchemyError, RedisError) as error:
            sys.stderr.write(f"a sample failed: {error}\n")
        else:
            with path.open("ab") as lines:
                lines.write(orjson.dumps(samples[-1].to_plain()) + b"\n")
        if now_s >= trim_at_s:
            said = orjson.loads(soaked.command("trim", "--keep-minutes", str(KEEP_MINUTES), "--json"))
            removed += sum(said["entries_removed"].values())
            trim_at_s = now_s + TRIM_S
        due_s = began_s + looks * SAMPLE_S
        time.sleep(max(0.0, due_s - time.monotonic()))
    return samples, removed


def _resume(soaked: Soaked, sampler: Sampler) -> dict[str, float]:
    """Kill the flow under load and start it again; return how long it takes until it decides events, and is live."""
    ids_bytes = sampler.look().id_log_bytes
    soaked.kill_flow()
    began_s = time.monotonic()
    sampler.follow("flow", soaked.start_flow())
    _wait(lambda: sampler.metric("meterbridge_events_total{") > 0, RESUME_S_MAX, "the flow does not resume")
    decides_s = time.monotonic() - began_s
    _wait(lambda: sampler.freshness_s() < LIVE_S, RESUME_S_MAX, "the flow does not catch up")
    live_s = time.monotonic() - began_s
    return {"decides_s": round(decides_s, 2), "live_s": round(live_s, 2), "id_log_bytes": ids_bytes}


def _wait(reached: Any, seconds: float, otherwise: str) -> None:
    until_s = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > until_s:
            raise SystemExit(otherwise)
        time.sleep(0.1)


if __name__ == "__main__":
    main()
