"""Each call of the store on the way of a submit, a part, a seal, a retry: its reply is lost, or the store away or full.

A client that repeats as it is told gets its images into one job, once.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from hiredis import ReplyError

from jobs.item_codes import ItemCode
from jobs.store import keys
from jobs.store.for_api.pipeline import PipelinedConnection
from jobs.store.for_api.redis_connection import NotSent, OutcomeUnknown
from jobs.store.scripts import load_scripts
from tests.integration.api.conftest import StartApi
from tests.integration.api.submissions.test_retry import fail
from tests.support.archives import make_tar, make_zip
from tests.support.store import Store
from tests.support.uploads import PNG, TAR, numbered_images

SCRIPTS = ("enqueue", "part", "seal", "cancel", "delete")
IMAGES = 150
FAULTS = ("reply lost", "away", "full")
ZIP = {"Content-Type": "application/zip"}
CALLS_MAX = 40
REPEATS_MAX = 60
AWAY_CALLS = 3


class FaultyStore:
    """Fails one call of those that a submit makes; housekeeping's own are left alone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fault, self.at, self.calls = "", -1, 0
        self._shas = {load_scripts(0)[name].sha1 for name in SCRIPTS}
        self._refused_when_full = {load_scripts(0)[name].sha1 for name in ("enqueue", "part")}
        send = PipelinedConnection.send

        def faulty_send(connection: PipelinedConnection, *commands: Any) -> asyncio.Future[Any]:
            if not any(map(self._is_counted, commands)):
                return send(connection, *commands)
            number, self.calls = self.calls, self.calls + 1
            if self.fault == "away" and self.at <= number < self.at + AWAY_CALLS:
                return _failed(NotSent())
            if self.fault == "full" and number == self.at and all(map(self._is_refused_when_full, commands)):
                return _done([ReplyError("OOM command not allowed") for _ in commands])
            sent = send(connection, *commands)
            return _lost(sent) if self.fault == "reply lost" and number == self.at else sent

        monkeypatch.setattr(PipelinedConnection, "send", faulty_send)

    def arm(self, fault: str, at: int) -> None:
        self.fault, self.at, self.calls = fault, at, 0

    def _is_counted(self, command: Any) -> bool:
        if isinstance(command, bytes):
            return b"HMGET" in command
        name, key = command[0], command[1] if len(command) > 1 else b""
        return key in self._shas or (name in ("SET", "HMGET", "HGET") and key[:2] in (b"b:", b"j:"))

    def _is_refused_when_full(self, command: Any) -> bool:
        return not isinstance(command, bytes) and (command[0] == "SET" or command[1] in self._refused_when_full)


def _done(result: Any) -> asyncio.Future[Any]:
    future = asyncio.get_running_loop().create_future()
    future.set_result(result)
    return future


def _failed(error: Exception) -> asyncio.Future[Any]:
    future = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future


def _lost(sent: asyncio.Future[Any]) -> asyncio.Future[Any]:
    async def lose() -> Any:
        await sent
        raise OutcomeUnknown

    return asyncio.ensure_future(lose())


async def repeated(send: Callable[[], Awaitable[httpx.Response]], api: httpx.AsyncClient) -> str:
    """The id of the job, from a client that repeats what it is told to repeat."""
    for _ in range(REPEATS_MAX):
        answer = await send()
        problem = answer.json()
        if answer.status_code in (200, 202):
            return str(problem["id"])
        assert answer.status_code in (409, 503), problem
        assert "Retry-After" in answer.headers
        if problem.get("outcome") == "unknown":  # it looks before it repeats
            job_id = problem["job_id"]
            found = await api.get(f"/v1/jobs/{job_id}")
            if found.status_code == 200 and found.json()["status"] not in ("open", "canceled"):
                return str(job_id)
            if found.status_code == 200 and found.json()["status"] == "open":
                await api.post(f"/v1/jobs/{job_id}/cancel")
        elif answer.status_code == 409:
            await api.post(f"/v1/jobs/{problem['job_id']}/cancel")  # in place of the wait for its deadline
    raise AssertionError(problem)


async def accepted_jobs(api: httpx.AsyncClient) -> dict[str, int]:
    """Images of each job that is not canceled."""
    jobs = (await api.get("/v1/jobs?limit=1000")).json()["jobs"]
    return {job["id"]: job["counts"]["total"] for job in jobs if job["status"] != "canceled"}


async def through_all_calls(
    store: Store,
    faulty: FaultyStore,
    api: httpx.AsyncClient,
    fault: str,
    attempt: Callable[[], Awaitable[str]],
    *,
    images: int = IMAGES,
) -> None:
    for at in range(CALLS_MAX):
        faulty.arm(fault, at)
        job_id = await attempt()
        calls = faulty.calls
        faulty.arm("", -1)
        assert await accepted_jobs(api) == {job_id: images}, f"call {at} of {calls}"
        await api.delete(f"/v1/jobs/{job_id}")
        for name in store.redis.keys(f"{keys.JOB}*"):
            await store.jobs.delete(name.removeprefix(keys.JOB.encode()), "public")
        await store.jobs.sweep([])
        assert store.redis.keys(f"{keys.UPLOAD}*") == [], f"call {at} of {calls} left bytes"
        if at > calls:
            return
    raise AssertionError("more calls than this test knows")


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> FaultyStore:
    return FaultyStore(monkeypatch)


QUICK: dict[str, Any] = {"submit_deadline_seconds": 0.2, "room_wait_seconds_max": 1}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "one"}])
async def test_an_archive_is_one_job(
    start_api: StartApi, store: Store, faulty: FaultyStore, shirt: bytes, fault: str, key: dict[str, str]
) -> None:
    api = await start_api(**QUICK)
    body = make_tar(numbered_images(shirt, IMAGES))

    async def attempt() -> str:
        return await repeated(lambda: api.post("/v1/jobs", content=body, headers=TAR | key), api)

    await through_all_calls(store, faulty, api, fault, attempt)


FEW, URLS = 70, [f"http://example.com/{number}.png" for number in range(12)]  # of two chunks
BODIES: dict[str, tuple[int, Callable[[bytes], dict[str, Any]]]] = {
    "image": (1, lambda shirt: {"content": shirt, "headers": PNG}),
    "form": (FEW, lambda shirt: {"files": [("files", it) for it in numbered_images(shirt, FEW).items()]}),
    "zip": (FEW, lambda shirt: {"content": make_zip(numbered_images(shirt, FEW)), "headers": ZIP}),
    "URLs": (len(URLS), lambda _: {"json": {"urls": URLS}}),
}
"""Of each kind of upload, how many images it has, and the arguments of its request."""


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "one"}])
@pytest.mark.parametrize("kind", BODIES)
async def test_each_kind_of_upload_is_one_job(
    start_api: StartApi, store: Store, faulty: FaultyStore, shirt: bytes, kind: str, key: dict[str, str], fault: str
) -> None:
    api = await start_api(**QUICK)
    images, make_request = BODIES[kind]
    request = make_request(shirt)
    headers = request.pop("headers", {}) | key

    async def attempt() -> str:
        return await repeated(lambda: api.post("/v1/jobs", **request, headers=headers), api)

    await through_all_calls(store, faulty, api, fault, attempt, images=images)


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_job_is_opened_once(
    start_api: StartApi, store: Store, faulty: FaultyStore, shirt: bytes, fault: str
) -> None:
    """A client that gets no answer opens it again with its key."""
    api = await start_api(**QUICK)

    async def attempt() -> str:
        headers = {"Idempotency-Key": "one"}
        opened = await _until_accepted(lambda: api.post("/v1/jobs?open=true", headers=headers))
        calls = faulty.calls
        faulty.arm("", -1)
        path = opened.headers["Location"]
        await _until_accepted(lambda: api.post(f"{path}/items", content=shirt, headers=PNG))
        await _until_accepted(lambda: api.post(f"{path}/seal"))
        faulty.calls = calls
        return str(opened.json()["id"])

    await through_all_calls(store, faulty, api, fault, attempt, images=1)


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_part_is_added_once_and_its_job_is_sealed(
    start_api: StartApi, store: Store, faulty: FaultyStore, shirt: bytes, fault: str
) -> None:
    patient, api = await start_api(), await start_api(**QUICK)
    body = make_tar(numbered_images(shirt, IMAGES))

    async def attempt() -> str:
        armed = faulty.fault, faulty.at
        faulty.arm("", -1)
        opened = await patient.post("/v1/jobs?open=true")
        path = opened.headers["Location"]
        faulty.arm(*armed)

        async def send_part() -> httpx.Response:
            answer = await api.post(f"{path}/items", content=body, headers=TAR | {"Idempotency-Key": "part"})
            if answer.status_code == 409:  # the reply to its begin was lost: end its hold, in place of a wait
                (job,) = store.redis.keys(f"{keys.JOB}*")
                part = next(name for name in store.redis.hkeys(job) if name.startswith(keys.FIELDS["part"].encode()))
                store.redis.hdel(job, part)
                return await send_part()
            return answer

        await _until_accepted(send_part)
        await _until_accepted(lambda: api.post(f"{path}/seal"))
        return str(opened.json()["id"])

    await through_all_calls(store, faulty, api, fault, attempt)


async def _until_accepted(send: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    for _ in range(REPEATS_MAX):
        answer = await send()
        if answer.is_success:
            return answer
        assert answer.status_code == 503, answer.text
    raise AssertionError(answer.text)


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_retry_is_one_job(
    start_api: StartApi, store: Store, faulty: FaultyStore, shirt: bytes, fault: str
) -> None:
    api = await start_api(**QUICK)
    files = numbered_images(shirt, 3)

    async def attempt() -> str:
        armed = faulty.fault, faulty.at
        faulty.arm("", -1)
        first = "/v1/jobs/" + await repeated(lambda: api.post("/v1/jobs", content=make_tar(files), headers=TAR), api)
        fail(store, dict.fromkeys(files, ItemCode.TIMEOUT))
        faulty.arm(*armed)
        again = await repeated(lambda: api.post(f"{first}/retry"), api)
        calls = faulty.calls
        faulty.arm("", -1)
        await api.delete(first)
        faulty.calls = calls
        return again

    await through_all_calls(store, faulty, api, fault, attempt, images=3)
