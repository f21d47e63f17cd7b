import asyncio
import dataclasses
import gzip
import subprocess
import tarfile
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import DarkroomError, InvalidRequest, UploadTooLarge
from jobs.item_codes import ItemCode
from tests.support.archives import LIMITS, make_tar, untar

names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\\0:", min_codepoint=33), min_size=1, max_size=150
).filter(lambda name: not name.startswith(("._", ".")) and name not in ("Thumbs.db", "desktop.ini"))
FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


@settings(deadline=None)
@given(
    st.dictionaries(names, st.binary(max_size=1500).map(lambda b: b"x" + b), max_size=8),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.integers(1, 3000),
    st.sampled_from(["w", "w:gz"]),
)
def test_what_tarfile_writes_is_read_wherever_it_is_cut(
    files: dict[str, bytes], kind: int, size: int, mode: str
) -> None:
    data = make_tar(files, kind=kind, mode=mode)
    images, _ = asyncio.run(untar(data, size=size))
    assert [image.data for image in images] == list(files.values())


@pytest.mark.parametrize("kind", FORMATS)
async def test_names_long_and_short_are_labels_with_their_folders(kind: int) -> None:
    deep = "/".join(["folder"] * 20) + "/shirt.png"
    files = {"./a.png": b"1", deep: b"2", "photos/ü.png": b"3"}
    images, _ = await untar(make_tar(files, kind=kind))
    assert [image.name for image in images] == ["a.png", deep, "photos/ü.png"]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
async def test_an_archive_that_is_cut_off_is_refused(mode: str) -> None:
    data = make_tar({"a.png": b"a" * 600, "b.png": b"b" * 600}, mode=mode)
    whole = {1536, 3072} if mode == "w" else set[int]()  # where a member ends: some programs write no end blocks
    for cut in set(range(min(len(data), 3072))) - whole:
        with pytest.raises(InvalidRequest):
            await untar(data[:cut])


async def test_an_archive_may_end_with_a_member() -> None:
    images, _ = await untar(make_tar({"a.png": b"a" * 600})[:1536])
    assert [image.data for image in images] == [b"a" * 600]


async def test_gzip_of_several_members_and_padding_are_read() -> None:
    data = make_tar({"a.png": b"a" * 600, "b.png": b"b" * 600})
    images, _ = await untar(gzip.compress(data[:1000]) + gzip.compress(data[1000:]) + bytes(100))
    assert len(images) == 2


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, **fields: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(-(-size // 512) * 512)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (member("link", tarfile.SYMTYPE, linkname="/etc/passwd"), ItemCode.LINK_ENTRY),
        (member("link", tarfile.LNKTYPE, linkname="a.png"), ItemCode.LINK_ENTRY),
        (member("null", tarfile.CHRTYPE), ItemCode.SPECIAL_ENTRY),
        (member("disk", tarfile.BLKTYPE), ItemCode.SPECIAL_ENTRY),
        (member("pipe", tarfile.FIFOTYPE), ItemCode.SPECIAL_ENTRY),
        (member("sparse", tarfile.GNUTYPE_SPARSE), ItemCode.SPECIAL_ENTRY),
        (member("/etc/passwd", size=5), ItemCode.ABSOLUTE_PATH),
        (member("C:\\windows\\a.png", size=5), ItemCode.ABSOLUTE_PATH),
        (member("\\\\server\\a.png", size=5), ItemCode.ABSOLUTE_PATH),
        (member("a/../../b.png", size=5), ItemCode.PARENT_PATH),
        (member("..\\b.png", size=5), ItemCode.PARENT_PATH),
        (member("big.png", size=10_001), ItemCode.ITEM_TOO_LARGE),
        (member("a.png", size=5), ItemCode.DUPLICATE_NAME),
    ],
)
async def test_a_member_that_is_not_a_regular_file_fails_with_its_code(header: bytes, code: ItemCode) -> None:
    first, second = make_tar({"a.png": b"first"})[:1024], make_tar({"b.png": b"second"})
    images, _ = await untar(first + header + second)
    assert [image.data for image in images] == [b"first", code, b"second"]


@pytest.mark.parametrize(
    "options", [["--format=gnu"], *(["--format=posix", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0"))]
)
def test_a_sparse_file_fails_alone(tmp_path: Path, options: list[str]) -> None:
    with (tmp_path / "sparse.png").open("wb") as sparse:
        for hole in range(50):  # more than fit into a GNU header, so that its map continues in further blocks
            sparse.seek(hole * 65_536)
            sparse.write(b"x" * 4096)
        sparse.truncate(4 << 20)
    (tmp_path / "z.png").write_bytes(b"last")
    archive = tmp_path / "photos.tar"
    subprocess.run(["tar", "--sparse", *options, "-cf", archive, "-C", tmp_path, "sparse.png", "z.png"], check=True)
    images, _ = asyncio.run(untar(archive.read_bytes()))
    assert [(image.name, image.data) for image in images] == [
        ("sparse.png", ItemCode.SPECIAL_ENTRY),
        ("z.png", b"last"),
    ]


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
async def test_an_archive_that_ends_after_a_long_name_header_is_cut_off(kind: int) -> None:
    data = make_tar({"n" * 150: b"x"}, kind=kind)
    with pytest.raises(InvalidRequest):
        await untar(data[:1024])


async def test_names_that_are_not_utf8_stay_different_names() -> None:
    file = BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        for name in ("ä.png", "ö.png"):
            archive.addfile(tarfile.TarInfo(name))
    images, _ = await untar(file.getvalue())
    assert [(image.name, image.data) for image in images] == [("ä.png", b""), ("ö.png", b"")]


async def test_archives_in_archives_are_not_opened() -> None:
    inner = make_tar({"Photos/a.png": b"first"})
    files = {"a.tar": inner, "a.tar.gz": gzip.compress(inner), "a.zip": b"PK\x03\x04", "a.7z": b"7z\xbc\xaf\x27\x1c"}
    images, _ = await untar(make_tar(files), limits=dataclasses.replace(LIMITS, item_bytes_max=100_000))
    assert [image.data for image in images] == [ItemCode.NESTED_ARCHIVE] * 4


async def test_system_files_and_folders_are_skipped_and_system_files_are_counted() -> None:
    system_files = ["__MACOSX/._a.png", "photos/.DS_Store", "Thumbs.db", "photos/._b.png"]
    data = member("photos/", tarfile.DIRTYPE) + make_tar(dict.fromkeys([*system_files, "a.png"], b"x"))
    images, skipped = await untar(data)
    assert ([image.name for image in images], skipped) == (["a.png"], 4)


async def test_other_bytes_than_a_tar_are_refused() -> None:
    for data in (
        b"",
        b"x",
        bytes(511),
        b"not a tar" * 500,
        gzip.compress(b"not a tar" * 500),
        b"\x1f\x8b" + bytes(600),
    ):
        with pytest.raises(InvalidRequest):
            await untar(data)


async def test_limits_of_the_whole_archive_are_enforced() -> None:
    data = make_tar({f"{n}.png": b"x" for n in range(5)})
    with pytest.raises(UploadTooLarge):
        await untar(data, limits=dataclasses.replace(LIMITS, members_max=4))
    with pytest.raises(UploadTooLarge):
        await untar(data, limits=dataclasses.replace(LIMITS, inflated_bytes_max=4000))


async def test_a_gzip_bomb_is_refused_before_it_is_unpacked() -> None:
    file = BytesIO()
    with gzip.open(file, "wb") as bomb:
        bomb.write(member("a.png", size=50 << 20))
    with pytest.raises(UploadTooLarge, match="200 times"):
        await untar(file.getvalue())


@settings(deadline=None)
@given(st.binary(max_size=3000), st.integers(0, 2000), st.sampled_from(["w", "w:gz"]))
def test_damage_anywhere_is_an_error_of_the_request_or_ignored(noise: bytes, at: int, mode: str) -> None:
    data = make_tar({"a.png": b"a" * 600, "b.png": b"b" * 600}, mode=mode)
    with suppress(DarkroomError):
        asyncio.run(untar(data[:at] + noise + data[at + len(noise) :]))
