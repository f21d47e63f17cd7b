"""A response after a wait shows what a read shows, although the result is from the notice."""

import asyncio
from typing import Any

import httpx
import pytest

from jobs.codec import pack_outcomes
from jobs.item_codes import ItemCode
from jobs.records import Failure, Outcome
from jobs.store.for_api.job_reader import JobReader
from jobs.store.for_workers.leases import FinishedChunk
from tests.support.completions import ObservedCompletions, ranked_predictions, raw_id, start_long_poll, submit_image
from tests.support.store import OWNER, Store
from tests.support.waiting import eventually

PNG = {"Content-Type": "image/png"}
WAIT = {"Prefer": "wait=30"}  # longer than the client's timeout: a response in time is not a wait that ran out
OUTCOMES = [ranked_predictions(1), ranked_predictions(10), Failure(ItemCode.CORRUPT_IMAGE)]


async def assert_as_read(api: httpx.AsyncClient, answer: httpx.Response) -> dict[str, Any]:
    """Assert that the response shows the same job as a read, and return the job."""
    job: dict[str, Any] = answer.json()
    assert answer.status_code == 200
    assert job == (await api.get(job["links"]["self"])).json()
    return job


@pytest.mark.parametrize("outcome", OUTCOMES, ids=["1 class", "10 classes", "failed"])
async def test_a_submit_that_waited_shows_what_a_read_shows(
    notified_api: httpx.AsyncClient, store: Store, shirt: bytes, outcome: Outcome
) -> None:
    top_k = 1 if isinstance(outcome, Failure) else len(outcome)
    submitting = asyncio.create_task(notified_api.post(f"/v1/jobs?top_k={top_k}", content=shirt, headers=PNG | WAIT))
    store.finish(await store.claimed(), outcome)

    job = await assert_as_read(notified_api, await submitting)

    failed = isinstance(outcome, Failure)
    assert job["status"] == ("failed" if failed else "completed")
    assert (job["counts"]["succeeded"], job["counts"]["failed"]) == (int(not failed), int(failed))
    assert len(job["result"].get("top_k", [])) == (0 if failed else top_k)


@pytest.mark.parametrize("outcome", OUTCOMES, ids=["1 class", "10 classes", "failed"])
async def test_a_long_poll_shows_what_a_read_shows(
    notified_api: httpx.AsyncClient,
    observed_completions: ObservedCompletions,
    store: Store,
    shirt: bytes,
    outcome: Outcome,
) -> None:
    poll = await start_long_poll(notified_api, await submit_image(notified_api, shirt), observed_completions)
    store.finish(await store.claimed(), outcome)

    job = await assert_as_read(notified_api, await poll)
    assert job["status"] == ("failed" if isinstance(outcome, Failure) else "completed")


async def test_a_long_poll_that_starts_while_the_job_runs_shows_what_a_read_shows(
    notified_api: httpx.AsyncClient, observed_completions: ObservedCompletions, store: Store, shirt: bytes
) -> None:
    path = await submit_image(notified_api, shirt)
    lease = await store.claimed()
    poll = await start_long_poll(notified_api, path, observed_completions)
    store.finish(lease, ranked_predictions(5))

    assert (await assert_as_read(notified_api, await poll))["status"] == "completed"


@pytest.mark.parametrize("outcome", OUTCOMES, ids=["1 class", "10 classes", "failed"])
async def test_the_only_image_of_a_form_keeps_its_name(
    notified_api: httpx.AsyncClient, store: Store, shirt: bytes, outcome: Outcome
) -> None:
    files = [("files", ("ein \u201ebild\u201c.png", shirt))]
    submitting = asyncio.create_task(notified_api.post("/v1/jobs", files=files, headers=WAIT))
    store.finish(await store.claimed(), outcome)

    job = await assert_as_read(notified_api, await submitting)
    assert job["result"]["name"] == "ein \u201ebild\u201c.png"


async def test_the_result_of_one_image_is_not_read_again(
    notified_api: httpx.AsyncClient,
    observed_completions: ObservedCompletions,
    store: Store,
    shirt: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The notice contains it."""
    submitting = asyncio.create_task(notified_api.post("/v1/jobs", content=shirt, headers=PNG | WAIT))
    lease = await store.claimed()
    await eventually(lambda: observed_completions.waiting == 1, what="the submit that waits")
    reads = list[bytes]()
    get = JobReader.get

    async def count(jobs: JobReader, job_id: bytes, owner: str) -> Any:
        reads.append(job_id)
        return await get(jobs, job_id, owner)

    monkeypatch.setattr(JobReader, "get", count)
    store.finish(lease, ranked_predictions(5))

    assert (await submitting).json()["status"] == "completed"
    assert reads == []


async def test_a_wait_for_many_images_ends_with_the_last(
    notified_api: httpx.AsyncClient, store: Store, shirt: bytes
) -> None:
    files = [("files", (f"{n}.png", shirt)) for n in range(130)]
    submitting = asyncio.create_task(notified_api.post("/v1/jobs", files=files, headers=WAIT))
    for number in range(3):
        lease = await eventually(
            lambda number=number: found if (found := store.claim(number)).chunks else None, what="work"
        )
        store.finish(lease, Failure(ItemCode.CORRUPT_IMAGE) if number == 1 else ranked_predictions(5))

    job = await assert_as_read(notified_api, await submitting)
    assert (job["status"], job["counts"]["succeeded"], job["counts"]["failed"]) == ("completed", 66, 64)
    assert "result" not in job


async def test_a_wait_for_a_job_of_two_images_shows_what_a_read_shows(
    notified_api: httpx.AsyncClient, store: Store, shirt: bytes
) -> None:
    submitting = asyncio.create_task(
        notified_api.post("/v1/jobs", files=[("files", shirt), ("files", shirt)], headers=WAIT)
    )
    store.finish(await store.claimed(), ranked_predictions(5))

    job = await assert_as_read(notified_api, await submitting)
    assert (job["status"], job["counts"]["succeeded"]) == ("completed", 2)


async def test_a_job_that_is_canceled_while_it_is_awaited_is_shown_so(
    notified_api: httpx.AsyncClient, observed_completions: ObservedCompletions, store: Store, shirt: bytes
) -> None:
    path = await submit_image(notified_api, shirt)
    poll = await start_long_poll(notified_api, path, observed_completions)
    await store.jobs.cancel(raw_id(path), OWNER)

    job = await assert_as_read(notified_api, await poll)
    assert (job["status"], job["result"]["status"]) == ("canceled", "canceled")


@pytest.mark.parametrize("sealed_first", [True, False])
async def test_an_open_job_that_is_sealed_with_one_image_while_it_is_awaited_has_its_result(
    notified_api: httpx.AsyncClient,
    observed_completions: ObservedCompletions,
    store: Store,
    shirt: bytes,
    *,
    sealed_first: bool,
) -> None:
    path = (await notified_api.post("/v1/jobs?open=true")).headers["Location"]
    await notified_api.post(f"{path}/items", files=[("files", ("a.png", shirt))])
    poll = await start_long_poll(notified_api, path, observed_completions)
    if sealed_first:
        await notified_api.post(f"{path}/seal")
        store.finish(await store.claimed(), ranked_predictions(5))
    else:
        store.finish(await store.claimed(), ranked_predictions(5))
        await notified_api.post(f"{path}/seal")

    job = await assert_as_read(notified_api, await poll)
    assert (job["status"], job["result"]["name"], job["result"]["class"]) == ("completed", "a.png", "Coat")


async def test_jobs_that_end_in_one_call_each_wake_their_own_waiter(
    notified_api: httpx.AsyncClient, observed_completions: ObservedCompletions, store: Store, shirt: bytes
) -> None:
    submits = [
        asyncio.create_task(notified_api.post("/v1/jobs", files=[("files", (f"{n}.png", shirt))], headers=WAIT))
        for n in range(20)
    ]
    await eventually(lambda: observed_completions.waiting == 20 and store.stat("accepted") == 20, what="twenty waiters")
    lease = store.claim()
    done = []
    for n, claimed in enumerate(lease.chunks):
        outcome = Failure(ItemCode.CORRUPT_IMAGE) if n % 3 == 0 else ranked_predictions(n % 5 + 1)
        packed = pack_outcomes("fmnist-mlp@1", [outcome])
        done.append(FinishedChunk(claimed.chunk_ref, int(n % 3 != 0), packed))
    store.leases.finish(lease.token, done)

    names = [(await assert_as_read(notified_api, await answer))["result"]["name"] for answer in submits]
    assert names == [f"{n}.png" for n in range(20)]
