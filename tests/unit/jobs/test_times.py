from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobs.times import iso_time

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_MS, LAST_MS = (
    int((when - EPOCH) / timedelta(milliseconds=1))
    for when in (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
)


def expected(ms: int) -> str:
    """The time as datetime formats it."""
    return (EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@given(st.integers(FIRST_MS, LAST_MS))
@example(0)
@example(-1)
@example(-1000)
@example(-1001)
@example(FIRST_MS)
@example(LAST_MS)
def test_a_time_is_formatted_as_by_datetime(ms: int) -> None:
    assert iso_time(ms) == expected(ms)


@given(st.integers(FIRST_MS // 1000 + 1, LAST_MS // 1000 - 1), st.sampled_from([-1, 0, 1, 999, 1000]))
def test_a_second_begins_with_its_first_millisecond(seconds: int, off_ms: int) -> None:
    assert iso_time(seconds * 1000 + off_ms) == expected(seconds * 1000 + off_ms)


@given(st.lists(st.integers(0, 300_000), min_size=2, max_size=300))
def test_cached_times_do_not_change_others(offsets: list[int]) -> None:
    now = 1_795_000_000_000
    assert [iso_time(now + off) for off in offsets] == [expected(now + off) for off in offsets]


@pytest.mark.parametrize(
    ("ms", "text"), [(1_795_795_200_000, "2026-11-27T16:00:00.000Z"), (7, "1970-01-01T00:00:00.007Z")]
)
def test_a_time_is_formatted_as_in_rfc_3339(ms: int, text: str) -> None:
    assert iso_time(ms) == text


def test_no_time_is_none() -> None:
    assert iso_time(None) is None
