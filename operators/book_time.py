"""When usage is booked, and when a booked minute can no longer change. Pure functions of the event and the revisions.

All minutes are whole minutes since 1970-01-01T00:00Z.
"""

from typing import Final

import polars as pl

from config.revision import History

MS_PER_MINUTE: Final = 60_000
US_PER_MINUTE: Final = 60_000_000
_MS_PER_SECOND: Final = 1000


def usage_minute() -> pl.Expr:
    """Return the minute in which the usage took place, from `usage_time_us`."""
    return pl.col("usage_time_us") // US_PER_MINUTE


def booked_minute(grace_s: int) -> pl.Expr:
    """Return the minute an event is booked in: its usage minute if it came in time, else its arrival minute.

    Needs the columns `usage_minute` and `entry_ms`. It depends on the event alone.
    """
    end_ms = (pl.col("usage_minute") + 1) * MS_PER_MINUTE + grace_s * _MS_PER_SECOND
    in_time = pl.col("entry_ms") < end_ms
    return pl.when(in_time).then(pl.col("usage_minute")).otherwise(pl.col("entry_ms") // MS_PER_MINUTE)


def with_minutes(frame: pl.DataFrame, grace_s: int) -> pl.DataFrame:
    """Return the events with `usage_minute` and `booked_minute`; unchanged if they have them already."""
    if "booked_minute" in frame.columns:
        return frame
    return frame.with_columns(usage_minute().alias("usage_minute")).with_columns(
        booked_minute(grace_s).alias("booked_minute")
    )


class SealPoints:
    """Tells when a booked minute can no longer change.

    With one grace that is the minute's end plus the grace. Where a revision with another grace begins in
    between, each grace counts for the arrivals at which its own revision is in force.
    """

    def __init__(self, history: History) -> None:
        graces: list[tuple[int, int]] = []
        for revision in history.revisions:
            grace_ms = revision.rules.grace_s * _MS_PER_SECOND
            if not graces or graces[-1][1] != grace_ms:
                graces.append((revision.known_from_ms, grace_ms))
        stops_ms: list[int | None] = [start_ms for start_ms, _ in graces[1:]]
        self._spans = [(start, stop, grace) for (start, grace), stop in zip(graces, [*stops_ms, None], strict=True)]

    def point_ms(self, minute: int) -> int:
        """Return the watermark from which no entry can be booked in that minute any more."""
        end_ms = (minute + 1) * MS_PER_MINUTE
        point_ms = end_ms
        for number, (start_ms, stop_ms, grace_ms) in enumerate(self._spans):
            until_ms = end_ms + grace_ms if stop_ms is None else min(end_ms + grace_ms, stop_ms)
            if number == 0 or until_ms > start_ms:
                point_ms = max(point_ms, until_ms)
        return point_ms

    def border(self, watermark_ms: int) -> int:
        """Return the first minute that may still change: every earlier one is complete at that watermark."""
        minute = watermark_ms // MS_PER_MINUTE
        while self.point_ms(minute - 1) > watermark_ms:
            minute -= 1
        return minute
