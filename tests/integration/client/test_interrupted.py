"""A large folder survives whatever the server survives: each image has one row, in order."""

import csv
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from darkroom import Darkroom
from darkroom.journal import Journal

from tests.integration.client.conftest import DATA, KEY, command_environment, command_line
from tests.support.processes import Api
from tests.support.stack import Stack
from tests.support.waiting import wait_until

IMAGES = 10_000
KILLS = 3
# A part that a killed API was reading is free again after a few seconds, and not after two minutes.
SETTINGS = {
    "API_KEYS": f'{{"alice": "{KEY}"}}',
    "UPLOAD_IDLE_SECONDS_MAX": "1",
    "ROOM_WAIT_SECONDS_MAX": "1",
    "SUBMIT_DEADLINE_SECONDS": "0.5",
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack"), **SETTINGS) as stack:
        stack.worker()
        yield stack


@pytest.fixture
def api(stack: Stack) -> Iterator[Api]:
    api = stack.api()
    yield api
    api.stop()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    samples = sorted(DATA.glob("*.png"))
    for number in range(IMAGES):
        os.link(_copied(folder.parent, samples[number % len(samples)]), folder / f"{number:05}.png")
    return folder


def _copied(folder: Path, sample: Path) -> Path:
    """A copy in the same file system, for links."""
    copy = folder / f"copy-of-{sample.name}"
    if not copy.exists():
        copy.write_bytes(sample.read_bytes())
    return copy


def assert_whole(out: Path) -> None:
    with out.open() as file:
        found = [(int(row["index"]), row["name"], row["status"]) for row in csv.DictReader(file)]
    assert found == [(number, f"{number:05}.png", "succeeded") for number in range(IMAGES)]


def knocks_in_vain(port: int, *, times: int) -> None:
    """Nobody answers on the port, until the client has connected so often."""
    with socket.create_server(("127.0.0.1", port)) as listening:
        listening.settimeout(60)
        for _ in range(times):
            listening.accept()[0].close()


def test_a_first_part_that_was_taken_before_a_crash_goes_on(
    api: Api, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal has the job, and not yet the part that the server has."""

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with Darkroom(api.url, KEY) as darkroom:
        before = {job.id for job in darkroom.jobs()}
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "add_part", crash)
            with pytest.raises(KeyboardInterrupt):
                darkroom.submit(photos, journal=tmp_path / "journal")
        job = darkroom.submit(photos, journal=tmp_path / "journal")
        assert job.counts.total == IMAGES
        assert {it.id for it in darkroom.jobs()} - before == {job.id}
        job.cancel()
        job.delete()


def test_a_command_that_is_killed_three_times_goes_on(stack: Stack, api: Api, photos: Path, tmp_path: Path) -> None:
    out, before = tmp_path / "classes.csv", stack.stat("transitions")
    line, environment = command_line("classify", photos, "-o", out), command_environment(tmp_path, api.url)
    for kill in range(1, KILLS + 1):
        accepted = stack.stat("transitions")
        with subprocess.Popen(line, env=environment, stderr=subprocess.DEVNULL) as running:
            wait_until(lambda: stack.stat("transitions") > accepted or running.poll() is not None, what="images")  # noqa: B023
            assert running.poll() is None, f"it came to its end before kill {kill}"
            running.send_signal(signal.SIGKILL)
    assert not out.exists()
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert_whole(out)
    assert stack.stat("transitions") == before + IMAGES, "no image is classified twice"


def test_an_api_that_is_killed_three_times_is_outlived(stack: Stack, api: Api, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "classes.csv"
    before = stack.stat("transitions")
    line, environment = command_line("classify", photos, "-o", out), command_environment(tmp_path, api.url)
    with subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True) as running:
        said = list[str]()
        assert running.stderr is not None
        reader = Thread(target=said.extend, args=(running.stderr,))
        reader.start()
        for kill in range(1, KILLS + 1):
            seen = stack.stat("transitions")
            wait_until(lambda: stack.stat("transitions") > seen or running.poll() is not None, what="images")  # noqa: B023
            assert running.poll() is None, f"it came to its end before kill {kill}"
            api.kill()
            if kill == KILLS:
                knocks_in_vain(api.port, times=6)  # with the client's pauses, some seconds
            api.start()
        running.wait(timeout=120)
        reader.join()
    assert running.returncode == 0, said
    assert_whole(out)
    assert stack.stat("transitions") == before + IMAGES, "no image is classified twice"
    assert any("trying again" in text for text in said)
