"""The page says what was measured, and says so where a target was missed or not run."""

from typing import Any

from bench.figures import figure
from bench.report import number, render


def result(*figures: Any) -> dict[str, Any]:
    return {
        "began": "2026-11-24T20:00:00Z",
        "quick": False,
        "machine": {
            "cores": 2,
            "processor": "P",
            "python": "3.11.7",
            "packages": {"bytewax": "0.21.1"},
            "commit": "abc1234",
            "changed": False,
        },
        "load_before": {"decode": 0.25},
        "figures": [one.to_plain() for one in figures],
    }


def test_a_figure_is_the_median_with_its_spread() -> None:
    page = render(result(figure("decode", "clean", [410_000, 390_000, 400_123], "events/s")))
    assert "| clean | 400,123 | events/s | 390,000 to 410,000 (3 runs) |" in page


def test_targets_are_met_missed_or_not_run() -> None:
    single = figure("end_to_end", "one event per entry, steady", 120_000, "events/s")
    lines = render(result(single)).splitlines()
    assert "| end_to_end: one event per entry, steady (first target) | 100,000 | 120,000 | yes |" in lines
    assert "| end_to_end: one event per entry, steady (final target) | 150,000 | 120,000 | **no** |" in lines
    assert "| end_to_end: 100 events per entry, steady (final target) | 250,000 | not run | - |" in lines


def test_some_targets_are_not_to_be_exceeded() -> None:
    case = "100 events per entry, processor time of the flow, steady, against the floor"
    for value, met in ((1.5, "yes"), (1.7, "**no**")):
        page = render(result(figure("end_to_end", case, value, "times")))
        assert f"| end_to_end: {case}, times (final target) | at most 1.6 | {number(value)} | {met} |" in page


def test_a_quick_run_does_not_call_a_target_met() -> None:
    quick = result(figure("end_to_end", "one event per entry, steady", 120_000, "events/s")) | {"quick": True}
    assert "| 100,000 | 120,000 | in this quick run |" in render(quick)


def test_the_page_says_where_and_when() -> None:
    page = render(result())
    assert "- 2026-11-24T20:00:00Z (full run), commit abc1234\n" in page
    assert "2 cores, P, Python 3.11.7; bytewax 0.21.1" in page
    assert "before each bench: decode 0.2" in page


def test_a_bench_that_did_not_run_has_no_table() -> None:
    assert "## Decode" not in render(result())


def test_the_service_under_load_is_a_run_of_its_own() -> None:
    plan = {"requests_per_s": 5000, "batch": 5, "viewers": 200, "pages_every_s": 30, "seconds": 60, "workers": 2}
    figures = [figure("load", "errors, of all answers", 0, "answers").to_plain()]
    load = result() | {"began": "2026-11-25T03:00:00Z", "load_before": 0.1, "plan": plan, "figures": figures}
    page = render(result(figure("ingest", "x", 1, "events/s")), load=load)
    assert "## The service under load\n" in page
    assert "5,000 ingest requests/s of 5 events and 200 viewers" in page
    assert "2 service processes" in page
    assert "2026-11-25T03:00:00Z, commit abc1234, load average (1 minute) before: 0.1." in page
    assert "| errors, of all answers | 0 | answers |" in page


def test_numbers() -> None:
    assert [number(value) for value in (1234567.8, 999.6, 99.94, 2.345, 0.01234)] == [
        "1,234,568",
        "1000",
        "99.9",
        "2.35",
        "0.0123",
    ]


def test_a_limit_is_met_from_below() -> None:
    def page(value_ms: float) -> list[str]:
        return render(result(figure("pages", "the slowest page, median", value_ms, "ms"))).splitlines()

    start = "| pages: the slowest page, median, ms (final target) | at most 300 |"
    assert f"{start} 299 | yes |" in page(299)
    assert f"{start} 301 | **no** |" in page(301)
    assert f"{start} not run | - |" in render(result()).splitlines()
