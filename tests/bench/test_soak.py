"""The soak run's own parts: what the load says it sent, the slope, and the graph."""

from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.soak.graph import POINTS_MAX, Line, Panel, draw, nice_ceiling, thinned
from bench.soak.load import MODELS, POOL_EVENTS, Load
from bench.soak.oracle import Totals
from bench.soak.report import figures, picture, slope, verdicts
from bench.soak.sampling import Sample
from core.errors import InvalidRequest

NOW_US = 1_790_000_000_000_000


def test_the_totals_are_those_of_the_distinct_events_sent(tmp_path: Path) -> None:
    load = Load(seed=3, series=400)
    payloads = [event for tick in range(20) for _, _, event in load.make(1_000, NOW_US + tick * 1_000_000)]
    path = tmp_path / "totals.npz"
    load.store(path, 20.0)
    totals = Totals(path)

    seen: dict[str, bytes] = {}
    values: Counter[tuple[str, str, str]] = Counter()
    events: Counter[tuple[str, str]] = Counter()
    for payload in payloads:
        event = orjson.loads(payload)
        assert seen.setdefault(event["id"], payload) == payload, "a copy is the same event"
    for payload in seen.values():
        event = orjson.loads(payload)
        series = (event["subject"], event["data"]["model"])
        events[series] += 1
        values[*series, "requests"] += 1
        values[*series, "tokens"] += event["data"]["tokens"]
    assert totals.series() == {key: (Decimal(value), events[key[:2]]) for key, value in values.items()}
    assert (totals.new, totals.duplicates) == (len(seen), len(payloads) - len(seen))
    assert totals.duplicates > 100
    assert totals.late > 100
    assert sum(events for events, _ in totals.minutes.values()) == totals.new
    assert sum(tokens for _, tokens in totals.minutes.values()) == int(totals.tokens.sum())


def test_the_pool_of_copies_is_bounded() -> None:
    load = Load(seed=1, series=100)
    load._pool = [("tenant-00000", b"old")] * POOL_EVENTS

    load.make(1_000, NOW_US)

    assert len(load._pool) == POOL_EVENTS
    assert sum(event != b"old" for _, event in load._pool) > 5


@pytest.mark.parametrize("series", [0, 99, 150])
def test_series_come_in_whole_tenants(series: int) -> None:
    with pytest.raises(InvalidRequest, match=f"multiple of {2 * MODELS}"):
        Load(1, series)


@given(st.lists(st.tuples(st.integers(0, 1_000), st.integers(-1_000, 1_000)), min_size=2, max_size=30))
def test_the_slope_is_that_of_numpy(points: list[tuple[int, int]]) -> None:
    x, y = [float(point[0]) for point in points], [float(point[1]) for point in points]
    expected = 0.0 if len(set(x)) == 1 else float(np.polyfit(x, y, 1)[0])

    assert slope(x, y) == pytest.approx(expected, abs=1e-6)


def test_one_point_has_no_slope() -> None:
    assert slope([1.0], [5.0]) == 0.0


@given(st.floats(1e-6, 1e12))
def test_an_axis_ends_above_its_values_and_below_thrice_them(value: float) -> None:
    assert value <= nice_ceiling(value) * (1 + 1e-9)
    assert nice_ceiling(value) <= 2.5 * value


@given(st.lists(st.floats(0, 100), min_size=1, max_size=3_000))
def test_thinning_keeps_the_peak_and_the_order(values: list[float]) -> None:
    minutes = [float(place) for place in range(len(values))]
    points = thinned(minutes, values)

    assert len(points) <= POINTS_MAX
    assert max(value for _, value in points) == max(values)
    assert [at for at, _ in points] == sorted(at for at, _ in points)
    assert all(values[int(at)] == value for at, value in points)


def test_the_graph_is_well_formed_and_names_its_lines() -> None:
    text = draw("a < b", [0.0, 1.0], [Panel("Memory, MiB", [Line("flow & co", [1.0, 3.0]), Line("none", [0.0, 0.0])])])

    root = ElementTree.fromstring(text)  # noqa: S314  # our own text
    shown = [element.text for element in root.iter() if element.text and element.tag.endswith("text")]
    assert {"a < b", "Memory, MiB", "flow & co", "none", "4", "1 min"} <= set(shown)
    assert sum(element.tag.endswith("polyline") for element in root.iter()) == 2


def _sample(at_s: float, private_mib: float) -> Sample:
    numbers: dict[str, Any] = dict.fromkeys(Sample.__slots__, 1)
    numbers |= {"at_s": at_s, "flow_private_bytes": int(private_mib * (1 << 20))}
    return Sample(**numbers | {"events": at_s * 500, "flow_cpu_s": at_s / 2})


def test_the_warm_up_is_left_out_of_the_slope() -> None:
    samples = [_sample(at * 60.0, 100.0 * at if at < 15 else 1500.0 + (at - 15)) for at in range(61)]

    found = figures(samples)

    assert found["warm_up_s"] == 900.0
    assert found["flow_private_slope_mib_per_hour"] == pytest.approx(60.0)
    assert found["flow_private_mib_first_last_max"] == [1500.0, 1545.0, 1545.0]
    assert found["events_per_s"] == 500.0
    assert found["flow_cores"] == 0.5


def test_a_result_is_drawn_and_told() -> None:
    result = {
        "minutes": 1,
        "series": 400,
        "rate_events_per_s": 500.0,
        "events_sent": 30_000,
        "events_duplicate": 1,
        "events_late": 2,
        "resume": {"decides_s": 2.0, "live_s": 4.0},
        "differences": ["series x differs"],
        "figures": {"freshness_s_max": 3},
        "samples": [_sample(0.0, 1.0).to_plain(), _sample(60.0, 2.0).to_plain()],
    }

    ElementTree.fromstring(picture(result))  # noqa: S314  # our own text
    assert verdicts(result)[-1] == "series x differs"
    assert "All totals are equal" in verdicts(result | {"differences": []})[-1]
