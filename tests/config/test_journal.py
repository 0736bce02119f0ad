"""The configuration journal: when a revision becomes known, and that prices in force do not change."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.journal import HOUR_MS, next_revision
from config.revision import Configuration, History, Revision
from core.errors import ConfigError

T0 = 1_790_000_000_000


def _configuration(*prices: str, grace_s: int = 60, plan: str = "p") -> Configuration:
    """Return a configuration with one plan, a version a year from 2023 on for each price."""
    versions = [
        {
            "effective_from": f"{2023 + number}-01-01T00:00:00Z",
            "currency": "USD",
            "charges": [{"id": "c", "meter": "m", "model": "per_unit", "unit_amount": price}],
        }
        for number, price in enumerate(prices)
    ]
    raw: dict[str, Any] = {
        "rules": {"grace_s": grace_s},
        "plans": [{"id": plan, "versions": versions}] if prices else [],
    }
    return Configuration.model_validate(raw)


def test_first_revision_counts_from_the_beginning() -> None:
    revision = next_revision([], _configuration("1"), T0, T0)
    assert revision is not None
    assert revision.known_from_ms == 0


def test_same_configuration_needs_no_revision_even_when_read_back_from_the_journal() -> None:
    stored = Revision.parse(Revision(_configuration("1.0")).text, 0)
    assert next_revision([stored], _configuration("1.0"), T0, 0) is None


@pytest.mark.parametrize(
    ("redis_ms", "watermark_ms", "known_from_ms"),
    [
        (7 * HOUR_MS, 0, 8 * HOUR_MS),
        (8 * HOUR_MS - 1, 0, 8 * HOUR_MS),
        (0, 9 * HOUR_MS + 1, 10 * HOUR_MS),
        (9 * HOUR_MS, 3 * HOUR_MS, 10 * HOUR_MS),
    ],
)
def test_known_from_the_hour_after_both_times(redis_ms: int, watermark_ms: int, known_from_ms: int) -> None:
    revision = next_revision([Revision(_configuration())], _configuration(grace_s=61), redis_ms, watermark_ms)
    assert revision is not None
    assert revision.known_from_ms == known_from_ms


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, 40 * HOUR_MS), st.integers(0, 40 * HOUR_MS), st.sampled_from([1, 2, 3])), max_size=12
    )
)
def test_replay_sees_what_the_run_saw(steps: list[tuple[int, int, int]]) -> None:
    """Whatever was looked up before a revision was added is looked up alike ever after."""
    revisions = [Revision(_configuration(grace_s=9))]
    looked_up: list[tuple[int, str]] = []
    now_ms = 0
    for redis_ms, watermark_ms, grace_s in steps:
        now_ms = max(now_ms, redis_ms, watermark_ms)
        looked_up.append((now_ms, History(revisions).at(now_ms).digest))
        revision = next_revision(revisions, _configuration(grace_s=grace_s), redis_ms, now_ms)
        if revision is not None:
            assert revision.known_from_ms > now_ms
            assert revision.known_from_ms % HOUR_MS == 0
            revisions.append(Revision.parse(revision.text, revision.known_from_ms))
    history = History(list(reversed(revisions)))
    assert len({item.known_from_ms for item in revisions}) == len(revisions)
    assert [(time_ms, history.at(time_ms).digest) for time_ms, _ in looked_up] == looked_up
    if steps:
        assert history.latest.rules.grace_s == steps[-1][2]


def test_a_version_in_force_cannot_be_edited_and_the_difference_is_shown() -> None:
    history = [Revision(_configuration("1", "2"))]
    with pytest.raises(ConfigError) as caught:
        next_revision(history, _configuration("1", "3"), T0, 0)
    (problem,) = caught.value.problems
    assert problem.startswith("plans[p].versions[2]: was changed, but is in force since 2024-01-01T00:00:00Z. hint: ")
    assert '-      "unit_amount": "2"' in problem
    assert '+      "unit_amount": "3"' in problem


def test_a_version_in_force_cannot_be_removed() -> None:
    with pytest.raises(ConfigError, match=r"versions\[2\]: was removed"):
        next_revision([Revision(_configuration("1", "2"))], _configuration("1"), T0, 0)


def test_taking_a_plan_out_and_in_again_does_not_change_its_prices() -> None:
    history = [Revision(_configuration("1")), Revision(_configuration(plan="q"), HOUR_MS)]
    with pytest.raises(ConfigError, match="was changed"):
        next_revision(history, _configuration("2"), T0, 0)
    assert next_revision(history, _configuration("1"), T0, 0) is not None


def test_what_may_change() -> None:
    history = [Revision(_configuration("1", "2", "3", "4", "5"))]  # the last two begin in 2026 and 2027
    assert next_revision(history, _configuration("1", "2", "3", "4", "6"), T0, 0) is not None
    assert next_revision(history, _configuration("1", "2", "3", "4", "5", "6"), T0, 0) is not None
    assert next_revision(history, _configuration("1", "2", "3", "4"), T0, 0) is not None
    with pytest.raises(ConfigError):
        next_revision(history, _configuration("1", "2", "3", "9", "5"), T0, 0)
