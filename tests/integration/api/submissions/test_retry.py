"""Retries of the failed images of an ended job."""

import json

import httpx

from jobs.codec import pack_outcomes, pack_retained, unpack_upload
from jobs.item_codes import ItemCode
from jobs.records import Failure
from jobs.store import keys
from jobs.store.for_workers.leases import FinishedChunk
from jobs.store.job_hash import chunk_field
from tests.support.archives import make_tar
from tests.support.store import COAT, Store
from tests.support.uploads import PNG, TAR, finish_all


def fail(store: Store, failures: dict[str, ItemCode]) -> None:
    """Finish the ready chunks: images of these names fail, with their bytes retained, the others are coats."""
    lease = store.claim()
    names = json.loads(store.redis.hget(keys.JOB.encode() + lease.chunks[0].chunk_ref.job_id, chunk_field("names", 0)))
    done = []
    for claimed in lease.chunks:
        images = unpack_upload(claimed.upload, claimed.chunk_ref.items)
        outcomes = [Failure(failures[name]) if name in failures else COAT for name in names]
        retained = pack_retained((place, images[place]) for place, name in enumerate(names) if name in failures)
        done.append(
            FinishedChunk(claimed.chunk_ref, 3 - len(failures), pack_outcomes("fmnist-mlp@1", outcomes), retained)
        )
    store.leases.finish(lease.token, done)


async def test_a_retry_is_a_new_job_of_the_failed_images_whose_bytes_are_retained(
    api: httpx.AsyncClient, store: Store, shirt: bytes
) -> None:
    files = {"a.png": shirt, "b.png": shirt + b"b", "c.png": shirt + b"c"}
    job = (await api.post("/v1/jobs?top_k=3", content=make_tar(files), headers=TAR)).json()
    path = job["links"]["self"]
    early = await api.post(f"{path}/retry")
    assert (early.status_code, early.json()["code"]) == (409, "job_not_ended")
    fail(store, {"b.png": ItemCode.TIMEOUT})

    answer = await api.post(f"{path}/retry", headers={"Idempotency-Key": "again"})
    retried = answer.json()
    assert (answer.status_code, retried["retry_of"], retried["counts"]["total"]) == (202, job["id"], 1)
    again = await api.post(f"{path}/retry", headers={"Idempotency-Key": "again"})
    assert (again.json()["id"], again.headers["Idempotency-Replayed"]) == (retried["id"], "true")
    (claimed,) = store.claim().chunks
    assert unpack_upload(claimed.upload, 1) == [files["b.png"]]
    assert claimed.top_k == 3


async def test_a_retry_of_nothing_is_refused(api: httpx.AsyncClient, store: Store, shirt: bytes) -> None:
    path = (await api.post("/v1/jobs", content=shirt, headers=PNG)).headers["Location"]
    finish_all(store)
    for headers in ({}, {"Idempotency-Key": "again"}):
        answer = await api.post(f"{path}/retry", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (409, "nothing_to_retry")
    assert len((await api.get("/v1/jobs")).json()["jobs"]) == 1
