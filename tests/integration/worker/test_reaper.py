"""The housekeeping thread, in this process on a real store, and in a real worker."""

import asyncio
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import redis
from billiard.exceptions import WorkerLostError

from jobs.store import keys
from jobs.store.keys import Heartbeat
from tests.support.processes import MAXMEMORY_BYTES, ROOT, Process, Valkey, children_of
from tests.support.stack import PNG, Stack
from tests.support.store import MODEL, Store, owner_token
from tests.support.waiting import eventually, wait_until
from worker.reaper import Reaper
from worker.settings import WorkerSettings

MakeReaper = Callable[..., Reaper]


@pytest.fixture
def make_reaper(valkey: Valkey) -> Iterator[MakeReaper]:
    made = []

    def make(*, heard: list[frozenset[str]] | None = None, **settings: float) -> Reaper:
        values = {"redis_url": valkey.url, "redis_maxmemory_bytes": MAXMEMORY_BYTES}
        listen_to = (lambda _: None) if heard is None else heard.append
        checked = WorkerSettings(**values | settings)
        made.append(Reaper(checked, [f"{MODEL}@9"], "boot", given_up.append, listen_to=listen_to))
        return made[-1]

    yield make
    for reaper in made:
        if reaper.is_alive():
            reaper.stop()


given_up: list[str] = []


async def test_a_dead_childs_lease_is_freed_while_a_long_sweep_is_due(store: Store, make_reaper: MakeReaper) -> None:
    await store.submit(b"victim")
    store.claim(owner_token(task_id="task9"))
    trash = bytes(16) + struct.pack(">II", 0, 1_000_000)  # as of a canceled job of so many chunks
    store.redis.rpush(keys.TRASH, trash)
    reaper = make_reaper()
    reaper.start()
    await eventually(lambda: store.redis.lindex(keys.TRASH, 0) not in (trash, None), what="the begin of the sweep")

    reaper.child_died("task9", WorkerLostError("killed"))

    await eventually(lambda: not store.redis.exists(keys.LEASES), seconds=1.5, what="the release")
    assert store.redis.llen(keys.TRASH) > 0, "the sweep is not over yet"


async def test_a_release_that_redis_refuses_is_made_later_and_as_a_crash(
    store: Store, make_reaper: MakeReaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.submit(b"poison")
    store.claim(owner_token(task_id="task9"))
    reaper = make_reaper(reap_seconds=0.1)
    failed = threading.Event()
    release = reaper._store.release

    def fail_once(*args: str, **options: str) -> int:
        if not failed.is_set():
            failed.set()
            raise redis.exceptions.ConnectionError("gone")
        return release(*args, **options)

    monkeypatch.setattr(reaper._store, "release", fail_once)
    reaper.start()
    reaper.child_died("task9", WorkerLostError("killed"))

    await eventually(lambda: not store.redis.exists(keys.LEASES), what="the release")
    assert failed.is_set()
    lease = store.claim(turn=1)
    assert lease.suspect
    assert (lease.chunks[0].failure_counts.crashes, lease.chunks[0].failure_counts.lost_leases) == (1, 0)


DEAF = """
import os
from kombu.transport.redis import Channel

def listen_without_asking(channel, timeout=None):
    channel._in_poll = channel.client.connection

if __name__ == "__main__":
    Channel._brpop_start = listen_without_asking
    from worker.main import run
    run()
"""
STUCK = """
import time
import worker.classify.process

if __name__ == "__main__":
    from worker.main import run
    run()
else:  # a child
    worker.classify.process.load_package = lambda *_: time.sleep(1000)
"""
HUNG = """
import time
import worker.classify.lease_run

if __name__ == "__main__":
    from worker.main import run
    run()
else:  # a child
    worker.classify.lease_run.LeaseRunner.run = lambda *args, **options: time.sleep(1000)
"""
QUICK = {"MODEL": MODEL, "WORKER_CHILDREN": "1", "REAP_SECONDS": "0.2"}


def worker_of(stack: Stack, script: Path, **settings: str) -> Process:
    environment = {"REDIS_URL": stack.valkey.url, "REDIS_MAXMEMORY_BYTES": str(MAXMEMORY_BYTES)}
    return Process(
        [sys.executable, str(script)],
        script.with_suffix(".log"),
        environment | {"PYTHONPATH": str(ROOT)} | QUICK | settings,
    )


def test_a_worker_that_is_connected_but_deaf_to_doorbells_exits(stack: Stack, tmp_path: Path) -> None:
    script = tmp_path / "deaf.py"
    script.write_text(DEAF)
    with worker_of(stack, script, WATCHDOG_SECONDS="8") as worker:
        wait_until(lambda: stack.redis.zcard(keys.HEARTBEATS + MODEL) == 1, what="a ready child")
        stack.redis.lpush(keys.QUEUE + MODEL, stack.redis.get(keys.DOORBELL_TEMPLATE + MODEL) or b"")
        assert worker.wait() == 1
        line = "darkroom worker: doorbells wait, and this worker has taken none for 8 s"
        assert worker.output().splitlines()[-1] == line


def test_a_worker_whose_children_never_become_ready_exits_and_leaves_none_of_them(stack: Stack, tmp_path: Path) -> None:
    script = tmp_path / "stuck.py"
    script.write_text(STUCK)
    with worker_of(stack, script, LOAD_SECONDS_MAX="3") as worker:
        children = set[int]()  # Celery, too, has no more patience than that: it may start one in place of another

        def has_ended() -> bool:
            children.update(spawned_by(worker.pid))
            return not worker.running()

        wait_until(has_ended, what="the end of patience", seconds=60)
        assert worker.wait() == 1
        assert children
        assert "giving up: no child has been ready for 3 s" in worker.output()
    for child in children:
        wait_until(lambda child=child: not Path(f"/proc/{child}").exists(), what="the child's end")


def test_a_child_whose_worker_was_killed_ends_though_it_hangs(stack: Stack, tmp_path: Path, shirt: bytes) -> None:
    script = tmp_path / "hung.py"
    script.write_text(HUNG)
    limits = {"TASK_TIME_LIMIT_SECONDS": "5", "WATCHDOG_SECONDS": "20"}
    with worker_of(stack, script, **limits) as worker, httpx.Client(base_url=stack.api().url) as client:
        wait_until(lambda: stack.redis.zcard(keys.HEARTBEATS + MODEL) == 1, what="a ready child")
        assert client.post("/v1/jobs", content=shirt, headers=PNG).status_code == 202
        wait_until(lambda: stack.redis.zcard(keys.LEASES), what="its lease")
        (child,) = spawned_by(worker.pid)
        worker.kill()
        wait_until(lambda: not Path(f"/proc/{child}").exists(), what="the child's end")


def spawned_by(pid: int) -> list[int]:
    return [child for child in children_of(pid) if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()]


OLDER, OURS, NEWER = (f"{MODEL}@{version}" for version in (8, 9, 10))
ALONE, BOTH = frozenset({OURS}), frozenset({OURS, MODEL})


@pytest.mark.parametrize(
    ("ready", "heard"),
    [
        ([], BOTH),  # nobody else is: as at a start
        ([Heartbeat(OURS, "boot", 1)], BOTH),
        ([Heartbeat(OURS, "other", 1), Heartbeat(OLDER, "other", 1)], BOTH),
        ([Heartbeat(OURS, "boot", 1), Heartbeat(NEWER, "other", 1)], ALONE),
        ([Heartbeat(OLDER, "other", 1)], ALONE),  # until a child of ours is ready
    ],
)
async def test_doorbells_of_the_name_are_the_newest_versions(
    store: Store, make_reaper: MakeReaper, ready: list[Heartbeat], heard: frozenset[str]
) -> None:
    for heartbeat in ready:
        store.leases.heartbeat(MODEL, heartbeat, seconds=5)
    seen = list[frozenset[str]]()
    make_reaper(heard=seen, reap_seconds=0.02).start()
    await eventually(lambda: len(seen) >= 5, what="some scans")
    assert set(seen) == {heard}


async def test_they_are_left_to_a_newer_version_only_when_it_was_ready_for_a_while(
    store: Store, make_reaper: MakeReaper
) -> None:
    seen = list[frozenset[str]]()
    reaper = make_reaper(heard=seen)
    for _ in range(2):
        reaper._scan()
    store.leases.heartbeat(MODEL, Heartbeat(NEWER, "other", 1), seconds=5)
    for _ in range(4):
        reaper._scan()
    assert seen == [BOTH] * 4 + [ALONE] * 2
    store.leases.remove_heartbeats(MODEL, "other")
    reaper._scan()
    assert seen[-1] == BOTH


@pytest.mark.parametrize("ends_in_ms", [-1, 3_600_000], ids=["it has ended", "the clock was set back"])
async def test_a_presence_of_another_time_is_none(store: Store, make_reaper: MakeReaper, ends_in_ms: int) -> None:
    seconds, _ = store.redis.time()
    store.redis.zadd(keys.HEARTBEATS + MODEL, {Heartbeat(NEWER, "other", 1).pack(): int(seconds) * 1000 + ends_in_ms})
    seen = list[frozenset[str]]()
    reaper = make_reaper(heard=seen)
    for _ in range(5):
        reaper._scan()
    assert set(seen) == {BOTH}


async def test_a_model_that_only_some_children_can_serve_is_served(store: Store, make_reaper: MakeReaper) -> None:
    seen = list[frozenset[str]]()
    reaper = make_reaper(heard=seen)
    reaper._load_errors = lambda: {OURS: "its weights were lost"}  # type: ignore[method-assign]  # as a child would note
    reaper._scan()
    store.leases.heartbeat(MODEL, Heartbeat(OURS, "boot", 1), seconds=5)
    reaper._scan()
    assert seen == [frozenset(), BOTH]


async def test_a_worker_that_is_told_to_stop_shows_no_presence_and_asks_for_nothing(
    store: Store, make_reaper: MakeReaper
) -> None:
    store.leases.heartbeat(MODEL, Heartbeat(OURS, "boot", 1), seconds=5)
    seen = list[frozenset[str]]()
    reaper = make_reaper(heard=seen)
    reaper.ending()
    reaper._scan()
    assert seen == []
    assert store.redis.zcard(keys.HEARTBEATS + MODEL) == 0


@pytest.mark.parametrize("sign", ["it takes doorbells", "its children hold leases"])
async def test_the_watchdog_leaves_a_worker_alone_that_shows_life(
    store: Store, make_reaper: MakeReaper, sign: str
) -> None:
    given_up.clear()
    reaper = make_reaper(reap_seconds=0.02, watchdog_seconds=0.5)
    store.leases.heartbeat(MODEL, Heartbeat(OURS, "boot", 1), seconds=8)
    store.redis.lpush(keys.QUEUE + MODEL, b"a doorbell")
    if sign == "its children hold leases":
        await store.submit(b"slow")
        store.claim(owner_token(task_id="task9"))
    reaper.start()
    for _ in range(20):
        if sign == "it takes doorbells":
            reaper.bell_taken()
        await asyncio.sleep(0.1)
    assert given_up == []

    store.redis.delete(keys.LEASES)
    await eventually(lambda: given_up, what="the end of patience")


async def test_a_worker_that_loads_for_longer_than_the_watchdog_waits_is_left_alone(
    store: Store, make_reaper: MakeReaper
) -> None:
    given_up.clear()
    reaper = make_reaper(reap_seconds=1, watchdog_seconds=5, load_seconds_max=20)
    for _ in range(20):
        reaper._scan()
    store.leases.heartbeat(MODEL, Heartbeat(OURS, "boot", 1), seconds=8)
    store.redis.lpush(keys.QUEUE + MODEL, b"a doorbell")
    for _ in range(5):
        reaper._scan()
    assert given_up == []
    reaper._scan()
    assert given_up == ["doorbells wait, and this worker has taken none for 5 s"]

    given_up.clear()
    store.leases.remove_heartbeats(MODEL, "boot")
    for _ in range(5):
        reaper._scan()
    assert given_up == []
    reaper._scan()
    assert given_up == ["no child has been ready for 5 s"], "it is another thing to have lost them"

    given_up.clear()
    stuck = make_reaper(reap_seconds=1, watchdog_seconds=5, load_seconds_max=20)
    for _ in range(20):
        stuck._scan()
    assert given_up == []
    stuck._scan()
    assert given_up == ["no child has been ready for 20 s"]


async def test_a_model_that_is_not_served_stops_no_housekeeping_of_a_full_redis(
    store: Store, make_reaper: MakeReaper
) -> None:
    await store.submit(b"victim")
    store.claim(owner_token(task_id="task9"))
    reaper = make_reaper(reap_seconds=0.2)
    reaper._load_errors = lambda: {"broken": "it is broken"}  # type: ignore[method-assign]  # as a child would note
    maxmemory = store.redis.config_get("maxmemory")["maxmemory"]
    store.redis.config_set("maxmemory", 1)
    try:
        reaper.start()
        reaper.child_died("task9", WorkerLostError("killed"))
        await eventually(lambda: not store.redis.exists(keys.LEASES), seconds=5, what="the release")
        scans = store.redis.info("commandstats")["cmdstat_evalsha"]["calls"]
        await eventually(
            lambda: store.redis.info("commandstats")["cmdstat_evalsha"]["calls"] > scans + 2, what="further sweeps"
        )
        assert not store.redis.exists(keys.LOAD_ERRORS)
    finally:
        store.redis.config_set("maxmemory", maxmemory)
    await eventually(lambda: store.redis.exists(keys.LOAD_ERRORS), what="what is said once there is room")
