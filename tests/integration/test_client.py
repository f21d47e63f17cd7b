"""The client and its command, against a real server and worker."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from darkroom import Darkroom, DarkroomError

from tests.support.processes import ROOT, Api, free_port
from tests.support.stack import Stack

DATA = ROOT / "tests" / "data"
KEY = "alice-key-0123456789"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with Stack(tmp_path_factory.mktemp("stack"), API_KEYS=f'{{"alice": "{KEY}"}}') as stack:
        stack.worker()
        yield stack.api()


@pytest.fixture
def darkroom(api: Api) -> Iterator[Darkroom]:
    with Darkroom(api.url, KEY) as darkroom:
        yield darkroom


def test_files_are_classified_in_their_order(darkroom: Darkroom) -> None:
    items = darkroom.classify(DATA / "0018-bag.png", ROOT / "LICENSE", str(DATA / "0007-shirt.png"), top_k=3)

    assert [item.class_name for item in items] == ["Bag", None, "Shirt"]
    assert [item.name for item in items] == ["0018-bag.png", "LICENSE", "0007-shirt.png"]
    assert [item.error for item in items] == [None, "not_an_image", None]
    assert [len(item.top_k) for item in items] == [3, 0, 3]
    assert items[0].confidence == items[0].top_k[0][1]


def test_more_files_than_one_submit_takes_are_several_jobs(darkroom: Darkroom) -> None:
    files = sorted(DATA.glob("*.png")) * 5
    items = darkroom.classify(*files)
    assert [item.name for item in items] == [file.name for file in files]
    assert [item.class_name for item in items[:30]] == [item.class_name for item in items[120:]]


def test_a_job_is_submitted_waited_for_and_read(darkroom: Darkroom) -> None:
    job = darkroom.submit(DATA / "0018-bag.png")
    assert (job.total, job.ended) == (1, False)
    assert darkroom.wait(job.id).succeeded == 1
    assert darkroom.get(job.id).status == "completed"
    (item,) = darkroom.results(job.id)
    assert item.class_name == "Bag"


def test_a_wait_has_an_end(darkroom: Darkroom, api: Api) -> None:
    with pytest.raises(DarkroomError) as raised:
        darkroom.submit(DATA / "0018-bag.png", model="resnet")
    assert (raised.value.code, raised.value.status) == ("unknown_model", 422)
    with pytest.raises(DarkroomError) as raised:
        darkroom.wait("019254a0-7b11-7cc0-8000-3f1d5a2b9c4e", timeout_seconds=0)
    assert raised.value.code == "job_not_found"


def test_errors_have_codes(api: Api) -> None:
    with Darkroom(api.url, "a-wrong-key-0123456789") as stranger, pytest.raises(DarkroomError, match="unauthorized"):
        stranger.submit(DATA / "0018-bag.png")
    with Darkroom(f"http://127.0.0.1:{free_port()}") as unreachable, pytest.raises(DarkroomError, match="unreachable"):
        unreachable.get("x")


def command(api: Api, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("darkroom"), "--url", api.url, "--api-key", KEY, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_shows_a_table(api: Api) -> None:
    done = command(api, "classify", "tests/data/0018-bag.png", "LICENSE")
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["file", "class"],
        ["tests/data/0018-bag.png", "Bag"],
        ["LICENSE", "(not_an_image)"],
    ]
    assert done.returncode == 1, "one of the files has no class"


def test_the_command_prints_one_line_for_an_error(api: Api) -> None:
    done = command(api, "classify", "no-such-file.png")
    assert done.returncode == 1
    assert done.stderr.startswith("darkroom: ")
    assert len(done.stderr.splitlines()) == 1
