"""Waits for a job's end with notices that cannot be parsed, slow uploads, and clients that disconnect."""

import asyncio
import math
import struct
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from api.results import completion
from jobs.codec import pack_outcomes
from jobs.store import keys
from jobs.store.for_workers.leases import FinishedChunk
from jobs.store.job_hash import job_key
from jobs.store.keys import ENDED_CHANNEL
from tests.integration.api.conftest import StartApi
from tests.support.completions import ObservedCompletions, ranked_predictions, raw_id, start_long_poll, submit_image
from tests.support.store import Store, owner_token
from tests.support.waiting import eventually

PNG = {"Content-Type": "image/png"}
WAIT = {"Prefer": "wait=30"}  # longer than the client's timeout: a response in time is not a wait that ran out
CHANNEL = f"{ENDED_CHANNEL}.0"


@pytest.mark.parametrize("garbage", [b"x", b"", b"longer than the head of a notice", b"\xff" * 18])
async def test_a_notice_that_cannot_be_parsed_does_not_end_the_subscription(
    notified_api: httpx.AsyncClient,
    observed_completions: ObservedCompletions,
    store: Store,
    shirt: bytes,
    garbage: bytes,
) -> None:
    poll = await start_long_poll(notified_api, await submit_image(notified_api, shirt), observed_completions)
    assert store.redis.publish(CHANNEL, garbage) == 1
    store.finish(await store.claimed(), ranked_predictions(5))

    assert (await poll).json()["status"] == "completed"


@pytest.mark.parametrize(
    "payload",
    [
        b"?",
        b"c" + bytes(8),
        b"z" + bytes(8) + b"\x00",
        b"c" + bytes(8) + b"\x04fmni\xff",
        b"c" + struct.pack(">d", math.inf) + pack_outcomes("fmnist-mlp@1", [ranked_predictions(1)]),
    ],
    ids=["too short", "without a result", "unknown state", "cut off", "invalid time"],
)
async def test_a_notice_whose_payload_cannot_be_parsed_makes_the_waiter_read_the_job(
    notified_api: httpx.AsyncClient,
    observed_completions: ObservedCompletions,
    store: Store,
    shirt: bytes,
    payload: bytes,
) -> None:
    path = await submit_image(notified_api, shirt)
    poll = await start_long_poll(notified_api, path, observed_completions)
    store.redis.publish(CHANNEL, raw_id(path) + len(payload).to_bytes(2, "big") + payload)

    response = await poll
    assert (response.status_code, response.json()["status"]) == (200, "queued")


async def test_a_notice_of_a_job_without_a_waiter_is_ignored(
    notified_api: httpx.AsyncClient, observed_completions: ObservedCompletions, store: Store, shirt: bytes
) -> None:
    path = await submit_image(notified_api, shirt)
    poll = await start_long_poll(notified_api, path, observed_completions)
    await store.submit(b"another")
    for claimed in store.claim(items=2).chunks:  # both chunks, with one call for each
        packed = pack_outcomes("fmnist-mlp@1", [ranked_predictions(1)])
        store.leases.finish(owner_token(0), [FinishedChunk(claimed.chunk_ref, 1, packed)])

    assert (await poll).json()["status"] == "completed"
    assert store.redis.hget(job_key(raw_id(path)), keys.FIELDS["state"]) == b"c"


@pytest.mark.parametrize("path", ["/v1/jobs", "/predict"])
async def test_a_reread_does_not_wake_a_waiter_whose_upload_is_still_arriving(
    start_api: StartApi,
    observed_completions: ObservedCompletions,
    store: Store,
    shirt: bytes,
    path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its job is not in the store yet, which does not mean that it was deleted."""
    monkeypatch.setattr("api.results.completion.REREAD_SECONDS", 0.05)
    api = await start_api()
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="shirt.png"\r\n\r\n'
    form = head + shirt + b"\r\n--b--\r\n"

    async def slow() -> AsyncIterator[bytes]:
        yield form[:200]
        await eventually(lambda: observed_completions.waiting == 1, what="the waiter")
        before = observed_completions.rereads
        await eventually(lambda: observed_completions.rereads >= before + 2, what="two rereads")
        yield form[200:]

    headers = {"Content-Type": "multipart/form-data; boundary=b"} | WAIT
    submit = asyncio.create_task(api.post(path, content=slow(), headers=headers))
    store.finish(await store.claimed(), ranked_predictions(5))
    response = await submit
    assert response.status_code == 200
    job = response.json()
    assert (job if path == "/predict" else job["result"])["class"] == "Coat"


@pytest.mark.parametrize("seconds", [0.2, 1])
@pytest.mark.parametrize("what", ["submit", "long poll"])
async def test_the_waiter_of_a_client_that_disconnects_is_removed(
    notified_api: httpx.AsyncClient, observed_completions: ObservedCompletions, shirt: bytes, what: str, seconds: float
) -> None:
    if what == "submit":
        request = notified_api.post(
            "/v1/jobs", content=shirt, headers=PNG | WAIT, timeout=httpx.Timeout(25, read=seconds)
        )
    else:
        request = notified_api.get(
            f"{await submit_image(notified_api, shirt)}?wait=30", timeout=httpx.Timeout(25, read=seconds)
        )
    with pytest.raises(httpx.ReadTimeout):
        await request
    await eventually(lambda: observed_completions.waiting == 0, seconds=20, what="the waiter's end")


async def test_the_waiter_of_a_client_that_stays_connected_is_not_removed(
    notified_api: httpx.AsyncClient,
    observed_completions: ObservedCompletions,
    store: Store,
    shirt: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watching, wait_for_disconnect = asyncio.Event(), completion.wait_for_disconnect

    async def watch(receive: Any) -> None:
        watching.set()
        await wait_for_disconnect(receive)

    monkeypatch.setattr(completion, "wait_for_disconnect", watch)
    poll = await start_long_poll(notified_api, await submit_image(notified_api, shirt), observed_completions)
    await watching.wait()
    assert not poll.done()
    store.finish(await store.claimed(), ranked_predictions(5))

    assert (await poll).json()["status"] == "completed"
