"""Renders `docs/benchmarks.md` from one result. Pure: the same result gives the same text."""

from typing import Any, Final

from bench.figures import Figure, from_plain
from bench.plots import growth

TITLES: Final = {
    "end_to_end": "End to end: Valkey (AOF everysec) -> flow with recovery -> rows in ClickHouse over HTTP",
    "engine": "Engine job: events in memory -> decode, dedupe, facts, results counted",
    "engine_processes": "Engine job: two processes of one cluster",
    "decode": "Decode",
    "dedupe": "Dedupe (exact, on disk, synced every 2 s)",
    "dedupe_horizon": "Dedupe with 100 million ids in the horizon",
    "book": "Partial sums and book",
    "charges": "Rating",
    "growth": "Growth of the engine job: more streams, series and tenants, and a skew",
    "freshness": "Freshness: event added to its stream -> row visible in ClickHouse, epochs of 2 s",
    "journal": "Journal adapter",
    "poster": "Poster: booked documents -> postings -> the journal's files, ledger (SQLite, synced) included",
    "ingest": "Ingest over HTTP: authenticated, checked, appended to Valkey, answered",
    "whatif": "What-if: booked facts under other plans, reading from ClickHouse included",
    "queries": "Questions of dashboards over a month of facts (target: a tenant's month by hour under 100 ms)",
    "pages": "Pages of the console with 10 million facts behind them (target: under 300 ms)",
    "reconcile": "Reconcile (target: a day of 10 million events under 30 s) and trace (target: under 1 s)",
}

TARGETS: Final = (
    ("end_to_end", "one event per entry, steady", 100_000.0, "first target"),
    ("end_to_end", "one event per entry, steady", 150_000.0, "final target"),
    ("end_to_end", "100 events per entry, steady", 250_000.0, "final target"),
    ("ingest", "batches of 100, per second of one core", 30_000.0, "first target"),
    ("engine", "metering flow, recovery on, no servers", 450_000.0, "final target"),
    ("engine", "flow against stock Bytewax, one item per event, minute windows", 15.0, "final target"),
    ("engine_processes", "two processes against one", 1.7, "final target"),
)
"""(bench, case, value to reach, which target)."""

AGAINST_FLOOR: Final = "processor time of the flow, steady, against the floor"
LIMITS: Final = (
    ("end_to_end", f"one event per entry, {AGAINST_FLOOR}", 1.6, "times", "final target"),
    ("end_to_end", f"100 events per entry, {AGAINST_FLOOR}", 1.6, "times", "final target"),
    ("queries", "one tenant's month by hour, 99th percentile", 100.0, "ms", "final target"),
    ("pages", "the slowest page, median", 300.0, "ms", "final target"),
)
"""As `TARGETS`, where less is better: (bench, case, value not to exceed, unit, which target)."""

PLOTS: Final = {"growth": growth}
"""Benches with a plot, and what draws it."""

PEERS_BENCH: Final = "peers"
PEER_TARGETS: Final = (
    (PEERS_BENCH, "Meterbridge against Flink SQL", 4.0, "final target"),
    (PEERS_BENCH, "Meterbridge against Spark Structured Streaming", 3.0, "final target"),
    (PEERS_BENCH, "Meterbridge against Pathway", 6.0, "final target"),
)
"""As `TARGETS`, reached in one run of `make bench-peers`."""

READING: Final = """\
## How to read this

- **end_to_end** is what a deployment does: servers, flow and storage share the cores, so the flow has less than one
  core and a half. *Steady* is between the first and the last sample at which events were counted; *with start and
  stop* is the life of the process. The run fails if anything was lost or doubled by comparison with what was sent.
  The *floor* is what reading the same entries, decoding them with compiled code and serialising the insert cost alone
  in the same run; dedupe, sums, books, rates, recovery and moving the rows come on top.
- **engine** is the same flow without servers, beside a stock per-event Bytewax pipeline in the same process, on the
  same events, results compared. The stock pipeline keeps everything in memory: no recovery, no horizon, no conflicts,
  no voids, no rates, no rows. With minute windows it does the same job; the sum at the end shows what per-event work
  costs without windows.
- The other benches run one step alone, on one core, best or median of a few rounds after a first one.
- Values are medians; where a bench ran several times, the lowest and the highest stand beside it.

## Limits of these figures

- Everything shares one small machine. The load before each bench is given above: beyond about 0.5, other work ran at
  the same time and rates are too low, many times too low where the load is ten or more. Processor time for each event
  and ratios within one run suffer least.
- A quick run measures each pair once, so a ratio in it may be off by a factor of two on a busy machine; a target counts
  as met when a full run on a quiet machine says so.
- Generated events of about 200 to 350 bytes. Larger events cost more for each byte.
- The service under load has its own date and load average. Its clients, the servers and the service share the cores;
  what each took stands in the table.
- Peers other than Bytewax run in `make bench-peers`, with their own load average and time above; they do less than the
  flow: see `bench/peers/README.md` for their settings and what each leaves out.

## Again

`make bench`, or `python -m bench.run --quick` for a first look; `--only NAME` runs one. `make bench-load` puts the
service under load. `make bench-peers` installs the peers and compares; it needs Java.
"""


def render(result: dict[str, Any], peers: dict[str, Any] | None = None, load: dict[str, Any] | None = None) -> str:
    """Return the page for a result as `bench.run` stores it, one as `bench.peers.run` does, and one of `bench.load`."""
    figures = from_plain(result["figures"])
    parts = [
        "# Benchmarks\n",
        "Generated by `python -m bench.run`; do not edit. One run, on one machine, with everything on it.\n",
        _where(result),
        _targets(figures + ([] if peers is None else from_plain(peers["figures"])), quick=result["quick"]),
    ]
    for bench, title in TITLES.items():
        own = [one for one in figures if one.bench == bench]
        if own:
            parts.append(_table(title, own))
        if own and bench in PLOTS:
            parts.append(f"![{title}](plots/{bench}.svg)\n")
        if bench == "engine" and peers is not None:
            parts.append(peers_table(peers))
        if bench == "ingest" and load is not None:
            parts.append(load_table(load))
    parts.append(READING)
    return "\n".join(parts)


def _where(result: dict[str, Any]) -> str:
    machine = result["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    load = ", ".join(f"{name} {value:.1f}" for name, value in result["load_before"].items())
    mode = "quick run" if result["quick"] else "full run"
    return (
        f"- {result['began']} ({mode}), commit {machine['commit']}{' with changes' if machine['changed'] else ''}\n"
        f"- {machine['cores']} cores, {machine['processor']}, Python {machine['python']}; {packages}\n"
        f"- load average (1 minute) before each bench: {load}\n"
    )


def _targets(figures: list[Figure], *, quick: bool) -> str:
    reached = "in this quick run" if quick else "yes"
    known = {(one.bench, one.case): one for one in figures}
    lines = ["## Targets\n", "| target | to reach | measured | met |", "|---|---|---|---|"]
    for bench, case, least, which in TARGETS + PEER_TARGETS:
        found = known.get((bench, case))
        measured = "not run" if found is None else number(found.value)
        yes = "yes" if bench == PEERS_BENCH else reached
        met = "-" if found is None else yes if found.value >= least else "**no**"
        lines.append(f"| {bench}: {case} ({which}) | {number(least)} | {measured} | {met} |")
    for bench, case, most, unit, which in LIMITS:
        found = known.get((bench, case))
        measured = "not run" if found is None else number(found.value)
        met = "-" if found is None else reached if found.value <= most else "**no**"
        lines.append(f"| {bench}: {case}, {unit} ({which}) | at most {number(most)} | {measured} | {met} |")
    return "\n".join(lines) + "\n"


def _table(title: str, figures: list[Figure]) -> str:
    lines = [f"## {title}\n", "| case | value | unit | lowest to highest |", "|---|---|---|---|"]
    for one in figures:
        spread = f"{number(one.lowest)} to {number(one.highest)} ({one.runs} runs)" if one.runs > 1 else ""
        lines.append(f"| {one.case} | {number(one.value)} | {one.unit} | {spread} |")
    return "\n".join(lines) + "\n"


def peers_table(peers: dict[str, Any]) -> str:
    """Return the section on one comparison with peers: who, where, when, and the figures."""
    versions = ", ".join(f"{name} {version}" for name, version in peers["versions"].items())
    about = (
        f"{_run_of(peers)} {peers['events']:,} events, two cores each, one after the other in each round, after a"
        f" warm-up in the same process; sums compared. {versions}.\n"
    )
    head, rest = _table("Peers: the engine job in other engines", from_plain(peers["figures"])).split("\n\n", 1)
    return f"{head}\n\n{about}\n{rest}"


def load_table(load: dict[str, Any]) -> str:
    """Return the section on one run of the service under load: what was asked of it, where, when, and the figures."""
    plan = load["plan"]
    processes = "one service process" if plan["workers"] == 1 else f"{plan['workers']} service processes"
    about = (
        f"{plan['requests_per_s']:,} ingest requests/s of {plan['batch']} events and {plan['viewers']} viewers, each"
        f" with live figures and a page every {plan['pages_every_s']:g} s, for {plan['seconds']:g} s over loopback;"
        f" {processes}. Requests are due at fixed times."
        f" {_run_of(load)}\n"
    )
    head, rest = _table("The service under load", from_plain(load["figures"])).split("\n\n", 1)
    return f"{head}\n\n{about}\n{rest}"


def _run_of(result: dict[str, Any]) -> str:
    machine = result["machine"]
    changed = " with changes" if machine["changed"] else ""
    return (
        f"{result['began']}, commit {machine['commit']}{changed}, load average (1 minute) before:"
        f" {result['load_before']:.1f}."
    )


def number(value: float) -> str:
    """Return a value with three significant digits or more, with separators."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
