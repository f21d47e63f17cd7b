"""SIGTERM: what was begun comes to its end, nobody waits for long, and nothing fails."""

import asyncio
import signal
from collections.abc import AsyncIterator

import aiohttp

from jobs.store import keys
from tests.support.archives import make_tar
from tests.support.stack import PNG, Stack, load_client, results_of, submit_all
from tests.support.waiting import eventually

STOP_SECONDS_MAX = 25  # less than the 30 s for which the answers would be held


async def test_held_answers_end_cleanly_when_the_api_is_told_to_stop(stack: Stack, shirt: bytes) -> None:
    api = stack.api()  # and no worker: the jobs do not end
    (job_id,) = await submit_all(api.url, [shirt])
    url = f"/v1/jobs/{job_id}"
    async with load_client(api.url) as client:

        async def whole(path: str) -> tuple[int, bytes]:
            async with client.get(path) as answer:
                return answer.status, await answer.read()  # raises where the stream is cut

        async def submitted() -> tuple[int, bytes]:
            async with client.post("/v1/jobs", data=shirt, headers=PNG | {"Prefer": "wait=30"}) as answer:
                return answer.status, await answer.read()

        async with client.get(f"{url}/events") as events:
            assert (await events.content.readany()).startswith(b"retry:")
            paths = (f"{url}?wait=30", f"{url}/results?format=ndjson&follow=true", f"{url}/events")
            held = [asyncio.create_task(whole(path)) for path in paths] + [asyncio.create_task(submitted())]
            await eventually(lambda: stack.stat("accepted") == 2, what="the submit that waits")
            api.signal(signal.SIGTERM)
            async with asyncio.timeout(STOP_SECONDS_MAX):
                (poll, lines, more_events, accepted) = await asyncio.gather(*held)
                await events.read()
    await asyncio.to_thread(api.wait, STOP_SECONDS_MAX)
    assert (poll[0], lines[0], more_events[0], accepted[0]) == (200, 200, 200, 202)
    assert b'"status":"queued"' in poll[1]
    assert b"Traceback" not in api.log.read_bytes()


async def test_uploads_on_their_way_are_taken_to_their_end(stack: Stack, test_images: list[bytes]) -> None:
    api = stack.api()
    worker = stack.worker()
    told = asyncio.Event()
    data = make_tar({f"{n}.png": image for n, image in enumerate(test_images[:200])})
    halfway = 0

    async def slowly() -> AsyncIterator[bytes]:
        nonlocal halfway
        yield data[: len(data) // 2]
        halfway += 1
        await told.wait()
        yield data[len(data) // 2 :]

    async with aiohttp.ClientSession(api.url) as client:

        async def upload() -> str:
            async with client.post("/v1/jobs", data=slowly(), headers={"Content-Type": "application/x-tar"}) as answer:
                assert answer.status == 202, await answer.text()
                return str((await answer.json())["id"])

        uploads = [asyncio.create_task(upload()) for _ in range(4)]
        await eventually(lambda: halfway == 4 and stack.stat("accepted") == 4, what="four streams in their middle")
        api.signal(signal.SIGTERM)
        told.set()
        ids = await asyncio.gather(*uploads)
    await asyncio.to_thread(api.wait, STOP_SECONDS_MAX)

    stack.wait_for_transitions(800)
    states = {bytes(stack.redis.hget(keys.JOB.encode() + key, "s") or b"") for key in map(_raw, ids)}
    assert states == {b"c"}
    assert worker.running()


async def test_a_worker_ends_what_it_has_begun_and_others_do_the_rest(stack: Stack, test_images: list[bytes]) -> None:
    api, leaving = stack.api(), stack.worker()
    submitting = asyncio.create_task(submit_all(api.url, test_images))
    await eventually(lambda: stack.stat("transitions") > 200, what="a worker in full swing")
    leaving.signal(signal.SIGTERM)
    assert await asyncio.to_thread(leaving.wait, STOP_SECONDS_MAX) == 0
    staying = await asyncio.to_thread(stack.worker)
    results = await results_of(api.url, await submitting)

    assert {result["status"] for result in results} == {"succeeded"}
    assert stack.stat("transitions") == len(test_images)
    assert "ready again" not in leaving.output() + staying.output(), "no lease was left behind"


def _raw(job_id: str) -> bytes:
    return bytes.fromhex(job_id.replace("-", ""))
