"""Whose doorbells a worker takes: those of its versions, and those of the name if none is newer."""

from collections.abc import Callable

import pytest

from jobs.store import keys
from jobs.store.keys import Heartbeat
from tests.support.store import MODEL, WORKER_ID, Store
from worker.reaper.reaper import Reaper

MakeReaper = Callable[..., Reaper]
OLDER, OURS, NEWER = (f"{MODEL}@{version}" for version in (8, 9, 10))
ALONE, BOTH = frozenset({OURS}), frozenset({OURS, MODEL})
LONG_LEASES = {"lease_seconds": 20}  # heartbeats may then last for as long as a slow machine needs


@pytest.mark.parametrize(
    ("ready", "selected"),
    [
        ([], BOTH),  # no other worker is ready: as at a start
        ([Heartbeat(OURS, WORKER_ID, 1)], BOTH),
        ([Heartbeat(OURS, "other", 1), Heartbeat(OLDER, "other", 1)], BOTH),
        ([Heartbeat(OURS, WORKER_ID, 1), Heartbeat(NEWER, "other", 1)], ALONE),
        ([Heartbeat(OLDER, "other", 1)], ALONE),  # until a child of this worker is ready
    ],
)
async def test_doorbells_of_the_name_are_the_newest_versions(
    store: Store, make_reaper: MakeReaper, ready: list[Heartbeat], selected: frozenset[str]
) -> None:
    for heartbeat in ready:
        store.leases.heartbeat([(MODEL, heartbeat)], seconds=30)
    seen = list[frozenset[str]]()
    reaper = make_reaper(consume=seen.append, **LONG_LEASES)
    for _ in range(5):
        reaper.run_once()
    assert seen == [selected] * 5


async def test_the_name_is_left_to_a_newer_version_only_when_that_was_ready_for_some_scans(
    store: Store, make_reaper: MakeReaper
) -> None:
    seen = list[frozenset[str]]()
    reaper = make_reaper(consume=seen.append, **LONG_LEASES)
    for _ in range(2):
        reaper.run_once()
    store.leases.heartbeat([(MODEL, Heartbeat(NEWER, "other", 1))], seconds=30)
    for _ in range(4):
        reaper.run_once()
    assert seen == [BOTH] * 4 + [ALONE] * 2
    store.leases.remove_heartbeats(MODEL, "other")
    reaper.run_once()
    assert seen[-1] == BOTH


@pytest.mark.parametrize("ends_in_ms", [-1, 3_600_000], ids=["it has ended", "the clock was set back"])
async def test_a_heartbeat_of_another_time_does_not_count(
    store: Store, make_reaper: MakeReaper, ends_in_ms: int
) -> None:
    seconds, _ = store.redis.time()
    store.redis.zadd(keys.HEARTBEATS + MODEL, {Heartbeat(NEWER, "other", 1).pack(): int(seconds) * 1000 + ends_in_ms})
    seen = list[frozenset[str]]()
    reaper = make_reaper(consume=seen.append)
    for _ in range(5):
        reaper.run_once()
    assert set(seen) == {BOTH}


async def test_a_model_that_only_some_children_can_serve_is_served(store: Store, make_reaper: MakeReaper) -> None:
    seen = list[frozenset[str]]()
    reaper = make_reaper(consume=seen.append, load_errors=lambda: {OURS: "its weights were lost"}, **LONG_LEASES)
    reaper.run_once()
    store.leases.heartbeat([(MODEL, Heartbeat(OURS, WORKER_ID, 1))], seconds=30)
    reaper.run_once()
    assert seen == [frozenset(), BOTH]
