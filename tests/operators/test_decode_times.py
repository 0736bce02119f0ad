from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.decode_times import NO_TIME, time_us, times_us

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def us(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.datetimes(timezones=st.timezones() | st.just(UTC)).filter(lambda moment: moment.year > 1),
            st.sampled_from(["auto", "seconds", "milliseconds", "microseconds"]),
            st.booleans(),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_both_ways_agree_with_the_standard_library(moments: list[tuple[datetime, str, bool]]) -> None:
    texts, expected = [], []
    for moment, precision, in_utc in moments:
        shown = moment.astimezone(UTC) if in_utc else moment
        if shown.utcoffset() and shown.utcoffset() % timedelta(minutes=1):  # type: ignore[operator]
            shown = shown.replace(tzinfo=UTC)
        written = shown.isoformat(timespec=precision)
        expected.append(us(datetime.fromisoformat(written)))
        texts.append(written.replace("+00:00", "Z"))
    assert [time_us(written) for written in texts] == expected
    assert times_us(texts).tolist() == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2016-12-31T23:59:60Z", us(datetime(2017, 1, 1, tzinfo=UTC))),
        ("2016-12-31T23:59:60.5Z", us(datetime(2017, 1, 1, tzinfo=UTC)) + 500_000),
        ("2017-01-01T05:29:60+05:30", us(datetime(2017, 1, 1, tzinfo=UTC))),
        ("2016-12-31T22:59:60Z", None),
        ("2026-10-31T10:00:00.9999999Z", us(datetime(2026, 10, 31, 10, tzinfo=UTC)) + 999_999),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("2024-02-29T00:00:00Z", us(datetime(2024, 2, 29, tzinfo=UTC))),
        ("1900-02-29T00:00:00Z", None),
        ("2026-13-01T00:00:00Z", None),
        ("2026-00-01T00:00:00Z", None),
        ("2026-01-00T00:00:00Z", None),
        ("2026-01-01T00:00:00", None),
        ("2026-01-01 00:00:00Z", None),
        ("2026-01-01T00:00:00,5Z", None),
        ("2026-01-01T00:00:00Z\n", None),
        ("", None),
    ],
)
def test_one_by_one_and_in_columns(text: str, value: int | None) -> None:
    assert time_us(text) == value
    assert times_us([text, "2026-10-31T10:00:00Z", text]).tolist()[::2] == [NO_TIME if value is None else value] * 2
