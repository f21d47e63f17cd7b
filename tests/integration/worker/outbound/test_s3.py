"""Images in an S3 server (moto)."""

from collections.abc import Iterator
from typing import Any

import pytest

from jobs.item_codes import ItemCode
from tests.support.s3 import S3, serving_s3
from tests.support.waiting import POLL_SECONDS
from tests.support.web import forever, serving_site
from worker.outbound.fetch import Fetcher
from worker.outbound.settings import FetchSettings
from worker.outbound.web import CheckedHttp


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with serving_s3() as s3:
        s3.bucket("photos")
        s3.put("photos", {"a b/100%#?ü+.png": b"odd", "large.png": b"x" * 101, "empty.png": b""})
        yield s3


async def fetch(s3: S3, url: str, **settings: Any) -> bytes | ItemCode:
    checked = FetchSettings(**s3.settings | settings)
    async with CheckedHttp(checked) as web:
        return await Fetcher(checked, web).fetch(url)


async def test_an_object_is_read_whatever_its_key(s3: S3) -> None:
    assert await fetch(s3, "s3://photos/a b/100%#?ü+.png") == b"odd"


async def test_an_object_that_is_too_large_is_not_read(s3: S3) -> None:
    assert await fetch(s3, "s3://photos/large.png", item_bytes_max=100) is ItemCode.ITEM_TOO_LARGE
    assert await fetch(s3, "s3://photos/large.png", item_bytes_max=101) == b"x" * 101


async def test_an_empty_object_is_an_empty_image(s3: S3) -> None:
    assert await fetch(s3, "s3://photos/empty.png") == b""


@pytest.mark.parametrize("url", ["s3://photos/absent.png", "s3://absent/a.png"])
async def test_a_missing_object_is_not_found(s3: S3, url: str) -> None:
    assert await fetch(s3, url) is ItemCode.FETCH_NOT_FOUND


@pytest.mark.parametrize("url", ["s3://photos", "s3://photos/a b/"])
async def test_a_prefix_is_not_read_as_an_image(s3: S3, url: str) -> None:
    assert await fetch(s3, url) is ItemCode.INVALID_URL


async def test_a_bucket_that_is_not_allowed_is_not_read(s3: S3) -> None:
    url = "s3://photos/large.png"
    assert await fetch(s3, url, s3_buckets=["other"]) is ItemCode.FORBIDDEN_ADDRESS
    assert await fetch(s3, url, s3_buckets=[]) is ItemCode.FORBIDDEN_ADDRESS
    assert await fetch(s3, url, s3_buckets=["photos"]) == b"x" * 101


async def test_an_s3_that_denies_access_fails_the_image() -> None:
    async with serving_site() as site:
        site.responds("/photos/a.png", 403)
        elsewhere = S3(site.url)
        assert await fetch(elsewhere, "s3://photos/a.png") is ItemCode.FETCH_DENIED


async def test_an_s3_that_hangs_runs_out_of_time() -> None:
    async def hang(_: object) -> Any:
        await forever()

    async with serving_site() as site:
        site.at("/photos/a.png", hang)
        elsewhere = S3(site.url)
        url = "s3://photos/a.png"
        assert await fetch(elsewhere, url, fetch_seconds_max=10 * POLL_SECONDS) is ItemCode.FETCH_TIMEOUT


async def test_a_fetch_from_an_unreachable_s3_fails() -> None:
    assert await fetch(S3("http://127.0.0.1:1"), "s3://photos/a.png") is ItemCode.FETCH_FAILED
