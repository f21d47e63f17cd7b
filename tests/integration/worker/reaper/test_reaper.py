"""The reaper thread on a real store: releases leases, survives failures of Redis, and stops."""

import struct
import threading
from collections.abc import Callable

import pytest
import redis
from billiard.exceptions import WorkerLostError

from jobs.store import keys
from jobs.store.for_workers.leases import LeaseStore
from jobs.store.keys import Heartbeat
from tests.support.store import MODEL, WORKER_ID, Store, owner_token
from tests.support.waiting import eventually
from worker.reaper.reaper import Reaper

MakeReaper = Callable[..., Reaper]
REF = f"{MODEL}@9"


async def test_a_dead_childs_lease_is_freed_while_a_long_sweep_is_due(store: Store, make_reaper: MakeReaper) -> None:
    await store.submit(b"victim")
    store.claim(owner_token(task_id="task9"))
    trash = bytes(16) + struct.pack(">II", 0, 1_000_000)  # as of a canceled job of so many chunks
    store.redis.rpush(keys.TRASH, trash)
    reaper = make_reaper()
    reaper.start()
    await eventually(lambda: store.redis.lindex(keys.TRASH, 0) not in (trash, None), what="the begin of the sweep")

    reaper.child_died("task9", WorkerLostError("killed"))

    await eventually(lambda: not store.redis.exists(keys.LEASES), what="the release")
    assert store.redis.llen(keys.TRASH) > 0, "the sweep is not over yet"


async def test_a_release_that_redis_refuses_is_made_later_and_as_a_crash(
    store: Store, make_reaper: MakeReaper, leases: LeaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.submit(b"poison")
    store.claim(owner_token(task_id="task9"))
    failed = threading.Event()
    release = leases.release

    def fail_once(*args: str, **options: str) -> int:
        if not failed.is_set():
            failed.set()
            raise redis.exceptions.ConnectionError("gone")
        return release(*args, **options)

    monkeypatch.setattr(leases, "release", fail_once)
    reaper = make_reaper(store=leases, reap_seconds=0.1)
    reaper.start()
    reaper.child_died("task9", WorkerLostError("killed"))

    await eventually(lambda: not store.redis.exists(keys.LEASES), what="the release")
    assert failed.is_set()
    reaper.stop()
    lease = store.claim(turn=1)
    assert lease.suspect
    assert (lease.chunks[0].failure_counts.crashes, lease.chunks[0].failure_counts.lost_leases) == (1, 0)


async def test_a_lapsed_lease_is_released_when_two_scans_in_a_row_see_it(store: Store, make_reaper: MakeReaper) -> None:
    await store.submit(b"victim")
    store.expire_lease(store.claim(owner_token(worker_id="other", task_id="task9")))
    reaper = make_reaper()
    reaper.run_once()
    assert store.redis.exists(keys.LEASES)
    reaper.run_once()
    assert not store.redis.exists(keys.LEASES)


async def test_after_a_scan_that_failed_a_lapsed_lease_is_seen_anew(
    store: Store, make_reaper: MakeReaper, leases: LeaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.submit(b"victim")
    store.expire_lease(store.claim(owner_token(worker_id="other", task_id="task9")))
    results, overdue = list[str](), leases.overdue

    def fail_the_second(limit: int) -> dict[str, str]:
        results.append("failed" if len(results) == 1 else "seen" if store.redis.exists(keys.LEASES) else "released")
        if len(results) == 2:
            raise redis.exceptions.ConnectionError("gone")
        return overdue(limit)

    monkeypatch.setattr(leases, "overdue", fail_the_second)
    make_reaper(store=leases, reap_seconds=0.02).start()
    await eventually(lambda: "released" in results, what="the release")
    assert results[: results.index("released")] == ["seen", "failed", "seen", "seen"]


async def test_a_worker_that_stops_removes_its_heartbeats_and_consumes_nothing(
    store: Store, make_reaper: MakeReaper
) -> None:
    store.leases.heartbeat([(MODEL, Heartbeat(REF, WORKER_ID, 1))], seconds=5)
    consumed = list[frozenset[str]]()
    reaper = make_reaper(consume=consumed.append)
    reaper.worker_is_stopping()
    reaper.run_once()
    assert consumed == []
    assert store.redis.zcard(keys.HEARTBEATS + MODEL) == 0


async def test_a_model_that_is_not_served_stops_no_housekeeping_of_a_full_redis(
    store: Store, make_reaper: MakeReaper
) -> None:
    await store.submit(b"victim")
    store.claim(owner_token(task_id="task9"))
    reaper = make_reaper(reap_seconds=0.2, load_errors=lambda: {"broken": "it is broken"})
    maxmemory = store.redis.config_get("maxmemory")["maxmemory"]
    store.redis.config_set("maxmemory", 1)
    try:
        reaper.start()
        reaper.child_died("task9", WorkerLostError("killed"))
        await eventually(lambda: not store.redis.exists(keys.LEASES), what="the release")
        scans = store.redis.info("commandstats")["cmdstat_evalsha"]["calls"]
        await eventually(
            lambda: store.redis.info("commandstats")["cmdstat_evalsha"]["calls"] > scans + 2, what="further sweeps"
        )
        assert not store.redis.exists(keys.LOAD_ERRORS)
    finally:
        store.redis.config_set("maxmemory", maxmemory)
    await eventually(lambda: store.redis.exists(keys.LOAD_ERRORS), what="the load error, once Redis has memory for it")
