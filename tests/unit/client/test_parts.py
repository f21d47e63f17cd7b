"""What the client cuts, the server's own reader takes: an item for each image, in order."""

import io
import json
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from darkroom.images import pictures
from darkroom.parts import PART_URLS_MAX, Part, Parts

from api.settings import ApiSettings
from api.uploads.archive_limits import ArchiveLimits
from api.uploads.source import ArchiveStats
from api.uploads.tar import read_tar
from jobs.item_codes import ItemCode

NASTY = [
    "/etc/passwd", "../../up.png", "a/../b.png", "a\\b.png", "C:\\x.png", "C:x", "", ".", "/", "..", "a.png", "a.png",
    "a.png (2)", "__MACOSX/a.png", "x/__MACOSX/a.png", ".DS_Store", "x/Thumbs.db",
    "desktop.ini", "._a.png", "x/._a.png",
    "n" * 300, "n" * 300, "ä" * 250, "ä" * 5000, "a\nb.png",
    "a\0b.png", "b\udcff.png", "b\udcfe.png", "\u2028", "e/", "😀" * 120,
]  # fmt: skip


async def items_of(part: Part) -> list[tuple[str | None, bytes | ItemCode]]:
    async def body() -> AsyncIterator[bytes]:
        yield part.body

    stats = ArchiveStats()
    found = [(image.name, image.data) async for image in read_tar(body(), ArchiveLimits.of(ApiSettings()), stats)]
    assert stats.skipped == 0
    return found


async def test_images_of_any_name_are_items_and_keep_their_name_here() -> None:
    part = Parts((name, b"%d" % number) for number, name in enumerate(NASTY)).take()
    items = await items_of(part)
    assert [data for _, data in items] == [b"%d" % number for number in range(len(NASTY))]
    assert [part.names.get(place, name) for place, (name, _) in enumerate(items)] == NASTY


@pytest.mark.parametrize("name", ["a.png", "x/ä (1).png", "n" * 100, "n" * 101, "ä" * 60])
@pytest.mark.parametrize("size", [0, 1, 511, 512, 9_999_999])
def test_a_part_is_the_tar_that_tarfile_makes(name: str, size: int) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as tar:
        info = tarfile.TarInfo(name)
        info.size = size
        tar.addfile(info, io.BytesIO(b"x" * size))
    part = Parts([(name, b"x" * size)]).take()
    assert part.body == archive.getvalue()[: len(part.body)], "tarfile fills the last record"


async def test_what_cannot_be_read_is_an_item_that_fails() -> None:
    part = Parts([b"one", "no-such-file", b"three", None, np.zeros((2, 2, 5), "uint8"), open]).take()
    assert [data for _, data in await items_of(part)] == [b"one", ItemCode.SPECIAL_ENTRY, b"three"] + [
        ItemCode.SPECIAL_ENTRY
    ] * 3
    assert sorted(part.unreadable) == [1, 3, 4, 5]
    assert part.unreadable[3] == "NoneType is no image."


def test_parts_have_bounds_and_each_image_is_in_one() -> None:
    parts = Parts([b"x" * 1000] * 100)
    sizes = list[int]()
    while not parts.at_end():
        part = parts.take(images_max=30, bytes_max=20_000)
        assert len(part.body) < 25_000
        sizes.append(part.images)
    assert sum(sizes) == 100
    assert len(sizes) > 4
    large = Parts([b"x" * 50_000, b"y"])
    assert large.take(bytes_max=20_000).images == 1, "an image that is larger than a part is one"


def test_urls_are_parts_of_their_own() -> None:
    urls = [f"https://example.com/{number}" for number in range(PART_URLS_MAX + 1)]
    parts = Parts([b"one", *urls, b"two"])
    taken = list[Part]()
    while not parts.at_end():
        taken.append(parts.take())
    assert [part.images for part in taken] == [1, PART_URLS_MAX, 1, 1]
    assert json.loads(taken[1].body)["urls"] == urls[:-1]
    assert Parts(["s3://bucket/prefix/"]).take().expands


def test_a_part_that_is_passed_over_has_the_same_stamp_and_names(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    images = [tmp_path / "a.png", b"b", ("/c", b"c"), "https://example.com/d", "no-such-file"]
    parts = Parts(images)
    taken = [parts.take(), parts.take(), parts.take()]
    again = Parts(images)
    skipped = [again.skip(part.images) for part in taken]
    assert [(it.stamp, it.names) for it in skipped] == [(it.stamp, it.names) for it in taken]
    assert again.at_end()
    (tmp_path / "a.png").write_bytes(b"aa")
    assert Parts(images).skip(taken[0].images).stamp != taken[0].stamp


def test_a_folder_is_its_pictures_sorted(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/10.jpg", "a.webp", "c.txt", ".h.png", ".h/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    (tmp_path / "folder.png").symlink_to(tmp_path)
    assert [it.name for it in pictures(tmp_path)] == ["a.webp", "b/10.jpg", "b/2.PNG"]
    assert [it.name for it in pictures(tmp_path, "b/*")] == ["b/10.jpg", "b/2.PNG"]
    assert [it.name for it in pictures(tmp_path / "none")] == [str(tmp_path / "none")], "an item that fails"


@pytest.mark.parametrize(
    ("content", "why"),
    [(Path("/proc/self/status"), "changed while it was read"), (Path("/dev/zero"), "Not a regular file"),
     (Path("a\0b"), "null byte"), (Path("x" * 300), "name too long"), (bytearray((64 << 20) + 1), "more than 64 MiB")],
)  # fmt: skip
def test_files_that_are_none(content: object, why: str) -> None:
    assert why in Parts([content]).take().unreadable[0]
