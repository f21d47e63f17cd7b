import pytest

from jobs.errors import Unauthorized
from jobs.store.for_api.item_quota import UNLIMITED, ItemQuota
from jobs.store.keys import DAY_MS

NOON_MS = 20_000 * DAY_MS + DAY_MS // 2


def quota_of(per_day: int | None = None, pending_max: int | None = None) -> ItemQuota:
    quota = ItemQuota("id")
    quota.per_day, quota.pending_max = per_day, pending_max
    return quota


@pytest.mark.parametrize(
    ("quota", "args"),
    [
        (UNLIMITED, (100, "", 0)),
        (quota_of(pending_max=7), (7, "", 0)),
        (quota_of(pending_max=1000), (100, "", 0)),
        (quota_of(5), (100, "id", 5)),
        (quota_of(5, 7), (7, "id", 5)),
    ],
)
def test_the_scripts_get_the_lower_limit_and_a_counter_only_if_there_is_a_daily_quota(
    quota: ItemQuota, args: tuple[int, str, int]
) -> None:
    assert quota.script_args(100) == args


def test_what_is_left_is_that_of_the_day() -> None:
    quota = quota_of(10)
    assert quota.left(NOON_MS) == (10, 43_200)
    quota.set_used(4, NOON_MS)
    assert quota.left(NOON_MS + 1) == (6, 43_200)
    assert quota.left(NOON_MS + DAY_MS // 2 - 1) == (6, 1), "rounded up: the last second of the day"
    assert quota.left(NOON_MS + DAY_MS // 2) == (10, 86_400), "a new day"
    quota.per_day = 3  # lowered since
    assert quota.left(NOON_MS) == (0, 43_200)
    assert UNLIMITED.left(NOON_MS) is None


def test_an_ended_key_has_no_arguments() -> None:
    quota = quota_of(10)
    quota.key_ended = True
    with pytest.raises(Unauthorized):
        quota.script_args(100)
