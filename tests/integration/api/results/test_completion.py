"""Answers that were held say what a read right after them says, though a notice has brought the result."""

import asyncio
import math
import struct
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from api.results import completion as waits
from jobs.codec import pack_outcomes
from jobs.item_codes import ItemCode
from jobs.records import Failure, Outcome, Prediction
from jobs.store import keys
from jobs.store.job_hash import job_key
from jobs.store.job_reader import JobReader
from jobs.store.keys import ENDED_CHANNEL
from jobs.store.leases import FinishedChunk, Lease
from tests.integration.api.conftest import StartApi
from tests.support.completions import ObservedCompletions, raw_id
from tests.support.store import OWNER, Store, owner_token
from tests.support.waiting import eventually

PNG = {"Content-Type": "image/png"}
WAIT = {"Prefer": "wait=30"}  # three times what the client waits: an answer in time is no wait that ran out
CHANNEL = f"{ENDED_CHANNEL}.0"
TOP_KS = (1, 10)


@pytest.fixture
async def api(start_api: StartApi, observed_completions: ObservedCompletions) -> httpx.AsyncClient:
    """An API whose held answers are woken by notices alone: it does not look by itself."""
    return await start_api(reread_seconds=3600)


def classes(top_k: int) -> Outcome:
    """As many as a worker would give, with confidences that have more digits than an answer."""
    return [Prediction((4 + n) % 10, 0.6488123456 / (n + 1)) for n in range(top_k)]


OUTCOMES = [*map(classes, TOP_KS), Failure(ItemCode.CORRUPT_IMAGE)]


def end(store: Store, lease: Lease, outcome: Outcome) -> None:
    """Finish with this outcome, of the version 1 of the model."""
    for claimed in lease.chunks:
        outcomes = pack_outcomes("fmnist-mlp@1", [outcome] * claimed.chunk_ref.items)
        succeeded = 0 if isinstance(outcome, Failure) else claimed.chunk_ref.items
        store.leases.finish(lease.token, [FinishedChunk(claimed.chunk_ref, succeeded, outcomes)])


async def submitted(api: httpx.AsyncClient, shirt: bytes, top_k: int = 5) -> str:
    answer = await api.post(f"/v1/jobs?top_k={top_k}", content=shirt, headers=PNG)
    return str(answer.headers["Location"])


async def held(
    api: httpx.AsyncClient, path: str, observed_completions: ObservedCompletions
) -> asyncio.Task[httpx.Response]:
    """A long poll that is being held."""
    poll = asyncio.create_task(api.get(f"{path}?wait=30"))
    await eventually(lambda: observed_completions.count() == 1, what="the poll")
    return poll


async def assert_as_read(api: httpx.AsyncClient, answer: httpx.Response) -> dict[str, Any]:
    """Whether the answer is what a read gives; and that is returned."""
    job: dict[str, Any] = answer.json()
    assert answer.status_code == 200
    assert job == (await api.get(job["links"]["self"])).json()
    return job


@pytest.mark.parametrize("outcome", OUTCOMES, ids=["1 class", "10 classes", "failed"])
async def test_a_submit_that_waited_says_what_a_read_says(
    api: httpx.AsyncClient, store: Store, shirt: bytes, outcome: Outcome
) -> None:
    top_k = 1 if isinstance(outcome, Failure) else len(outcome)
    asking = asyncio.create_task(api.post(f"/v1/jobs?top_k={top_k}", content=shirt, headers=PNG | WAIT))
    end(store, await store.claimed(), outcome)

    job = await assert_as_read(api, await asking)

    failed = isinstance(outcome, Failure)
    assert job["status"] == ("failed" if failed else "completed")
    assert (job["counts"]["succeeded"], job["counts"]["failed"]) == (int(not failed), int(failed))
    assert len(job["result"].get("top_k", [])) == (0 if failed else top_k)


@pytest.mark.parametrize("outcome", OUTCOMES, ids=["1 class", "10 classes", "failed"])
async def test_a_long_poll_says_what_a_read_says(
    api: httpx.AsyncClient, observed_completions: ObservedCompletions, store: Store, shirt: bytes, outcome: Outcome
) -> None:
    poll = await held(api, await submitted(api, shirt), observed_completions)
    end(store, await store.claimed(), outcome)

    job = await assert_as_read(api, await poll)
    assert job["status"] == ("failed" if isinstance(outcome, Failure) else "completed")


async def test_a_long_poll_that_comes_once_the_job_runs_says_what_a_read_says(
    api: httpx.AsyncClient, observed_completions: ObservedCompletions, store: Store, shirt: bytes
) -> None:
    path = await submitted(api, shirt)
    lease = await store.claimed()
    poll = await held(api, path, observed_completions)
    end(store, lease, classes(5))

    assert (await assert_as_read(api, await poll))["status"] == "completed"


@pytest.mark.parametrize("outcome", OUTCOMES, ids=["1 class", "10 classes", "failed"])
async def test_the_only_image_of_a_form_keeps_its_name(
    api: httpx.AsyncClient, store: Store, shirt: bytes, outcome: Outcome
) -> None:
    files = [("files", ("ein \u201ebild\u201c.png", shirt))]
    asking = asyncio.create_task(api.post("/v1/jobs", files=files, headers=WAIT))
    end(store, await store.claimed(), outcome)

    job = await assert_as_read(api, await asking)
    assert job["result"]["name"] == "ein \u201ebild\u201c.png"


async def test_the_result_of_one_image_is_not_read_again(
    api: httpx.AsyncClient,
    observed_completions: ObservedCompletions,
    store: Store,
    shirt: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The notice has it."""
    asking = asyncio.create_task(api.post("/v1/jobs", content=shirt, headers=PNG | WAIT))
    lease = await store.claimed()
    await eventually(lambda: observed_completions.count() == 1, what="the submit that waits")
    reads = list[bytes]()
    get = JobReader.get

    async def count(jobs: JobReader, job_id: bytes, owner: str) -> Any:
        reads.append(job_id)
        return await get(jobs, job_id, owner)

    monkeypatch.setattr(JobReader, "get", count)
    end(store, lease, classes(5))

    assert (await asking).json()["status"] == "completed"
    assert reads == []


async def test_a_wait_for_many_images_ends_with_the_last(api: httpx.AsyncClient, store: Store, shirt: bytes) -> None:
    files = [("files", (f"{n}.png", shirt)) for n in range(130)]
    asking = asyncio.create_task(api.post("/v1/jobs", files=files, headers=WAIT))
    for number in range(3):
        lease = await eventually(
            lambda number=number: found if (found := store.claim(number)).chunks else None, what="work"
        )
        end(store, lease, Failure(ItemCode.CORRUPT_IMAGE) if number == 1 else classes(5))

    job = await assert_as_read(api, await asking)
    assert (job["status"], job["counts"]["succeeded"], job["counts"]["failed"]) == ("completed", 66, 64)
    assert "result" not in job


async def test_a_wait_for_a_job_of_two_images_says_what_a_read_says(
    api: httpx.AsyncClient, store: Store, shirt: bytes
) -> None:
    asking = asyncio.create_task(api.post("/v1/jobs", files=[("files", shirt), ("files", shirt)], headers=WAIT))
    end(store, await store.claimed(), classes(5))

    job = await assert_as_read(api, await asking)
    assert (job["status"], job["counts"]["succeeded"]) == ("completed", 2)


async def test_a_job_that_is_canceled_while_it_is_awaited_is_shown_so(
    api: httpx.AsyncClient, observed_completions: ObservedCompletions, store: Store, shirt: bytes
) -> None:
    path = await submitted(api, shirt)
    poll = await held(api, path, observed_completions)
    await store.jobs.cancel(raw_id(path), OWNER)

    job = await assert_as_read(api, await poll)
    assert (job["status"], job["result"]["status"]) == ("canceled", "canceled")


@pytest.mark.parametrize("sealed_first", [True, False])
async def test_an_open_job_that_is_sealed_with_one_image_while_it_is_awaited_has_its_result(
    api: httpx.AsyncClient, observed_completions: ObservedCompletions, store: Store, shirt: bytes, *, sealed_first: bool
) -> None:
    path = (await api.post("/v1/jobs?open=true")).headers["Location"]
    await api.post(f"{path}/items", files=[("files", ("a.png", shirt))])
    poll = await held(api, path, observed_completions)
    if sealed_first:
        await api.post(f"{path}/seal")
        end(store, await store.claimed(), classes(5))
    else:
        end(store, await store.claimed(), classes(5))
        await api.post(f"{path}/seal")

    job = await assert_as_read(api, await poll)
    assert (job["status"], job["result"]["name"], job["result"]["class"]) == ("completed", "a.png", "Coat")


async def test_jobs_that_end_in_one_call_wake_each_its_own_waiter(
    api: httpx.AsyncClient, observed_completions: ObservedCompletions, store: Store, shirt: bytes
) -> None:
    asked = [
        asyncio.create_task(api.post("/v1/jobs", files=[("files", (f"{n}.png", shirt))], headers=WAIT))
        for n in range(20)
    ]
    await eventually(
        lambda: observed_completions.count() == 20 and store.stat("accepted") == 20, what="twenty that wait"
    )
    lease = store.claim()
    done = []
    for n, claimed in enumerate(lease.chunks):
        outcome = Failure(ItemCode.CORRUPT_IMAGE) if n % 3 == 0 else classes(n % 5 + 1)
        packed = pack_outcomes("fmnist-mlp@1", [outcome])
        done.append(FinishedChunk(claimed.chunk_ref, int(n % 3 != 0), packed))
    store.leases.finish(lease.token, done)

    names = [(await assert_as_read(api, await answer))["result"]["name"] for answer in asked]
    assert names == [f"{n}.png" for n in range(20)]


# -- what should not stand on the channel


@pytest.mark.parametrize("garbage", [b"x", b"", b"longer than the head of a notice", b"\xff" * 18])
async def test_a_notice_that_cannot_be_understood_does_not_end_the_subscription(
    api: httpx.AsyncClient, observed_completions: ObservedCompletions, store: Store, shirt: bytes, garbage: bytes
) -> None:
    poll = await held(api, await submitted(api, shirt), observed_completions)
    assert store.redis.publish(CHANNEL, garbage) == 1
    end(store, await store.claimed(), classes(5))

    assert (await poll).json()["status"] == "completed"


@pytest.mark.parametrize(
    "told",
    [
        b"?",
        b"c" + bytes(8),
        b"z" + bytes(8) + b"\x00",
        b"c" + bytes(8) + b"\x04fmni\xff",
        b"c" + struct.pack(">d", math.inf) + pack_outcomes("fmnist-mlp@1", [classes(1)]),
    ],
    ids=["too short", "without a result", "of no state", "cut off", "of no time"],
)
async def test_a_notice_whose_result_cannot_be_understood_has_the_job_read(
    api: httpx.AsyncClient, observed_completions: ObservedCompletions, store: Store, shirt: bytes, told: bytes
) -> None:
    path = await submitted(api, shirt)
    poll = await held(api, path, observed_completions)
    store.redis.publish(CHANNEL, raw_id(path) + len(told).to_bytes(2, "big") + told)

    answer = await poll
    assert (answer.status_code, answer.json()["status"]) == (200, "queued")


async def test_a_notice_of_a_job_that_nobody_awaits_is_passed_over(
    api: httpx.AsyncClient, observed_completions: ObservedCompletions, store: Store, shirt: bytes
) -> None:
    path = await submitted(api, shirt)
    poll = await held(api, path, observed_completions)
    await store.submit(b"another")
    for claimed in store.claim(items=2).chunks:  # both, each by itself
        packed = pack_outcomes("fmnist-mlp@1", [classes(1)])
        store.leases.finish(owner_token(0), [FinishedChunk(claimed.chunk_ref, 1, packed)])

    assert (await poll).json()["status"] == "completed"
    assert store.redis.hget(job_key(raw_id(path)), keys.FIELDS["state"]) == b"c"


# -- those who go away


@pytest.mark.parametrize("path", ["/v1/jobs", "/predict"])
async def test_one_whose_upload_takes_longer_than_a_look_at_all_who_wait_waits_all_the_same(
    start_api: StartApi, observed_completions: ObservedCompletions, store: Store, shirt: bytes, path: str
) -> None:
    """Its job is not in the store yet, which is not the same as gone."""
    api = await start_api(reread_seconds=0.05)
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="shirt.png"\r\n\r\n'
    form = head + shirt + b"\r\n--b--\r\n"

    async def slow() -> AsyncIterator[bytes]:
        yield form[:200]
        await eventually(lambda: observed_completions.count() == 1, what="one who waits")
        before = observed_completions.rereads
        await eventually(lambda: observed_completions.rereads >= before + 2, what="looks at all who wait")
        yield form[200:]

    headers = {"Content-Type": "multipart/form-data; boundary=b"} | WAIT
    asking = asyncio.create_task(api.post(path, content=slow(), headers=headers))
    end(store, await store.claimed(), classes(5))
    answer = await asking
    assert answer.status_code == 200
    found = answer.json()
    assert (found if path == "/predict" else found["result"])["class"] == "Coat"


@pytest.mark.parametrize("seconds", [0.2, 1])
@pytest.mark.parametrize("what", ["submit", "long poll"])
async def test_a_client_that_goes_away_is_no_longer_waited_for(
    api: httpx.AsyncClient, observed_completions: ObservedCompletions, shirt: bytes, what: str, seconds: float
) -> None:
    if what == "submit":
        asking = api.post("/v1/jobs", content=shirt, headers=PNG | WAIT, timeout=seconds)
    else:
        asking = api.get(f"{await submitted(api, shirt)}?wait=30", timeout=seconds)
    with pytest.raises(httpx.ReadTimeout):
        await asking
    await eventually(lambda: observed_completions.count() == 0, seconds=10, what="the waiter's end")


async def test_a_client_that_stays_is_waited_for_longer_than_it_takes_to_look_for_it(
    api: httpx.AsyncClient,
    observed_completions: ObservedCompletions,
    store: Store,
    shirt: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looking, disconnect = asyncio.Event(), waits._disconnect

    async def look(receive: Any) -> None:
        looking.set()
        await disconnect(receive)

    monkeypatch.setattr(waits, "_disconnect", look)
    poll = await held(api, await submitted(api, shirt), observed_completions)
    await looking.wait()
    assert not poll.done()
    end(store, await store.claimed(), classes(5))

    assert (await poll).json()["status"] == "completed"
