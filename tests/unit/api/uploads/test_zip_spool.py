"""What zips that are being uploaded may take on the disk."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path

import pytest

from api.uploads.source import ArchiveStats
from api.uploads.zip import read_zip
from api.uploads.zip_spool import ZipSpool, ZipSpools
from jobs.errors import DarkroomError, QueueFull
from tests.support.archives import LIMITS, make_zip, unzip

ARCHIVE = make_zip({"a.png": b"one", "b.png": b"two"})


def spools_of(bytes_max: int, *, free_bytes_min: int = 1) -> ZipSpools:
    return ZipSpools(bytes_max=bytes_max, free_bytes_min=free_bytes_min)


async def fill(spool: ZipSpool) -> int:
    """Write until it is refused. Returns the bytes written."""
    with suppress(QueueFull):
        while True:
            await spool.write(bytes(100))
    return spool.size


async def test_zips_of_one_owner_leave_half_of_what_is_free() -> None:
    spools = spools_of(4000)
    alice, bob = (spools.open(owner, memory_bytes_max=1000) for owner in ("alice", "bob"))
    assert [await fill(alice), await fill(bob)] == [2000, 1000]
    again = spools.open("alice", memory_bytes_max=1000)
    with pytest.raises(QueueFull):
        await again.write(b"1")
    for spool in (alice, bob, again):
        await spool.close()
    assert spools.total_bytes == 0


async def test_a_zip_goes_to_the_disk_only_if_that_keeps_its_free_space() -> None:
    spool = spools_of(1 << 20, free_bytes_min=1 << 60).open("alice", memory_bytes_max=1000)
    await spool.write(bytes(1000))
    with pytest.raises(QueueFull, match="disk space"):
        await spool.write(b"1")
    await spool.close()


@pytest.mark.parametrize("data", [ARCHIVE, ARCHIVE[:-30], b"no zip", b"", bytes(2 << 20)])
async def test_the_bytes_of_a_zip_that_was_read_or_refused_are_given_back(data: bytes) -> None:
    spools = spools_of(1 << 20)
    with suppress(DarkroomError):
        await unzip(data, spools=spools)
    assert spools.total_bytes == 0


async def test_the_bytes_of_a_zip_whose_upload_breaks_off_are_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spools, arrived = spools_of(4 << 20), asyncio.Event()

    async def unfinished() -> AsyncIterator[bytes]:
        yield bytes(1 << 20)
        arrived.set()
        await asyncio.Event().wait()

    async def read() -> None:
        limits, stats = LIMITS, ArchiveStats()
        async with aclosing(read_zip(unfinished(), limits, stats, spools, "alice")) as images:
            await anext(images)

    upload = asyncio.create_task(read())
    await arrived.wait()
    assert spools.total_bytes == 1 << 20
    upload.cancel()
    await asyncio.gather(upload, return_exceptions=True)
    assert spools.total_bytes == 0
    assert not await asyncio.to_thread(lambda: [*tmp_path.iterdir()])
