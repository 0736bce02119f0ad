"""Times in the ledger are Unix milliseconds."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

MS_PER_HOUR = 3_600_000


def to_ms(at: datetime) -> int:
    """Return Unix milliseconds of an aware time."""
    return (at - _EPOCH) // timedelta(milliseconds=1)


def to_datetime(at_ms: int) -> datetime:
    """Return the aware UTC time of Unix milliseconds."""
    return _EPOCH + timedelta(milliseconds=at_ms)


def hour_text(hour: int) -> str:
    """Return an hour since the epoch as `2026-11-24T10:00Z`."""
    return (_EPOCH + timedelta(hours=hour)).strftime("%Y-%m-%dT%H:%MZ")
