"""A large upload is on the disk, its file and its folder's entry, before its job is accepted."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.spool.folder import SUBFOLDER, SpoolFolder
from jobs.spool.names import SPOOLED_BYTES_MIN
from jobs.store import keys
from jobs.store.for_api.spool_sweep import SpoolSweep
from tests.support.spool import LARGE, Files, accept, submit
from tests.support.store import Store
from tests.support.waiting import wait_until

Synced = list[tuple[str, bool]]
"""In order: the name of the file that was synced, or that of the folder, and whether any job was accepted by then."""


@pytest.fixture
def synced(store: Store, sweep: SpoolSweep, monkeypatch: pytest.MonkeyPatch) -> Synced:
    """What is synced from now on."""
    log = Synced()

    def logged(sync: Callable[[int], None]) -> Callable[[int], None]:
        def call(file: int) -> None:
            sync(file)
            log.append(
                (Path(f"/proc/self/fd/{file}").readlink().name, bool(store.redis.keys(keys.JOB.encode() + b"*")))
            )

        return call

    monkeypatch.setattr(os, "fdatasync", logged(os.fdatasync))
    monkeypatch.setattr(os, "fsync", logged(os.fsync))
    return log


async def test_a_file_and_then_its_folder_are_synced_before_the_job_is_accepted(
    store: Store, files: Files, synced: Synced
) -> None:
    await submit(store, LARGE)
    (name,) = files()
    assert synced == [(name, False), (SUBFOLDER, False)]
    assert store.redis.keys(keys.JOB.encode() + b"*")


async def test_parallel_submits_share_the_syncs_of_the_folder(
    store: Store, files: Files, synced: Synced, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first sync of the folder takes until all files are written: those behind it share the next."""
    commit, first = SpoolFolder.commit, True

    def slow_commit(folder: SpoolFolder) -> None:
        nonlocal first
        if first:
            first = False
            wait_until(lambda: len(synced) == 8, what="the sync of eight files")
        commit(folder)

    monkeypatch.setattr(SpoolFolder, "commit", slow_commit)
    submissions = [await store.submission(bytes([number]) * SPOOLED_BYTES_MIN) for number in range(8)]
    await asyncio.gather(*(accept(store.submitter, it) for it in submissions))
    assert {name for name, _ in synced[:8]} == set(files())
    assert {name for name, _ in synced[8:]} == {SUBFOLDER}
    assert len(synced) < 16, "a sync of the folder for each submit"
    assert not any(accepted for _, accepted in synced[:9])
    assert len(store.redis.keys(keys.JOB.encode() + b"*")) == 8
