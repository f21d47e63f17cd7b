"""Uploads that wait in S3 (moto), over HTTP and with real workers."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from tests.support.s3 import MotoS3, serving_s3
from tests.support.stack import Stack, results_of, submit_all
from tests.support.uploads import PNG
from tests.support.waiting import eventually

MARK = "a/store"


@pytest.fixture
def s3() -> Iterator[MotoS3]:
    with serving_s3() as s3:
        s3.bucket("uploads")
        yield s3


def large(shirt: bytes, number: int = 0) -> bytes:
    """The shirt in 512 KiB: what stands behind a picture's end is not read."""
    return shirt + bytes([number]) * (512 << 10)


async def test_all_that_was_accepted_is_classified_although_s3_goes_away(
    stack: Stack, shirt: bytes, s3: MotoS3
) -> None:
    settings = s3.environment("s3://uploads/a")
    api = stack.api(**settings)
    ids = await submit_all(api.url, [large(shirt, number) for number in range(20)])
    assert len(s3.keys("uploads")) == 21
    assert stack.redis.info("memory")["used_memory"] < 10 << 20

    async with httpx.AsyncClient(base_url=api.url, timeout=60) as http:
        with s3.away():
            answer = await http.post("/v1/jobs", content=large(shirt), headers=PNG)
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
            assert int(answer.headers["Retry-After"]) >= 1
            assert (await http.post("/v1/jobs", content=shirt, headers=PNG)).status_code == 202
            worker = await asyncio.to_thread(stack.worker, **settings)
            await eventually(lambda: "a slice of work ended early" in worker.output(), what="a claim without S3")

    assert {result["class"] for result in await results_of(api.url, ids)} == {"Shirt"}
    await eventually(lambda: s3.keys("uploads") == [MARK], what="the removal of the objects")
    assert (stack.stat("spooled"), stack.stat("uploads")) == (0, 0)


async def test_a_deleted_object_fails_its_images_alone(stack: Stack, shirt: bytes, s3: MotoS3) -> None:
    settings = s3.environment("s3://uploads/a")
    api = stack.api(**settings)
    ids = await submit_all(api.url, [large(shirt, number) for number in range(4)])
    s3.delete("uploads", next(key for key in s3.keys("uploads") if key != MARK))
    await asyncio.to_thread(stack.worker, **settings)
    results = await results_of(api.url, ids)
    codes = [result["error"]["code"] if "error" in result else result["class"] for result in results]
    assert sorted(codes) == ["Shirt", "Shirt", "Shirt", "upload_lost"]
