import asyncio
import dataclasses
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import DarkroomError, InvalidRequest, UploadTooLarge
from jobs.item_codes import ItemCode
from tests.support.archives import LIMITS, make_zip, unicode_path, unzip, zip_with_name

names = st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1, max_size=80)


@settings(deadline=None, max_examples=50)
@given(
    st.dictionaries(names, st.binary(max_size=1500).map(lambda b: b"x" + b), max_size=8),
    st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    st.integers(1, 3000),
)
def test_what_zipfile_writes_is_read(files: dict[str, bytes], compression: int, size: int) -> None:
    images, _ = asyncio.run(unzip(make_zip(files, compression=compression), size=size))
    assert [image.data for image in images] == list(files.values())
    assert [image.name for image in images] == [name[:255] for name in files]


def special(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize(
    ("info", "data", "code"),
    [
        (special("link", stat.S_IFLNK | 0o777), b"/etc/passwd", ItemCode.LINK_ENTRY),
        (special("pipe", stat.S_IFIFO | 0o644), b"", ItemCode.SPECIAL_ENTRY),
        (special("disk", stat.S_IFBLK | 0o644), b"", ItemCode.SPECIAL_ENTRY),
        (special("/etc/passwd", 0), b"x", ItemCode.ABSOLUTE_PATH),
        (special("../b.png", 0), b"x", ItemCode.PARENT_PATH),
        (special("big.png", 0), bytes(10_001), ItemCode.ITEM_TOO_LARGE),
        (special("b.zip", 0), b"PK\x03\x04", ItemCode.NESTED_ARCHIVE),
    ],
)
async def test_a_member_that_is_not_a_regular_file_fails_with_its_code(
    info: zipfile.ZipInfo, data: bytes, code: ItemCode
) -> None:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.png", b"first")
        archive.writestr(info, data)
        archive.writestr("z.png", b"last")
    images, _ = await unzip(file.getvalue())
    assert [image.data for image in images] == [b"first", code, b"last"]


async def test_of_two_members_with_one_name_the_second_fails() -> None:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.png", b"first")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.png", b"second")
    images, _ = await unzip(file.getvalue())
    assert [image.data for image in images] == [b"first", ItemCode.DUPLICATE_NAME]


def patched(data: bytes, offset: int, value: int) -> bytes:
    """A zip of one member with a 16-bit field changed in its local header and, two bytes further, in its directory."""
    central = data.index(b"PK\x01\x02")
    data = bytearray(data)
    struct.pack_into("<H", data, offset, value)
    struct.pack_into("<H", data, central + offset + 2, value)
    return bytes(data)


async def test_what_cannot_be_unpacked_fails_with_its_code() -> None:
    data = make_zip({"a.png": b"x" * 600})
    for offset, value, code in ((6, 1, "encrypted_entry"), (8, 97, "unsupported_compression")):
        images, _ = await unzip(patched(data, offset, value))
        assert [image.data for image in images] == [ItemCode(code)]
    images, _ = await unzip(data.replace(b"xxxx", b"yyyy", 1))
    assert [image.data for image in images] == [ItemCode.CORRUPT_ENTRY]
    lzma, _ = await unzip(make_zip({"a.png": b"x" * 600}, compression=zipfile.ZIP_LZMA))
    assert [image.data for image in lzma] == [ItemCode.UNSUPPORTED_COMPRESSION]


async def test_a_bomb_is_detected_while_it_is_unpacked() -> None:
    data = make_zip({"bomb.png": bytes(5 << 20), "b.png": b"x"}, compression=zipfile.ZIP_DEFLATED)
    limits = dataclasses.replace(LIMITS, item_bytes_max=10 << 20)
    images, _ = await unzip(data, limits=limits)
    assert [image.data for image in images] == [ItemCode.COMPRESSION_BOMB, b"x"]

    size = data.index(b"PK\x01\x02") + 24  # the directory claims that the member is small
    images, _ = await unzip(data[:size] + struct.pack("<I", 10) + data[size + 4 :], limits=limits)
    assert images[0].data in (ItemCode.COMPRESSION_BOMB, ItemCode.CORRUPT_ENTRY)


async def test_system_files_and_folders_are_skipped_and_system_files_are_counted() -> None:
    images, skipped = await unzip(
        make_zip({"photos/": b"", "photos/.DS_Store": b"x", "__MACOSX/a": b"x", "a.png": b"x"})
    )
    assert ([image.name for image in images], skipped) == (["a.png"], 2)


async def test_a_zip64_archive_of_many_members_is_read() -> None:
    count = 66_000
    data = make_zip({f"{n}.png": b"x" for n in range(count)})
    assert b"PK\x06\x06" in data, "the archive has a zip64 directory"
    limits = dataclasses.replace(LIMITS, members_max=count, zip_bytes_max=1 << 30)
    images, _ = await unzip(data, size=1 << 16, limits=limits)
    assert len(images) == count


async def test_a_directory_of_folders_alone_uses_no_memory() -> None:
    count = 200_000
    folder = make_zip({"f/": b""})
    record = folder[folder.index(b"PK\x01\x02") : folder.index(b"PK\x05\x06")]
    size = count * len(record)
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, size, 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    data = record * count + end64 + locator + end
    tracemalloc.start()
    try:
        images, _ = await unzip(data, size=1 << 16, limits=dataclasses.replace(LIMITS, zip_bytes_max=1 << 30))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert images == []
    assert peak < 4 << 20


async def test_bytes_before_an_archive_and_a_comment_behind_it_are_ignored() -> None:
    data = bytearray(make_zip({"a.png": b"x"}))
    data[-2:] = struct.pack("<H", 9)
    images, _ = await unzip(b"#!program" * 100 + bytes(data) + b"a comment")
    assert [image.data for image in images] == [b"x"]


async def test_other_bytes_than_a_zip_or_too_many_are_refused() -> None:
    data = make_zip({f"{n}.png": b"x" * 600 for n in range(3)})
    for bad in (b"", b"PK\x03\x04", b"x" * 3000, *(data[:cut] for cut in range(0, len(data) - 1, 7))):
        with pytest.raises(InvalidRequest):
            await unzip(bad)
    for limits in ({"members_max": 2}, {"zip_bytes_max": 1000}, {"inflated_bytes_max": 1000}):
        with pytest.raises(UploadTooLarge):
            await unzip(data, limits=dataclasses.replace(LIMITS, **limits))


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(0, 1500))
def test_damage_anywhere_is_an_error_of_the_request_or_of_a_member(noise: bytes, at: int) -> None:
    data = make_zip({"a.png": b"a" * 600, "b.png": b"b" * 600})
    with suppress(DarkroomError):
        asyncio.run(unzip(data[:at] + noise + data[at + len(noise) :]))


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (lambda name: unicode_path(name, "写真.png"), "写真.png"),
        (lambda name: struct.pack("<HH", 0x5455, 1) + b"x" + unicode_path(name, "写真.png"), "写真.png"),
        (lambda name: unicode_path(name + b"!", "写真.png"), "Ä╩É^.png"),  # the checksum of another name
        (lambda name: unicode_path(name, "写真.png", version=2), "Ä╩É^.png"),
        (lambda name: unicode_path(name, "写真.png")[:6], "Ä╩É^.png"),
        (lambda _: b"", "Ä╩É^.png"),
    ],
)
async def test_a_name_in_an_old_code_page_is_that_of_the_unicode_path_field(
    extra: Callable[[bytes], bytes], expected: str
) -> None:
    name = "写真.png".encode("cp932")
    images, _ = await unzip(zip_with_name(name, extra(name)))
    assert [image.name for image in images] == [expected]


@pytest.mark.parametrize(
    "behind", [b"\r\n", bytes(5000), b"\r\n--boundary--\r\n", b"PK\x05\x06", b"PK\x05\x06" + b"\1" * 60]
)
async def test_bytes_behind_the_end_are_ignored(behind: bytes) -> None:
    images, _ = await unzip(make_zip({"a.png": b"x"}) + behind)
    assert [image.data for image in images] == [b"x"]


async def test_a_zip_stored_in_a_zip_is_a_member_and_not_the_archive() -> None:
    images, _ = await unzip(make_zip({"inner.zip": make_zip({"a.png": b"x"})}))
    assert [image.name for image in images] == ["inner.zip"]
