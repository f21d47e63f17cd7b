"""SIGTERM: work in progress is completed, no client waits for long, and nothing fails."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import httpx
import pytest

from jobs.store import keys
from tests.integration.api.asgi.test_wire import connected, first_piece, read_response, request, to_the_end
from tests.support.archives import make_tar
from tests.support.processes import Api
from tests.support.stack import PNG, Stack, load_client, results_of, submit_all
from tests.support.waiting import eventually, wait_until

STOP_SECONDS_MAX = 25  # less than the 30 s for which the API may hold the responses open


async def test_responses_that_wait_end_cleanly_when_the_api_stops(stack: Stack, shirt: bytes) -> None:
    api = stack.api()  # and no worker: the jobs do not end
    (job_id,) = await submit_all(api.url, [shirt])
    url = f"/v1/jobs/{job_id}"
    async with load_client(api.url) as client:

        async def whole(path: str) -> tuple[int, bytes]:
            async with client.get(path) as response:
                return response.status, await response.read()  # raises if the stream is cut

        async def submitted() -> tuple[int, bytes]:
            async with client.post("/v1/jobs", data=shirt, headers=PNG | {"Prefer": "wait=30"}) as response:
                return response.status, await response.read()

        async with client.get(f"{url}/events") as events:
            assert (await events.content.readany()).startswith(b"retry:")
            paths = (f"{url}?wait=30", f"{url}/results?format=ndjson&follow=true", f"{url}/events")
            waiting = [asyncio.create_task(whole(path)) for path in paths] + [asyncio.create_task(submitted())]
            await eventually(lambda: stack.stat("accepted") == 2, what="the submit that waits")
            api.signal(signal.SIGTERM)
            async with asyncio.timeout(STOP_SECONDS_MAX):
                (poll, lines, more_events, accepted) = await asyncio.gather(*waiting)
                await events.read()
    await asyncio.to_thread(api.wait, STOP_SECONDS_MAX)
    assert (poll[0], lines[0], more_events[0], accepted[0]) == (200, 503, 200, 202)
    assert b'"code":"stream_interrupted"' in lines[1], "an orderly end would say that there are no more lines"
    assert b'"status":"queued"' in poll[1]
    assert b"Traceback" not in api.log.read_bytes()


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_followed_results_break_off_when_the_api_stops_and_go_on_at_another(
    stack: Stack, test_images: list[bytes], tmp_path: Path, encoding: str
) -> None:
    api, other = stack.api(), stack.api()
    worker = stack.worker(children=1)
    options = ["--silent", "--no-buffer", *(["--compressed"] if encoding == "gzip" else [])]

    async def lines_of(url: str, output: Path) -> tuple[int | None, list[bytes]]:
        """curl's exit status, and the whole lines."""
        curl = await asyncio.create_subprocess_exec("curl", *options, "--output", str(output), url)
        status = await curl.wait()
        data = await asyncio.to_thread(output.read_bytes)
        return status, [line for line in data.splitlines(keepends=True) if line.endswith(b"\n")]

    async with httpx.AsyncClient(base_url=other.url, timeout=60) as client:

        async def add(images: list[bytes]) -> None:
            tar = make_tar({f"{n}.png": image for n, image in enumerate(images)})
            added = await client.post(f"{path}/items", content=tar, headers={"Content-Type": "application/x-tar"})
            assert added.status_code == 202

        path = (await client.post("/v1/jobs?open=true")).headers["Location"]
        await add(test_images[:128])
        query, output = "results?format=ndjson&follow=true", tmp_path / "first"
        following = asyncio.create_task(lines_of(f"{api.url}{path}/{query}", output))
        await eventually(lambda: output.exists() and output.stat().st_size > 0, what="the first results")
        api.signal(signal.SIGTERM)
        status, first = await following
        assert status not in (0, None), "curl reports that the response was not complete"
        assert b"Traceback" not in api.log.read_bytes()

        await add(test_images[128:300])
        await client.post(f"{path}/seal")
        status, rest = await lines_of(f"{other.url}{path}/{query}&from={len(first)}", tmp_path / "rest")
    assert status == 0
    assert [json.loads(line)["index"] for line in first + rest] == list(range(300))
    assert worker.running()


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_request_on_an_idle_connection_is_answered_while_the_api_stops(
    stack: Stack, shirt: bytes, processes: str
) -> None:
    """As a proxy sends it that pools connections; uvicorn closes them at once."""
    api = stack.api(API_PROCESSES=processes)
    submit = request("/v1/jobs", "Content-Type: image/png", f"Content-Length: {len(shirt)}", method="POST") + shirt
    with connected(api) as pooled, connected(api) as unused, pooled.makefile("rb") as stream:
        pooled.sendall(submit)
        status, headers, _ = read_response(stream)
        assert (status, headers.get("connection")) == (b"HTTP/1.1 202 Accepted", None)
        unused.sendall(request("/livez"))  # to know that it is accepted
        first_piece(unused)

        api.signal(signal.SIGTERM)
        wait_until(lambda: not accepts(api), what="an API that accepts no connections")
        pooled.sendall(submit)
        status, headers, _ = read_response(stream)
        assert (status, headers["connection"]) == (b"HTTP/1.1 202 Accepted", "close")
        assert stream.read() == b""
        assert to_the_end(unused) == b"", "an idle connection does not hold the API for long"
    api.wait(STOP_SECONDS_MAX)
    assert stack.stat("accepted") == 2


def accepts(api: Api) -> bool:
    try:
        with connected(api):
            return True
    except ConnectionRefusedError:
        return False


async def test_uploads_in_progress_are_completed(stack: Stack, test_images: list[bytes]) -> None:
    api = stack.api()
    worker = stack.worker()
    stopping = asyncio.Event()
    data = make_tar({f"{n}.png": image for n, image in enumerate(test_images[:200])})
    halfway = 0

    async def slowly() -> AsyncIterator[bytes]:
        nonlocal halfway
        yield data[: len(data) // 2]
        halfway += 1
        await stopping.wait()
        yield data[len(data) // 2 :]

    async with aiohttp.ClientSession(api.url) as client:

        async def upload() -> str:
            async with client.post(
                "/v1/jobs", data=slowly(), headers={"Content-Type": "application/x-tar"}
            ) as response:
                assert response.status == 202, await response.text()
                return str((await response.json())["id"])

        uploads = [asyncio.create_task(upload()) for _ in range(4)]
        await eventually(lambda: halfway == 4 and stack.stat("accepted") == 4, what="four streams in their middle")
        api.signal(signal.SIGTERM)
        stopping.set()
        ids = await asyncio.gather(*uploads)
    await asyncio.to_thread(api.wait, STOP_SECONDS_MAX)

    stack.wait_for_transitions(800)
    states = {bytes(stack.redis.hget(keys.JOB.encode() + key, keys.FIELDS["state"]) or b"") for key in map(_raw, ids)}
    assert states == {b"c"}
    assert worker.running()


async def test_a_worker_completes_its_leases_and_others_do_the_rest(stack: Stack, test_images: list[bytes]) -> None:
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
