"""References in a submit's body, and prefixes listed by a real S3."""

import codecs
from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson
import pytest

from api.settings import ReferenceSettings
from api.uploads.references import read_references
from jobs.errors import InvalidRequest, UploadTooLarge
from jobs.item_codes import ItemCode
from tests.support.s3 import S3, serving_s3

MANY = 1100


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with serving_s3() as s3:
        s3.bucket("photos")
        s3.put("photos", {f"many/{n:04}.png": b"x" for n in range(MANY)})
        s3.put("photos", {"few/": b"", "few/folder/": b"", "few/b.png": b"x", "few/folder/a.png": b"x"})
        s3.put("photos", {"fewer/c.png": b"x", "top.png": b"x", "odd/a//b.png": b"x"})
        yield s3


async def read(urls: Any, *, piece_bytes: int = 7, **settings: Any) -> list[tuple[str | None, bytes | ItemCode]]:
    body = urls if isinstance(urls, bytes) else orjson.dumps({"urls": urls})

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), piece_bytes):
            yield body[at : at + piece_bytes]

    return [(name, data) async for name, data in read_references(pieces(), ReferenceSettings(**settings))]


async def test_each_url_is_an_item_that_is_named_without_its_query() -> None:
    urls = ["https://example.com/a.png?X-Signature=secret#there", "http://example.com/b"]
    assert await read(urls) == [
        ("https://example.com/a.png", urls[0].encode()),
        ("http://example.com/b", urls[1].encode()),
    ]


@pytest.mark.parametrize(
    "url", ["", "example.com", "file:///etc/passwd", "http://u:p@example.com/", "s3:///a", "s3://a"]
)
async def test_an_invalid_url_is_an_item_that_fails(url: str) -> None:
    ((_, data),) = await read([url])
    assert data is ItemCode.INVALID_URL


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 100])
async def test_a_byte_order_mark_before_the_json_is_skipped(piece_bytes: int) -> None:
    body = codecs.BOM_UTF8 + b'{"urls": ["https://example.com/a.png"]}'
    assert len(await read(body, piece_bytes=piece_bytes)) == 1


async def test_a_long_url_has_a_short_name() -> None:
    ((name, data),) = await read(["https://example.com/" + "a" * 3000])
    assert (len(name or ""), data) == (255, ItemCode.INVALID_URL)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"urls": []}',
        b'{"urls": "http://example.com"}',
        b'{"urls": [1]}',
        b'{"urls": [["http://example.com"]]}',
        b'{"urls": ["http://example.com"], "model": "m"}',
        b'{"url": ["http://example.com"]}',
        b'{"urls": ["http://example.com"]} {}',
        b'{"urls": ["http://example.com"], "urls": ["http://example.com"]}',
        b'{"urls": ["http://example.com"]',
        b'{"urls": ["\xff"]}',
        b'{"urls": ["http://example.com/\xc1"',  # cut off in a string that is no UTF-8
        b"[" * 100_000,
        b'{"urls": ["' + b"a" * 400_000 + b'"]}',
    ],
)
async def test_a_body_of_another_shape_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        await read(body)


async def test_an_object_is_not_looked_up_while_its_job_is_accepted() -> None:
    assert await read(["s3://photos/top.png"], s3_buckets=["photos"]) == [
        ("s3://photos/top.png", b"s3://photos/top.png")
    ]


async def test_a_prefix_is_all_objects_below_it_except_folders(s3: S3) -> None:
    found = await read(["s3://photos/few/"], **s3.settings)
    assert [name for name, _ in found] == ["s3://photos/few/b.png", "s3://photos/few/folder/a.png"]
    assert [data for _, data in found] == [b"s3://photos/few/b.png", b"s3://photos/few/folder/a.png"]


async def test_a_prefix_of_more_objects_than_s3_lists_at_once_is_listed_whole(s3: S3) -> None:
    found = await read(["s3://photos/many/", "s3://photos/top.png"], **s3.settings)
    assert [name for name, _ in found] == [f"s3://photos/many/{n:04}.png" for n in range(MANY)] + [
        "s3://photos/top.png"
    ]


async def test_a_bucket_is_a_prefix(s3: S3) -> None:
    s3.bucket("small", **{"a.png": b"x"})
    assert [name for name, _ in await read(["s3://small"], **s3.settings)] == ["s3://small/a.png"]


async def test_an_empty_prefix_is_an_item_that_is_not_found(s3: S3) -> None:
    assert await read(["s3://photos/none/"], **s3.settings) == [("s3://photos/none/", ItemCode.FETCH_NOT_FOUND)]


async def test_a_bucket_that_is_not_allowed_is_not_listed(s3: S3) -> None:
    for allowed in ([], ["other"]):
        found = await read(["s3://photos/few/"], **s3.settings | {"s3_buckets": allowed})
        assert found == [("s3://photos/few/", ItemCode.FORBIDDEN_ADDRESS)]


@pytest.mark.parametrize("url", ["s3://absent/", "s3://photos/odd/"])
async def test_a_prefix_that_cannot_be_listed_refuses_the_submit(s3: S3, url: str) -> None:
    with pytest.raises(InvalidRequest, match=url):
        await read([url], **s3.settings)


async def test_references_have_a_bound_also_below_a_prefix(s3: S3) -> None:
    urls = ["http://example.com/a"] * 3
    assert len(await read(urls, references_max=3)) == 3
    for too_many in ([*urls, "http://example.com/b"], ["s3://photos/many/"]):
        with pytest.raises(UploadTooLarge):
            await read(too_many, references_max=3, **s3.settings)


async def test_objects_in_place_of_urls_are_refused_before_they_use_memory() -> None:
    """As objects, 64 MiB of them would take 2 GB."""
    sent = 0

    async def hostile() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'{"urls": ["http://example.com/a.png"'
        while sent < 64 << 20:
            sent += 1 << 16
            yield b",{}" * (1 << 14)

    with pytest.raises(InvalidRequest):
        _ = [image async for image in read_references(hostile(), ReferenceSettings())]
    assert sent == 1 << 16
