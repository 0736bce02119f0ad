"""What a soak run comes to: slopes by least squares, bounds, and the panels of its graph."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

from bench.soak.graph import Line, Panel, draw
from bench.soak.sampling import Sample

WARM_UP_SHARE: Final = 0.25
"""The slope is that of the samples behind this part of the run, but of 15 minutes at most."""
WARM_UP_S_MAX: Final = 900.0
MIB: Final = 1 << 20
GIB: Final = 1 << 30
_SLOPES: Final = ("flow_private_bytes", "flow_mapped_bytes", "valkey_bytes", "clickhouse_bytes", "recovery_bytes")


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the slope of the straight line through the points by least squares; 0 for fewer than two."""
    if len(x) < 2:
        return 0.0
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((one - mean_x) ** 2 for one in x)
    together = sum((one - mean_x) * (other - mean_y) for one, other in zip(x, y, strict=True))
    return together / spread if spread else 0.0


def figures(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return slopes in MiB an hour behind the warm-up, and the largest values."""
    warm_s = min(WARM_UP_S_MAX, samples[-1].at_s * WARM_UP_SHARE)
    warm = [sample for sample in samples if sample.at_s >= warm_s]
    hours = [sample.at_s / 3600 for sample in warm]
    slopes = {
        name.removesuffix("_bytes") + "_slope_mib_per_hour": round(
            slope(hours, [getattr(sample, name) / MIB for sample in warm]), 2
        )
        for name in _SLOPES
    }
    seconds = warm[-1].at_s - warm[0].at_s or 1.0
    events = warm[-1].events - warm[0].events or 1.0
    freshness = sorted(sample.freshness_s for sample in warm)
    first, last = warm[0], warm[-1]
    ids = (last.id_log_bytes - first.id_log_bytes) / events
    return {
        "warm_up_s": round(warm_s, 1),
        **slopes,
        "flow_private_mib_first_last_max": [
            round(value / MIB, 1)
            for value in (
                first.flow_private_bytes,
                last.flow_private_bytes,
                max(sample.flow_private_bytes for sample in warm),
            )
        ],
        "recovery_mib_max": round(max(sample.recovery_bytes for sample in samples) / MIB, 1),
        "id_log_bytes_per_event": round(ids, 2),
        "stream_entries_max": max(sample.stream_entries for sample in samples),
        "lag_entries_max": max(sample.lag_entries for sample in samples),
        "freshness_s_median": freshness[len(freshness) // 2],
        "freshness_s_p99": freshness[min(len(freshness) - 1, int(len(freshness) * 0.99))],
        "freshness_s_max": freshness[-1],
        "events_per_s": round(events / seconds, 1),
        "flow_cores": round((last.flow_cpu_s - first.flow_cpu_s) / seconds, 3),
        "valkey_cores": round((last.valkey_cpu_s - first.valkey_cpu_s) / seconds, 3),
        "clickhouse_cores": round((last.clickhouse_cpu_s - first.clickhouse_cpu_s) / seconds, 3),
        "load_1min_median": sorted(sample.load_1min for sample in warm)[len(warm) // 2],
    }


def picture(result: dict[str, Any]) -> str:
    """Return the graph of a result as SVG."""
    rows = [Sample(**plain) for plain in result["samples"]]
    minutes = [row.at_s / 60 for row in rows]

    def line(name: str, field: str, unit: float) -> Line:
        return Line(name, [getattr(row, field) / unit for row in rows])

    title = f"{result['rate_events_per_s']:,.0f} events/s, {result['series']:,} series, {result['minutes']:g} minutes"
    panels = [
        Panel(
            "Resident memory, MiB",
            [
                line("flow, its own", "flow_private_bytes", MIB),
                line("flow, mapped id log", "flow_mapped_bytes", MIB),
                line("Valkey", "valkey_bytes", MIB),
                line("ClickHouse engine", "clickhouse_bytes", MIB),
            ],
        ),
        Panel("Recovery directory, MiB", [line("recovery", "recovery_bytes", MIB)]),
        Panel(
            "On disk, GiB",
            [
                line("id logs", "id_log_bytes", GIB),
                line("ClickHouse", "clickhouse_disk_bytes", GIB),
                line("Valkey append-only", "append_only_bytes", GIB),
            ],
        ),
        Panel("Age of what is durable everywhere, s", [line("freshness", "freshness_s", 1)]),
        Panel(
            "Entries, thousands", [line("in the streams", "stream_entries", 1e3), line("not read", "lag_entries", 1e3)]
        ),
        Panel(
            "Processor time, cores",
            [
                Line("flow", _per_second(rows, "flow_cpu_s")),
                Line("Valkey", _per_second(rows, "valkey_cpu_s")),
                Line("ClickHouse engine", _per_second(rows, "clickhouse_cpu_s")),
            ],
        ),
        Panel("Events decided, thousands a second", [Line("events", _per_second(rows, "events", 1e3))]),
    ]
    return draw(title, minutes, panels)


def _per_second(rows: Sequence[Sample], field: str, unit: float = 1.0) -> list[float]:
    """Return the growth of a counter between samples, a second; the first has none before it, and counts 0."""
    rates = [0.0]
    for before, after in pairwise(rows):
        grown = getattr(after, field) - getattr(before, field)
        rates.append(max(0.0, grown) / max(after.at_s - before.at_s, 1e-9) / unit)
    return rates


def verdicts(result: dict[str, Any]) -> list[str]:
    """Return lines for a person."""
    lines = [
        f"{result['events_sent']:,} events in {result['minutes']:g} minutes and a minute more,"
        f" {result['rate_events_per_s']:,.0f} events/s, {result['series']:,} series;"
        f" {result['events_duplicate']:,} sent twice, {result['events_late']:,} late.",
        f"Resumed after SIGKILL: first events decided after {result['resume']['decides_s']} s,"
        f" live after {result['resume']['live_s']} s.",
    ]
    lines += [f"{name}: {value}" for name, value in result["figures"].items()]
    lines += result["differences"] or ["All totals are equal, by series and by minute."]
    return lines
