"""The client against a real server and worker."""

import csv
import io
import json
import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from darkroom import AsyncDarkroom, Darkroom, DarkroomError, ItemFailed, WaitTimeout
from darkroom.errors import InvalidRequest, JobExpired, JobNotFound, Unauthorized, UnknownModel

from jobs.codec import pack_outcomes, pack_retained
from jobs.item_codes import ItemCode
from jobs.records import Failure
from jobs.settings import StoreSettings
from jobs.store.for_workers.leases import FinishedChunk, LeaseStore
from tests.integration.client.conftest import DATA, KEY, Command
from tests.support.processes import MAXMEMORY_BYTES, Api
from tests.support.stack import Stack
from tests.support.store import owner_token

BAG = DATA / "0018-bag.png"
MODEL_AT_REST = "fmnist-cnn"  # which no worker serves


def test_each_kind_of_image_is_classified_in_its_place(darkroom: Darkroom) -> None:
    pixels = np.asarray(PIL.Image.open(BAG).convert("RGB"))
    alpha = np.dstack([pixels, np.full(pixels.shape[:2], 255, "uint8")])
    files = [io.BytesIO(BAG.read_bytes()), io.BytesIO(BAG.read_bytes())]
    bags = [BAG, str(BAG), BAG.read_bytes(), *files, PIL.Image.open(BAG)]
    arrays = [pixels, pixels[:, :, 0], alpha]
    bad = [
        "no-such-file.png",
        math.nan,
        np.zeros((4, 4, 2), "uint8"),
        np.zeros((4, 4)),
        b"",
        DATA.parent / "__init__.py",
    ]
    items = list(darkroom.classify_many([*bags, ("a bag", BAG), *bad, *arrays], top_k=2))

    assert [item.index for item in items] == list(range(16))
    codes = [item.error.code if item.error else item.class_name for item in items]
    assert codes == ["Bag"] * 7 + ["unreadable"] * 4 + ["empty_upload", "empty_upload"] + ["Bag"] * 3
    assert items[0].name == items[1].name == str(BAG)
    assert items[6].name == "a bag"
    assert items[2].name == "2"
    assert items[7].error is not None
    assert items[7].error.detail == "No such file or directory"
    assert len(items[0].top_k) == 2
    assert items[0].confidence == items[0].top_k[0].confidence


def test_one_image_has_an_answer_or_an_error(darkroom: Darkroom) -> None:
    assert darkroom.classify(BAG).class_name == "Bag"
    with pytest.raises(ItemFailed, match="not_an_image") as failed:
        darkroom.classify(("a text", b"no image"))
    assert failed.value.item.name == "a text"
    with pytest.raises(ItemFailed, match="unreadable: No such file"):
        darkroom.classify("no-such-file.png")
    with pytest.raises(TypeError, match="classify_many"):
        darkroom.classify([BAG])
    with pytest.raises(TypeError, match="classify_many"):
        darkroom.classify(DATA)


def test_more_images_than_a_submit_takes_are_one_job_of_many_parts(
    darkroom: Darkroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darkroom.parts.PART_BYTES_MAX", 100_000)
    known = len(list(darkroom.jobs()))
    progress = list[int]()
    items = darkroom.classify_many([DATA] * 20, on_progress=lambda it: progress.append(it.images))
    names = [item.name for item in items]
    assert names == [path.name for path in sorted(DATA.glob("*.png"))] * 20
    assert len(list(darkroom.jobs())) == known + 1
    assert len(progress) > 3, "parts"
    assert progress == sorted(progress)


def test_items_come_while_images_are_uploaded(darkroom: Darkroom) -> None:
    """The first item is there before the iterable has come to its end."""
    taken = list[int]()

    def endless() -> Iterator[Path]:
        while len(taken) < 1_000_000:
            taken.append(1)
            yield BAG

    items = darkroom.classify_many(endless())
    assert next(items).class_name == "Bag"
    read = len(taken)
    assert read < 20_000, "bounded memory"
    items.close()
    job = next(darkroom.jobs())
    assert job.status == "canceled", "leaving it early cancels the job"


def test_a_job_is_submitted_waited_for_and_read(darkroom: Darkroom) -> None:
    job = darkroom.submit([BAG, b"no image"], lane="bulk", top_k=3)
    assert (job.counts.total, job.lane) == (2, "bulk")
    assert job.wait(30).counts.succeeded == 1
    assert darkroom.job(job.id).status == "completed"
    assert [item.status for item in job.results()] == ["succeeded", "failed"]
    assert [item.index for item in job.results(status="failed")] == [1]
    assert [item.index for item in job.results(start=1)] == [1]
    *_, last = job.progress()
    assert last.ended
    assert last == job.refresh()
    assert next(darkroom.jobs()).id == job.id
    job.delete()
    with pytest.raises(JobExpired):
        job.wait(30)


def test_a_job_that_does_not_end_is_waited_for_in_vain(darkroom: Darkroom) -> None:
    data = darkroom.call("POST", "/v1/jobs", params={"open": "true"})
    job = darkroom.job(data["id"])
    with pytest.raises(WaitTimeout, match="is open after 0 s"):
        job.wait(0)
    with pytest.raises(TimeoutError):
        job.wait(0)
    assert job.cancel().status == "canceled"


def test_a_submit_with_the_callers_key_is_repeated_without_doubling(darkroom: Darkroom) -> None:
    first = darkroom.submit([DATA] * 4, idempotency_key="my key")
    assert darkroom.submit([DATA] * 4, idempotency_key="my key").id == first.id
    assert first.wait(30).counts.total == 120
    with pytest.raises(DarkroomError):
        darkroom.submit([BAG], idempotency_key="my key")
    with pytest.raises(ValueError, match="no images"):
        darkroom.submit([])


def test_a_journal_goes_on_with_its_job_unless_the_images_have_changed(
    darkroom: Darkroom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darkroom.parts.PART_BYTES_MAX", 50_000)
    folder, journal = tmp_path / "photos", tmp_path / "journal"
    folder.mkdir()
    for number in range(200):
        (folder / f"{number:03}.png").write_bytes(BAG.read_bytes())
    (folder / "010.png").unlink()
    (folder / "010.png").symlink_to("nowhere")
    items = darkroom.classify_many(folder, journal=journal)
    next(items)
    items.close()
    first = next(darkroom.jobs())
    assert first.status == "open", "with a journal, leaving cancels nothing"

    found = list(darkroom.classify_many(folder, journal=journal))
    assert [item.name for item in found] == [f"{number:03}.png" for number in range(200)]
    assert [item.index for item in found if item.error] == [10]
    assert next(darkroom.jobs()).id == first.id
    assert darkroom.submit(folder, journal=str(journal)).id == first.id
    (folder / "010.png").unlink()
    (folder / "010.png").write_bytes(BAG.read_bytes())
    (folder / "050.png").write_bytes(b"another picture")
    items = darkroom.classify_many(folder, journal=journal)
    assert [item.index for item in items if item.error] == [50]
    assert next(darkroom.jobs()).id != first.id
    with pytest.raises(TypeError, match="iterated twice"):
        darkroom.submit(iter([folder]), journal=journal)


def fail_for_now(server: Stack) -> None:
    """In the place of a worker of MODEL_AT_REST: its one image takes too long."""
    settings = StoreSettings(redis_url=server.valkey.url, redis_maxmemory_bytes=MAXMEMORY_BYTES)
    with closing(LeaseStore(settings, lease_seconds=30, timeout_seconds=30)) as leases:
        lease = leases.claim(MODEL_AT_REST, owner_token(), items_max=64, bytes_max=1 << 20, turn=0)
        outcomes = pack_outcomes(f"{MODEL_AT_REST}@1", [Failure(ItemCode.TIMEOUT)])
        retained = pack_retained([(0, BAG.read_bytes())])
        leases.finish(lease.token, [FinishedChunk(lease.chunks[0].chunk_ref, 0, outcomes, retained)])


def test_what_failed_for_now_is_tried_again(server: Stack, darkroom: Darkroom, command: Command) -> None:
    """By the client, and by the command, whose `last` job is then the new one."""
    job = darkroom.submit([("a bag", BAG)], model=MODEL_AT_REST)
    fail_for_now(server)
    assert darkroom.job(job.id).counts.failed == 1
    again = job.retry()
    assert (again.retry_of, again.status, again.counts.total, again.counts.pending) == (job.id, "queued", 1, 1)
    fail_for_now(server)
    third = command("retry", again.id)
    assert third.returncode == 0, third.stderr
    shown = json.loads(command("job", "last", "--json").stdout)
    assert (shown["id"], shown["retry_of"]) == (third.stdout.splitlines()[0], again.id)
    fail_for_now(server)
    (row,) = csv.DictReader(command("results", "last", "--failed").stdout.splitlines())
    assert (row["name"], row["error_code"]) == ("a bag", "timeout")
    watched = command("watch", "last")
    assert (watched.returncode, "0 succeeded, 1 failed" in watched.stdout) == (1, True)


def test_errors_have_classes(darkroom: Darkroom, api: Api) -> None:
    with pytest.raises(UnknownModel) as unknown:
        darkroom.submit(BAG, model="resnet")
    assert (unknown.value.code, unknown.value.status) == ("unknown_model", 422)
    assert unknown.value.request_id
    with pytest.raises(JobNotFound):
        darkroom.job("019254a0-7b11-7cc0-8000-3f1d5a2b9c4e").wait(0)
    with pytest.raises(JobNotFound):
        darkroom.job("no id")
    with pytest.raises(InvalidRequest):
        darkroom.submit(BAG, top_k=0)
    with Darkroom(api.url, "a-wrong-key-0123456789") as stranger, pytest.raises(Unauthorized):
        stranger.submit(BAG)


def test_models_are_listed(darkroom: Darkroom) -> None:
    (model,) = [model for model in darkroom.models() if model.workers]
    assert (model.name, len(model.classes)) == ("fmnist-mlp", 10)


async def test_it_is_the_same_on_asyncio(api: Api) -> None:
    async with AsyncDarkroom(api.url, KEY) as darkroom:
        assert (await darkroom.classify(BAG)).class_name == "Bag"
        items = [item async for item in darkroom.classify_many([DATA] * 5)]
        assert [item.index for item in items] == list(range(150))
        job = await (await darkroom.submit(BAG)).wait(30)
        assert [item.class_name async for item in job.results(follow=True)] == ["Bag"]
        assert [now.ended async for now in job.progress()][-1]
