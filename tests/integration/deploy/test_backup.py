"""A backup under load, the host lost, a restore: what was accepted by then comes to its end."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from contextlib import closing
from io import BytesIO
from pathlib import Path

import pytest

from deploy.backup.archive import FORMAT, RDB, BackupError, check_backup, write_backup
from deploy.backup.local import LocalPlace
from deploy.restore.__main__ import restore
from jobs.settings import StoreSettings
from jobs.spool.folder import SUBFOLDER, SpoolFolder
from jobs.spool.hold import HOLD_SECONDS_MAX, hold, let_go
from jobs.spool.names import new_upload_name
from jobs.store import keys
from jobs.store.for_workers.leases import LeaseStore
from tests.support.processes import ROOT, Valkey
from tests.support.stack import Stack, results_of, submit_all
from tests.support.store import MODEL, owner_token

LARGE_BYTES = 100 << 10  # goes to the folder of uploads, not to Redis


@pytest.fixture
def place(tmp_path: Path) -> LocalPlace:
    (tmp_path / "uploads").mkdir()
    return LocalPlace(tmp_path / "vk", tmp_path / "uploads")


@pytest.fixture
def backup(place: LocalPlace, tmp_path: Path) -> Path:
    """A backup of a stack with one key and no upload."""
    with Valkey(tmp_path / "vk") as server, server.client as client:
        client.set("key", "value")
        make_backup(place, tmp_path / "backup.tar")
    return tmp_path / "backup.tar"


def make_backup(place: LocalPlace, file: Path, before_copy: Callable[[], None] = lambda: None) -> None:
    rdb = file.with_suffix(".rdb")
    with place.held_uploads() as begin_copy:
        place.save(rdb)
        before_copy()
        write_backup(file, rdb, begin_copy())


def command(module: str, file: Path, *options: str) -> str:
    """The output of a command; an error must be one line."""
    arguments = [sys.executable, "-m", module, str(file), *options]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert len(lines) == 1, lines
    assert (done.returncode == 0) == (not lines[0].startswith("darkroom "))
    return lines[0]


async def test_what_was_accepted_before_a_backup_is_done_after_the_host_is_lost(
    place: LocalPlace, tmp_path: Path, shirt: bytes
) -> None:
    images = [shirt, shirt + bytes(LARGE_BYTES)] * 6
    settings = {"UPLOADS_URL": f"file://{tmp_path / 'uploads'}", "UPLOADS_FREE_BYTES_MIN": "1"}
    uploads = tmp_path / "uploads" / SUBFOLDER
    with Stack(tmp_path, **settings) as stack:
        api = stack.api()
        job_ids = await submit_all(api.url, images)
        store_settings = StoreSettings(redis_url=stack.valkey.url, uploads_url=settings["UPLOADS_URL"])
        with closing(LeaseStore(store_settings, lease_seconds=4, timeout_seconds=30)) as leases:
            lease = leases.claim(MODEL, owner_token(), items_max=2, bytes_max=1 << 20, turn=0)
        assert lease.chunks, "a worker that is lost with the host"

        def finish_all() -> None:
            """While the uploads are held, workers finish what Redis' file in the backup has as waiting."""
            worker = stack.worker(children=1)
            stack.wait_for_transitions(len(images))
            worker.stop()  # now, as without Redis it would take long
            assert len(list(uploads.glob("*.upload"))) == len(images) // 2

        make_backup(place, tmp_path / "backup.tar", finish_all)
        for process in (api, stack.valkey):
            process.kill()
    shutil.rmtree(tmp_path / "vk")
    shutil.rmtree(tmp_path / "uploads")

    said = command("deploy.restore", tmp_path / "backup.tar", "--data-dir", str(tmp_path / "vk"), *at(tmp_path))
    assert f"{len(images) // 2} large uploads" in said

    with Stack(tmp_path, **settings) as stack:
        assert stack.redis.zcard(keys.LEASES) == 1
        assert stack.stat("pending:public") == len(images)
        api = stack.api()
        stack.worker(children=1)
        results = await results_of(api.url, job_ids)
        assert [result["class"] for result in results] == ["Shirt"] * len(images)
        assert len(await results_of(api.url, await submit_all(api.url, images[:2]))) == 2


def at(folder: Path) -> tuple[str, str]:
    return "--uploads", str(folder / "uploads")


def test_the_commands_say_what_they_have_done(tmp_path: Path) -> None:
    with Valkey(tmp_path / "vk") as server, server.client as client:
        client.set("key", "value")
        options = ("--data-dir", str(tmp_path / "vk"))
        line = command("deploy.backup", tmp_path / "backup.tar", *options)
        assert "0 large uploads" in line
        assert oct((tmp_path / "backup.tar").stat().st_mode & 0o777) == "0o600"
        assert "exists" in command("deploy.backup", tmp_path / "backup.tar", *options)
        assert not (tmp_path / "vk" / "dump.rdb").exists()
    assert "no `make run` answers" in command("deploy.backup", tmp_path / "other.tar", *options)
    assert not (tmp_path / "other.tar").exists()


def test_a_truncated_backup_is_refused_wherever_it_ends(backup: Path) -> None:
    whole = backup.read_bytes()
    for size in (0, 300, 700, 1024, 1300, 1536, 1600):
        backup.write_bytes(whole[:size])
        with pytest.raises(BackupError, match="truncated"):
            check_backup(backup)
    backup.write_bytes(whole)
    assert check_backup(backup).uploads == 0


def test_a_damaged_backup_is_refused(backup: Path) -> None:
    data = bytearray(backup.read_bytes())
    data[600] ^= 1
    backup.write_bytes(data)
    with pytest.raises(BackupError, match="damaged"):
        check_backup(backup)


def test_a_backup_of_a_later_release_is_refused(backup: Path) -> None:
    later = backup.read_bytes().replace(f'"format": {FORMAT}'.encode(), f'"format": {FORMAT + 8}'.encode())
    backup.write_bytes(later)
    with pytest.raises(BackupError, match="later release of Darkroom"):
        check_backup(backup)


def test_a_file_of_a_newer_redis_is_refused_and_changes_nothing(place: LocalPlace, tmp_path: Path) -> None:
    (tmp_path / "newer.rdb").write_bytes(b"REDIS0999" + bytes(100))
    empty = BytesIO()
    tarfile.open(fileobj=empty, mode="w").close()
    write_backup(tmp_path / "newer.tar", tmp_path / "newer.rdb", BytesIO(empty.getvalue()))
    with pytest.raises(BackupError, match="999"):
        restore(tmp_path / "newer.tar", place, replace=False)
    assert not (tmp_path / "vk" / "appendonlydir").exists()
    assert not (tmp_path / "uploads" / SUBFOLDER).exists()


def test_a_file_with_other_names_is_no_backup(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        for name in (RDB, "uploads/../../etc/passwd"):
            tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(BackupError, match="no backup of Darkroom's"):
        check_backup(tmp_path / "other.tar")


def test_a_running_stack_is_not_restored_onto(backup: Path, tmp_path: Path) -> None:
    """`make run` holds this lock as long as it runs."""
    with subprocess.Popen(
        ["flock", tmp_path / "vk" / "lock", "sh", "-c", "echo && read _"], stdin=-1, stdout=-1
    ) as run:
        assert run.stdout is not None
        run.stdout.readline()
        assert "is running" in command("deploy.restore", backup, "--replace", "--data-dir", str(tmp_path / "vk"))
        run.communicate(b"\n")


def test_data_that_is_there_is_set_aside_only_if_asked(backup: Path, place: LocalPlace, tmp_path: Path) -> None:
    with Valkey(tmp_path / "vk") as server, server.client as client:
        client.set("key", "a later value")
    with pytest.raises(BackupError, match="--replace"):
        restore(backup, place, replace=False)
    restore(backup, place, replace=True)
    with Valkey(tmp_path / "vk") as server, server.client as client:
        assert client.get("key") == b"value"
        client.set("another", "written after the restore")
    with Valkey(tmp_path / "vk") as server, server.client as client:
        assert client.dbsize() == 2
    (former,) = (tmp_path / "vk").glob("appendonlydir.replaced-*")
    assert any(b"a later value" in file.read_bytes() for file in former.iterdir())


def test_uploads_are_deleted_again_after_a_backup_or_after_one_that_was_killed(tmp_path: Path) -> None:
    spool, folder = SpoolFolder(tmp_path, free_bytes_min=1), tmp_path / SUBFOLDER
    spool.check("this store")
    names = [new_upload_name(bytes(16)) for _ in range(2)]
    for name in names:
        spool.write(name, b"upload")
    hold(folder)
    spool.delete(names)
    assert sorted(spool.names()) == sorted(names)
    let_go(folder)
    spool.delete(names[:1])
    assert list(spool.names()) == names[1:]
    hold(folder)
    os.utime(folder / ".hold", (0, time.time() - HOLD_SECONDS_MAX - 1))
    spool.delete(names)
    assert list(spool.names()) == []


def test_a_second_backup_at_the_same_time_is_refused(place: LocalPlace, tmp_path: Path) -> None:
    (tmp_path / "uploads" / SUBFOLDER).mkdir(parents=True)
    with Valkey(tmp_path / "vk"), place.held_uploads() as begin_copy:
        assert "another backup" in command(
            "deploy.backup", tmp_path / "b.tar", "--data-dir", str(tmp_path / "vk"), *at(tmp_path)
        )
        begin_copy()
    assert json.dumps([path.name for path in (tmp_path / "uploads" / SUBFOLDER).iterdir()]) == "[]"
