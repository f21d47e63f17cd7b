import pytest

from api.auth import rate_limit
from api.auth.rate_limit import TokenBucket, limit_field, policy_field
from jobs.store.for_api.api_keys import KeyLimits


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock of buckets; the test sets its only element."""
    now = [1000.0]
    monkeypatch.setattr(rate_limit, "monotonic", lambda: now[0])
    return now


def taken(bucket: TokenBucket, tries: int) -> int:
    return sum(bucket.take() for _ in range(tries))


def test_a_second_of_requests_may_come_at_once_and_then_the_rate_applies(clock: list[float]) -> None:
    bucket = TokenBucket(10)
    assert taken(bucket, 30) == 10
    clock[0] += 0.375
    assert taken(bucket, 30) == 3
    clock[0] += 0.125
    assert taken(bucket, 30) == 2, "the fraction of a token is kept"
    clock[0] += 60
    assert taken(bucket, 30) == 10, "no more than a second's worth is saved"


def test_a_share_below_one_request_a_second_lets_one_request_in_at_a_time(clock: list[float]) -> None:
    bucket = TokenBucket(0.25)
    assert taken(bucket, 5) == 1
    assert bucket.wait_seconds == 4
    clock[0] += 3.9
    assert taken(bucket, 5) == 0
    assert bucket.wait_seconds == 1
    clock[0] += 0.1
    assert taken(bucket, 5) == 1


def test_after_the_wait_that_is_said_there_is_a_token(clock: list[float]) -> None:
    for per_second in (0.1, 0.3, 1, 1.5, 7, 1000):
        bucket = TokenBucket(per_second)
        taken(bucket, 2000)
        clock[0] += bucket.wait_seconds
        assert bucket.take(), per_second


@pytest.mark.parametrize(
    ("limits", "policy"),
    [
        (KeyLimits(), b""),
        (KeyLimits(pending_items=5), b""),
        (KeyLimits(requests_per_second=10), b'"requests";q=10;w=1'),
        (KeyLimits(items_per_day=5, pending_items=5), b'"items";q=5;w=86400'),
        (KeyLimits(requests_per_second=1, items_per_day=5), b'"requests";q=1;w=1, "items";q=5;w=86400'),
    ],
)
def test_the_policy_has_the_limits_of_a_window_of_time(limits: KeyLimits, policy: bytes) -> None:
    assert policy_field(limits) == policy


def test_the_field_of_limits_has_what_is_left(clock: list[float]) -> None:
    bucket = TokenBucket(2.5)
    bucket.take()
    assert limit_field(bucket, None) == b'"requests";r=1;t=1'
    assert limit_field(None, (7, 60)) == b'"items";r=7;t=60'
    assert limit_field(bucket, (0, 86_400)) == b'"requests";r=1;t=1, "items";r=0;t=86400'
