"""No reader of a body keeps the event loop to itself, whatever the body; and few bytes do not become many.

Stretches between two turns of the loop are measured in calls of functions and in CPU time of the thread, so that a busy
machine changes little (tests/support/stretches.py). `python -m bench.hostile` shows how long the API then takes for
another request. Heads of requests have the same test in tests/unit/api/asgi, replies of Redis in tests/unit/jobs/store.
"""

import asyncio
import dataclasses
import encodings
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from api.settings import ApiSettings
from api.uploads.archive_limits import ArchiveLimits
from api.uploads.chunks import read_chunks
from api.uploads.multipart import read_multipart
from api.uploads.references import read_references
from api.uploads.source import ArchiveStats, UploadSource
from api.uploads.tar import read_tar
from api.uploads.zip import read_zip
from api.uploads.zip_spool import ZipSpools
from jobs.errors import DarkroomError, InvalidRequest, UploadTooLarge
from jobs.item_codes import ItemCode
from jobs.owner_shares import OWNER_OF_ALL
from jobs.store.for_api.submission import Chunk
from tests.support.archives import LIMITS, make_zip, untar, unzip
from tests.support.costly_uploads import (
    BOUNDARY,
    FORM,
    JSON,
    TAR,
    CostlyUpload,
    costly_uploads,
    pax_header,
    pax_record,
    tar_header,
    tar_of_global_path,
    tar_of_small_records,
    zip_of_bombs,
    zip_of_entries,
    zip_of_one_stream,
)
from tests.support.stretches import check_stretches

PIECE_BYTES = 512 << 10  # what uvicorn's protocol hands on at most
END = bytes(1024)


def source_of(upload: CostlyUpload) -> UploadSource:
    settings = ApiSettings(redis_url="unix:///nowhere")

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(upload.body), PIECE_BYTES):
            yield upload.body[at : at + PIECE_BYTES]

    if upload.content_type == FORM:
        return UploadSource(read_multipart(pieces(), settings, ArchiveStats(), BOUNDARY, None))
    if upload.content_type == JSON:
        return UploadSource(read_references(pieces(), settings), by_reference=True)
    limits, stats = ArchiveLimits.of(settings), ArchiveStats()
    if upload.content_type == TAR:
        return UploadSource(read_tar(pieces(), limits, stats))
    spools = ZipSpools(bytes_max=settings.zip_disk_bytes_max, free_bytes_min=1)
    return UploadSource(read_zip(pieces(), limits, stats, spools, OWNER_OF_ALL))


async def read_all(source: UploadSource) -> None:
    """As a repeat of an earlier request does: without a wait for the store."""

    async def compare(_: Chunk) -> None:
        pass

    with suppress(DarkroomError):
        await read_chunks(source, compare)


@pytest.mark.parametrize("name", costly_uploads())
async def test_no_reader_keeps_the_event_loop_to_itself(name: str) -> None:
    upload = costly_uploads()[name]()
    await check_stretches(lambda: read_all(source_of(upload)))


async def test_a_path_of_more_than_4_kib_fails_its_member_and_is_cut_before_it_is_read() -> None:
    long, fits = b"a/" * 2048 + b"x.png", b"b/" * 2045 + b"y.png"
    own = pax_header(pax_record(b"path", long)) + tar_header("x") + pax_header(pax_record(b"path", fits))
    images, _ = await untar(own + tar_header("y") + tar_header("z.png") + END)
    assert [image.data for image in images] == [ItemCode.NAME_TOO_LONG, b"", b""]
    assert [image.name for image in images] == [long[:255].decode(), fits[:255].decode(), "z.png"]

    images, _ = await unzip(make_zip({long.decode(): b"x", fits.decode(): b"x", "é" * 2049: b"x", "é" * 2048: b"x"}))
    assert [image.data for image in images] == [ItemCode.NAME_TOO_LONG, b"x"] * 2


async def test_a_path_for_the_whole_archive_is_kept_only_as_far_as_it_may_be_long() -> None:
    images, _ = await untar(tar_of_global_path(b"a/" * 30_000 + b"._x", 3))
    assert [image.data for image in images] == [ItemCode.NAME_TOO_LONG] * 3


async def test_an_extended_header_has_at_most_64_kib_and_a_thousand_records() -> None:
    images, _ = await untar(tar_of_small_records(1000, 1))
    assert [image.name for image in images] == ["a.png"]
    with pytest.raises(InvalidRequest, match="more than 1000 records"):
        await untar(tar_of_small_records(1001, 1))
    with pytest.raises(InvalidRequest, match="more than 65536 bytes"):
        await untar(tar_of_global_path(b"a" * (64 << 10), 1))


@pytest.mark.parametrize("entries", [2, 200])
async def test_entries_of_a_zip_that_share_bytes_are_refused(entries: int) -> None:
    with pytest.raises(InvalidRequest, match="overlap"):
        await unzip(zip_of_one_stream(entries, 5000, zeros=False))


async def test_an_entry_inside_of_another_is_refused() -> None:
    whole = make_zip({"a.png": b"a" * 100 + make_zip({"b.png": b"b"})})
    inner = whole.index(b"PK\x03\x04", 4)
    stored = [(inner, b"b", 1, 0), (0, whole[: whole.rindex(b"PK\x01\x02")], 1, 0)]
    with pytest.raises(InvalidRequest, match="overlap"):
        await unzip(zip_of_entries(stored, whole))


async def test_entries_may_stand_in_another_order_than_their_bytes() -> None:
    data = make_zip({f"{n}.png": b"%d" % n for n in range(50)})
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    records = [b"PK\x01\x02" + record for record in data[start:end].split(b"PK\x01\x02")[1:]]
    shuffled = b"".join(records[::3] + records[2::3] + records[1::3])
    images, _ = await unzip(data[:start] + shuffled + data[end:])
    assert sorted(image.data for image in images) == sorted(b"%d" % n for n in range(50))


async def test_the_ratio_holds_for_a_whole_zip() -> None:
    limits = dataclasses.replace(LIMITS, item_bytes_max=1 << 20)
    with pytest.raises(UploadTooLarge, match="200 times"):
        await unzip(zip_of_bombs(5, 1 << 20), limits=limits)


async def test_bombs_fail_alone_unless_they_are_many() -> None:
    limits = dataclasses.replace(LIMITS, item_bytes_max=10 << 20)
    images, _ = await unzip(zip_of_bombs(16, 2 << 20), limits=limits)
    assert [image.data for image in images] == [ItemCode.COMPRESSION_BOMB] * 16
    with pytest.raises(UploadTooLarge, match="16 entries"):
        await unzip(zip_of_bombs(17, 2 << 20), limits=limits)


def test_names_of_unknown_character_sets_are_not_kept() -> None:
    """Python keeps each encoding that it is asked for, known or not, for good."""
    before = len(encodings._cache)
    asyncio.run(read_all(source_of(costly_uploads()["form: names in unknown character sets"]())))
    assert len(encodings._cache) - before < 10


async def test_a_stretch_of_few_calls_and_much_time_is_seen() -> None:
    async def read() -> None:
        sum(range(20_000_000))

    with pytest.raises(AssertionError, match="between two turns"):
        await check_stretches(read)
