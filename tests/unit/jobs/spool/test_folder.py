"""A folder of uploads: files are whole or absent, and a folder that cannot be used is named in one line."""

import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.errors import SettingsError
from jobs.spool.folder import SUBFOLDER, SpoolFolder
from jobs.spool.names import Pointer, new_upload_name
from jobs.spool.spool import SpoolFull, SpoolNotMarked

NAME = new_upload_name(bytes(16))
NO_MOUNT = "" if os.geteuid() == 0 and shutil.which("mount") else "only root can mount a small file system"


@pytest.fixture
def spool(tmp_path: Path) -> SpoolFolder:
    spool = SpoolFolder(tmp_path, free_bytes_min=1)
    spool.check("this store")
    return spool


def mount(folder: Path, *options: str) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    yield from mount(tmp_path / "small", "size=1m")


@pytest.fixture
def read_only_disk(tmp_path: Path) -> Iterator[Path]:
    yield from mount(tmp_path / "read-only", "size=1m", "ro")


def test_what_is_written_is_read_until_it_is_deleted(spool: SpoolFolder) -> None:
    pointer = spool.write(NAME, b"onetwo")
    spool.commit()
    assert (pointer.name, pointer.size) == (NAME, 6)
    assert spool.read(pointer) == b"onetwo"
    assert list(spool.names()) == [NAME]
    spool.delete([NAME])
    spool.delete([NAME])
    assert spool.read(pointer) is None
    assert list(spool.names()) == []


@pytest.mark.parametrize("damaged", [b"onetw", b"onetwo!", b"ONEtwo", b""])
def test_a_damaged_file_is_lost(
    spool: SpoolFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture, damaged: bytes
) -> None:
    pointer = spool.write(NAME, b"onetwo")
    (tmp_path / SUBFOLDER / NAME).write_bytes(damaged)
    assert spool.read(pointer) is None
    assert NAME in caplog.text


def test_no_file_is_lost_because_the_folder_is_away(spool: SpoolFolder, tmp_path: Path) -> None:
    pointer = spool.write(NAME, b"onetwo")
    (tmp_path / SUBFOLDER).rename(tmp_path / "away")
    with pytest.raises(OSError, match="away"):
        spool.read(pointer)
    with pytest.raises(OSError, match=SUBFOLDER):
        spool.write(new_upload_name(bytes(16)), b"x")
    (tmp_path / "away").rename(tmp_path / SUBFOLDER)
    assert spool.read(pointer) == b"onetwo"


def test_a_name_is_used_once(spool: SpoolFolder) -> None:
    pointer = spool.write(NAME, b"first")
    with pytest.raises(FileExistsError):
        spool.write(NAME, b"second")
    assert spool.read(pointer) == b"first"


def test_two_stores_do_not_share_a_folder(spool: SpoolFolder, tmp_path: Path) -> None:
    spool.check("this store")
    with pytest.raises(SettingsError, match="holds the uploads of another Redis"):
        SpoolFolder(tmp_path, free_bytes_min=1).check("another store")


def test_a_folder_in_use_is_not_created_anew(spool: SpoolFolder, tmp_path: Path) -> None:
    """It is that of an unmounted file system: what is written there would be hidden later."""
    spool.check("this store", is_new=False)
    (tmp_path / SUBFOLDER).rename(tmp_path / "away")
    with pytest.raises(SettingsError, match="is it mounted"):
        spool.check("this store", is_new=False)
    assert not (tmp_path / SUBFOLDER).exists()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"UPLOADS_URL: there is no folder .*/missing"):
        SpoolFolder(tmp_path / "missing", free_bytes_min=1).check(None)


def test_a_folder_that_takes_no_subfolder_is_named(tmp_path: Path) -> None:
    (tmp_path / SUBFOLDER).touch()
    with pytest.raises(SettingsError, match="UPLOADS_URL: cannot write into"):
        SpoolFolder(tmp_path, free_bytes_min=1).check(None)


@pytest.mark.skipif(bool(NO_MOUNT), reason=NO_MOUNT)
def test_a_read_only_file_system_is_named(read_only_disk: Path) -> None:
    with pytest.raises(SettingsError, match=r"UPLOADS_URL: cannot write into .*/read-only: Read-only file system"):
        SpoolFolder(read_only_disk, free_bytes_min=1).check(None)


def test_a_file_system_that_can_never_have_room_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="UPLOADS_FREE_BYTES_MIN keeps 1000000000000000000 free"):
        SpoolFolder(tmp_path, free_bytes_min=10**18).check(None)


@pytest.mark.skipif(bool(NO_MOUNT), reason=NO_MOUNT)
def test_a_full_file_system_keeps_nothing_of_a_file(
    small_disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is another file system than that of `tmp_path`: no file is moved between the two."""
    assert small_disk.stat().st_dev != tmp_path.stat().st_dev
    spool = SpoolFolder(small_disk, free_bytes_min=1 << 18)
    spool.check("this store")
    room = spool.room_bytes()
    assert (1 << 19) < room < (1 << 20)
    kept = spool.write(NAME, bytes(room))
    assert spool.room_bytes() <= 0
    with pytest.raises(SpoolFull):
        spool.write(new_upload_name(bytes(16)), bytes(1 << 19))
    assert list(spool.names()) == [NAME]
    assert spool.read(kept) == bytes(room)

    spool.write(new_upload_name(bytes(16)), bytes(spool.room_bytes() + (1 << 18)))
    with caplog.at_level(logging.WARNING):
        spool.check("this store")
    assert "is full" in caplog.text, "a worker must start, or nothing would drain"
    spool.delete([kept.name])
    assert isinstance(spool.write(new_upload_name(bytes(16)), b"x"), Pointer)


def test_a_worker_marks_no_folder(tmp_path: Path) -> None:
    """On another host, a folder of the same name would pass for the API's, and all uploads in it for lost."""
    folder = SpoolFolder(tmp_path, free_bytes_min=1)
    folder.check(None, may_mark=False)  # nothing is known of the store yet
    with pytest.raises(SpoolNotMarked, match="is not where the API of this Redis keeps uploads"):
        folder.check("this store", may_mark=False)
    folder.check("this store")
    folder.check("this store", may_mark=False)
    with pytest.raises(SettingsError, match="of another Redis"):
        folder.check("another store", may_mark=False)
