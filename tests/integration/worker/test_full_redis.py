"""A Redis that refuses plain writes: only workers that go on can free its memory."""

import asyncio
import signal

from jobs.store import keys
from tests.support.stack import Stack, results_of, submit_all
from tests.support.waiting import eventually, wait_until

MODEL = "fmnist-mlp"


async def test_a_worker_goes_on_and_drains_what_was_accepted(stack: Stack, shirt: bytes) -> None:
    api, worker = stack.api(), stack.worker()
    worker.signal(signal.SIGSTOP)
    ids = await submit_all(api.url, [shirt] * 200)
    stack.redis.config_set("maxmemory", 1)
    assert stack.redis.llen(keys.QUEUE + MODEL) > 0, "the worker takes its doorbells from a full Redis"
    worker.signal(signal.SIGCONT)

    assert {result["class"] for result in await results_of(api.url, ids)} == {"Shirt"}
    before = heartbeat_ends(stack)
    await eventually(lambda: heartbeat_ends(stack) > before, what="further heartbeats")
    assert worker.running()
    assert "Unrecoverable" not in worker.output()


async def test_a_worker_starts_and_drains_what_was_accepted(stack: Stack, shirt: bytes) -> None:
    api = stack.api()
    stack.worker(children=1).stop()
    for model in (MODEL, f"{MODEL}@1"):  # as of an older release, which had other templates
        stack.redis.delete(keys.DOORBELL_TEMPLATE + model)
    ids = await submit_all(api.url, [shirt] * 200)
    stack.redis.config_set("maxmemory", 1)

    await asyncio.to_thread(stack.worker, REDIS_MAXMEMORY_BYTES="1")

    assert {result["class"] for result in await results_of(api.url, ids)} == {"Shirt"}


def test_a_worker_leaves_nothing_of_its_doorbells_in_redis(stack: Stack) -> None:
    worker = stack.worker(children=1)
    template = stack.redis.get(keys.DOORBELL_TEMPLATE + MODEL)
    assert template is not None
    stack.redis.lpush(keys.QUEUE + MODEL, template)
    wait_until(lambda: stack.redis.llen(keys.QUEUE + MODEL) == 0, what="a doorbell that is taken")
    wait_until(lambda: stack.redis.exists(keys.HEARTBEATS + keys.MAIN), what="the first scan of the main process")
    assert worker.running()
    assert sorted(stack.redis.keys()) == [
        b"bell:fmnist-mlp",
        b"bell:fmnist-mlp@1",
        b"models",
        b"paces",
        b"serving:@main",
        b"serving:fmnist-mlp",
    ]


def heartbeat_ends(stack: Stack) -> float:
    return sum(score for _, score in stack.redis.zrange(keys.HEARTBEATS + MODEL, 0, -1, withscores=True))
