"""Real workers that take no doorbells, never become ready, or leave a child that hangs."""

import sys
from pathlib import Path

import httpx

from jobs.store import keys
from tests.support.processes import MAXMEMORY_BYTES, ROOT, Process, children_of
from tests.support.stack import PNG, Stack
from tests.support.store import MODEL
from tests.support.waiting import wait_until

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
        children = set[int]()  # Celery, too, waits no longer than that: it may start a child in place of another

        def has_ended() -> bool:
            children.update(spawned_by(worker.pid))
            return not worker.running()

        wait_until(has_ended, what="the end of the worker", seconds=120)
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
