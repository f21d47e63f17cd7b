"""A server that takes less than one has."""

import csv
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from darkroom import Darkroom
from darkroom.errors import QuotaExceeded, UploadTooLarge

from tests.integration.client.conftest import DATA, KEY, command_environment, command_line
from tests.support.stack import Stack
from tests.support.waiting import wait_until

BAG = DATA / "0018-bag.png"
IMAGES = 1000
SMALL = {  # an upload budget of 8 MB
    "API_KEYS": f'{{"alice": "{KEY}"}}',
    "ITEM_BYTES_MAX": "100000",
    "ROOM_WAIT_SECONDS_MAX": "0.2",
}


def test_a_queue_that_is_full_is_outlived(tmp_path: Path) -> None:
    """1,000 files of 20 KB, and a worker that stops for as long as it takes to fill the queue."""
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(1).integers(0, 256, (80, 80, 3), "uint8")
    PIL.Image.fromarray(noise).save(folder / "0000.png")
    for number in range(1, IMAGES):
        os.link(folder / "0000.png", folder / f"{number:04}.png")
    said = tmp_path / "said"
    with Stack(tmp_path / "s", maxmemory_bytes=16 << 20, **SMALL) as stack:
        worker, api = stack.worker(), stack.api()
        with Darkroom(
            api.url, KEY
        ) as darkroom:  # the server learns how fast the queue drains: its Retry-After is short
            list(darkroom.classify_many([folder / "0000.png"] * 300))
            wait_until(lambda: darkroom.server().images_per_second, what="a rate")
        before, processes = stack.stat("transitions"), [worker.pid, *worker.children()]
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        with (
            said.open("w") as errors,
            (tmp_path / "rows.csv").open("w") as rows,
            subprocess.Popen(
                command_line("classify", folder), env=command_environment(tmp_path, api.url), stdout=rows, stderr=errors
            ) as running,
        ):
            try:
                wait_until(lambda: "queue_full" in said.read_text() or running.poll() is not None, what="a full queue")
            finally:
                for pid in processes:
                    os.kill(pid, signal.SIGCONT)
            running.wait(timeout=120)
        assert running.returncode == 0, said.read_text()
        assert stack.stat("transitions") == before + IMAGES, "no image is classified twice"
    assert "queue_full" in said.read_text()
    with (tmp_path / "rows.csv").open() as file:
        found = [(row["name"], row["status"]) for row in csv.DictReader(file)]
    assert found == [(f"{number:04}.png", "succeeded") for number in range(IMAGES)]


def test_a_queue_that_is_full_of_the_jobs_own_images_is_filled_as_it_drains(server: Stack) -> None:
    api = server.api(OWNER_PENDING_ITEMS_MAX="200")
    with Darkroom(api.url, KEY) as darkroom:
        items = [item.class_name for item in darkroom.classify_many([DATA] * 40)]
    assert len(items) == 1200
    assert None not in items


def test_a_quota_that_nothing_frees_is_an_error_after_the_tries(server: Stack) -> None:
    api = server.api(OWNER_PENDING_ITEMS_MAX="1")
    with Darkroom(api.url, KEY, retry_seconds=1) as darkroom, pytest.raises(QuotaExceeded):
        list(darkroom.classify_many([BAG, BAG]))


def test_one_image_more_than_a_job_takes_is_refused_and_leaves_nothing(server: Stack) -> None:
    api = server.api(JOB_ITEMS_MAX="100")
    with Darkroom(api.url, KEY) as darkroom:
        with pytest.raises(UploadTooLarge):
            darkroom.submit([BAG] * 101)
        assert next(darkroom.jobs()).status == "canceled"
        assert darkroom.submit([BAG] * 100).counts.total == 100
