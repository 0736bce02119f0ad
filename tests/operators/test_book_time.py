from random import Random

import polars as pl
import pytest

from config.revision import Configuration, History, Revision
from operators.book_time import SealPoints, booked_minute

HOUR_MS = 3_600_000
BASE_MS = 490_000 * HOUR_MS


def history(*graces: tuple[int, int]) -> History:
    return History(
        [
            Revision(Configuration.model_validate({"rules": {"grace_s": grace_s}}), known_from_ms)
            for known_from_ms, grace_s in graces
        ]
    )


@pytest.mark.parametrize("grace_s", [0, 1, 60, 90, 3600])
def test_one_grace_seals_a_minute_at_its_end_plus_the_grace(grace_s: int) -> None:
    points = SealPoints(history((0, grace_s)))
    minute = BASE_MS // 60_000
    point_ms = (minute + 1) * 60_000 + grace_s * 1000
    assert points.point_ms(minute) == point_ms
    assert points.border(point_ms) == minute + 1
    assert points.border(point_ms - 1) == minute


def test_nothing_can_be_booked_below_the_border() -> None:
    """Every entry at or after the watermark is booked at or above the border, and the border could not be higher."""
    random = Random(7)
    for _ in range(60):
        starts = sorted(random.sample(range(1, 5), random.randint(0, 3)))
        graces = [(0, random.choice([0, 30, 60, 600, 3600]))]
        graces += [(BASE_MS + start * HOUR_MS // 2, random.choice([0, 30, 60, 600, 3600])) for start in starts]
        revisions = history(*graces)
        points = SealPoints(revisions)
        watermark_ms = BASE_MS + random.randrange(3 * HOUR_MS)
        border = points.border(watermark_ms)
        later = {watermark_ms, *(start for start, _ in graces), *(start - 1 for start, _ in graces)}
        later |= {watermark_ms + random.randrange(2 * HOUR_MS) for _ in range(300)}
        later |= {(watermark_ms // 1000 + step) * 1000 - 1 for step in range(2, 7300)}
        lowest = min(
            lowest_minute(entry_ms, revisions.at(entry_ms).rules.grace_s)
            for entry_ms in later
            if entry_ms >= watermark_ms
        )
        assert lowest == border


def lowest_minute(entry_ms: int, grace_s: int) -> int:
    """Return the lowest minute that an event arriving then can be booked in, whatever its usage time."""
    usage = entry_ms // 60_000
    while entry_ms < usage * 60_000 + grace_s * 1000:
        usage -= 1
    return min(usage, entry_ms // 60_000)


def test_booked_minute_of_early_usage_is_its_usage_minute() -> None:
    frame = pl.DataFrame({"usage_minute": [10, 10, 10], "entry_ms": [300_000, 719_999, 720_000]})
    assert frame.select(booked_minute(60)).to_series().to_list() == [10, 10, 12]
