"""What becomes of requests that are in progress when their key is revoked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext

import httpx
import pytest

from jobs.store.for_api.api_key_registry import ApiKeyRegistry
from tests.integration.api.auth.conftest import MakeKey, answers, id_of
from tests.integration.api.conftest import StartApi
from tests.support.archives import make_tar
from tests.support.store import Store
from tests.support.uploads import PNG, TAR
from tests.support.waiting import eventually


@pytest.mark.parametrize("call", ["events", "results?format=ndjson&follow=true"])
async def test_a_followed_stream_ends(
    start_api: StartApi, make_key: MakeKey, registry: ApiKeyRegistry, shirt: bytes, store: Store, call: str
) -> None:
    key, other = make_key(), make_key()
    api = await start_api()
    path = (await api.post("/v1/jobs?open=true", headers=key)).headers["Location"]
    await api.post(f"{path}/items", content=shirt, headers=PNG | key)
    store.finish(store.claim())  # a first result, without which the response would not begin
    async with asyncio.timeout(20), api.stream("GET", f"{path}/{call}", headers=key) as stream:
        assert stream.status_code == 200
        registry.revoke(id_of(key))
        # Until the server ends it: the job does not. Lines are missing, which only a broken connection says.
        with nullcontext() if call == "events" else pytest.raises(httpx.RemoteProtocolError):
            async for _ in stream.aiter_raw():
                pass
    assert (await api.get(path, headers=other)).json()["status"] == "open"


async def test_an_upload_is_broken_off_at_its_next_chunk(
    start_api: StartApi, make_key: MakeKey, registry: ApiKeyRegistry, shirt: bytes, store: Store
) -> None:
    key, other = make_key(), make_key()
    api = await start_api()
    archive = make_tar({f"{number}.png": shirt for number in range(200)})
    half = len(archive) // 2

    async def body() -> AsyncIterator[bytes]:
        yield archive[:half]
        await eventually(lambda: store.stat("pending:alice") == 64, what="the first chunk")
        registry.revoke(id_of(key))
        await answers(api, 401, key)
        yield archive[half:]

    broken = await api.post("/v1/jobs", content=body(), headers=TAR | key)

    assert (broken.status_code, broken.json()["code"]) == (401, "unauthorized")
    job = (await api.get(f"/v1/jobs/{broken.json()['job_id']}", headers=other)).json()
    assert (job["status"], job["counts"]["total"]) == ("canceled", 64)
