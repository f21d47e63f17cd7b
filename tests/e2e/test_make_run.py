"""The commands of README.md, and of docs/how-to/own-model.md, run in a clean clone in an empty folder."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.processes import ROOT, Process, children_of, free_port
from tests.support.waiting import wait_until

READY = "Darkroom is ready"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files that a commit of this tree would have, without an environment or data."""
    folder = tmp_path_factory.mktemp("clone")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    names = filter(None, listed.stdout.decode().split("\0"))
    for name in (it for it in names if (ROOT / it).exists()):  # a file of the index may be deleted
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


class MakeRun(Process):
    """`make run` as a user starts it: in a process group of its own, as a terminal would."""

    def __init__(self, clone: Path, log: Path, **variables: str) -> None:
        arguments = [f"{name}={value}" for name, value in variables.items()]
        super().__init__(["make", "run", *arguments], log, cwd=clone, own_group=True)

    def wait_until_ready(self, seconds: float) -> None:
        def ready() -> bool:
            assert self.running(), self.output()
            return READY in self.output()

        wait_until(ready, seconds=seconds, what=f"'{READY}' in {self.log}")


@contextmanager
def running(clone: Path, log: Path, *, seconds: float = 60, **variables: str) -> Iterator[MakeRun]:
    with MakeRun(clone, log, **variables) as make:
        make.wait_until_ready(seconds)
        yield make
    wait_until(lambda: not processes_in(clone), what="the end of all processes")


def processes_in(folder: Path) -> list[str]:
    """The command lines of processes that work in this folder."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and (process / "cwd").readlink().is_relative_to(folder):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def commands_of_the_pages() -> list[str]:
    """The curl lines of the README, in order, each block one command. tests/integration/docs/ runs those of docs/."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return [block for block in blocks if "curl" in block]


@pytest.fixture(scope="module")
def first_run(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MakeRun, int]]:
    """The first `make run` of the clone: it makes the environment, too."""
    port = free_port()
    with running(clone, tmp_path_factory.mktemp("log") / "run.log", seconds=900, PORT=str(port)) as make:
        yield make, port


def test_the_curl_lines_of_the_pages_work(first_run: tuple[MakeRun, int], clone: Path) -> None:
    _, port = first_run
    script = "set -euo pipefail\n" + "\necho\n".join(commands_of_the_pages()).replace(":8000", f":{port}")
    assert script.count("curl") >= 7
    done = subprocess.run(["bash", "-c", script], cwd=clone, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert answers[0]["status"] in ("queued", "running", "completed"), "workers may be faster than the answer"
    polled = next(answer for answer in answers[1:] if answer.get("status") == "completed")
    assert polled["result"]["class"] == "Shirt"
    assert {"Shirt", "Ankle boot"} <= {it["result"]["class"] for it in answers if it.get("result", {}).get("class")}
    many = next(answer for answer in answers if answer.get("counts", {}).get("total") == 2)
    assert many["counts"] == {"total": 2, "pending": 0, "succeeded": 1, "failed": 1, "canceled": 0}
    bag, licence = next(answer["items"] for answer in answers if "items" in answer)
    assert (bag["name"], bag["class"]) == ("0018-bag.png", "Bag")
    assert (licence["name"], licence["error"]["code"]) == ("LICENSE", "not_an_image")


def test_the_command_that_make_run_suggests_works(first_run: tuple[MakeRun, int], clone: Path) -> None:
    make, port = first_run
    (line,) = re.findall(r"^  (curl .*)$", make.output(), re.MULTILINE)
    assert f":{port}/" in line
    done = subprocess.run(["bash", "-c", f"{line} -s"], cwd=clone, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["counts"]["total"] == 1


def test_make_demo_shows_a_table(first_run: tuple[MakeRun, int], clone: Path) -> None:
    _, port = first_run
    done = subprocess.run(["make", "demo", f"PORT={port}"], cwd=clone, capture_output=True, text=True, check=True)
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["file", "class", "confidence"]
    assert len(rows) == 30
    assert re.fullmatch(r"tests/data/0007-shirt\.png +Shirt +0\.\d{4}", rows[7])


def lines_of_failed_run(clone: Path, **variables: str) -> list[str]:
    """The lines of a `make run` that refuses to start, without the lines of make itself."""
    done = subprocess.run(
        ["make", "run"], cwd=clone, env={**os.environ, **variables}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode != 0
    return [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("make")]


def test_a_worker_that_dies_is_started_again(first_run: tuple[MakeRun, int]) -> None:
    make, port = first_run
    worker = worker_of(make)
    assert worker is not None
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: worker_of(make) not in (None, worker), what="another worker")
    image = (ROOT / "tests" / "data" / "0018-bag.png").read_bytes()
    headers = {"Content-Type": "image/png", "Prefer": "wait=30"}
    answer = httpx.post(f"http://127.0.0.1:{port}/v1/jobs", content=image, headers=headers, timeout=40)
    assert answer.json()["result"]["class"] == "Bag"


def worker_of(make: MakeRun) -> int | None:
    """The pid of the classifying worker's main process."""
    found = [make.pid]
    for pid in found:
        found += children_of(pid)
        with suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_text().endswith("\0-m\0worker\0"):
                return pid
    return None


def test_a_taken_port_is_one_clear_line(clone: Path, first_run: tuple[MakeRun, int]) -> None:
    _, port = first_run
    (line,) = lines_of_failed_run(clone, PORT=str(port))
    assert f"port {port} on 127.0.0.1 cannot be used" in line
    assert f"make run PORT={port + 1}" in line


def test_a_folder_in_use_is_one_clear_line(clone: Path, first_run: tuple[MakeRun, int]) -> None:
    _, port = first_run
    (line,) = lines_of_failed_run(clone, PORT=str(free_port()), DATA_DIR=f"data/port-{port}")
    assert "is in use by another `make run`" in line


@pytest.mark.parametrize(
    ("variables", "error"),
    [
        ({"RENEW_SECONDS": "2"}, "darkroom: renew_seconds × 3 < lease_seconds"),
        ({"API_KEYS": "alice:a-secret-key"}, "darkroom: API_KEYS: must be valid JSON"),
        ({"HOST": "0.0.0.0"}, "darkroom: HOST is 0.0.0.0, so others can reach the API, but there is no API key: "),
        ({"HOST": "192.0.2.1", "OPEN_TO_EVERYBODY": "1"}, "darkroom: HOST 192.0.2.1 is not an address of this machine"),
        ({"MODEL": "nope"}, "darkroom: weights/nope/manifest.json: No such file or directory"),
    ],
)
def test_settings_that_cannot_start_are_one_clear_line_and_leave_nothing(
    clone: Path, first_run: tuple[MakeRun, int], variables: dict[str, str], error: str
) -> None:
    port = free_port()
    (line,) = lines_of_failed_run(clone, PORT=str(port), **variables)
    assert line.startswith(error)
    assert "a-secret-key" not in line
    assert not (clone / "data" / f"port-{port}").exists()


def test_weights_that_cannot_be_loaded_stop_all_services_with_one_last_line(
    clone: Path, first_run: tuple[MakeRun, int], tmp_path: Path
) -> None:
    package = tmp_path / "models" / "book"
    package.mkdir(parents=True)
    shutil.copy2(clone / "docs/examples/manifest.json", package)
    (package / "fmnist.weights.pth").write_bytes(b"no weights")
    data = tmp_path / "100%s of it#1"  # a folder's name that supervisord and URLs would each misread
    *_, line = lines_of_failed_run(
        clone, PORT=str(free_port()), MODEL="book", MODELS_DIR=str(package.parent), DATA_DIR=str(data)
    )
    assert line.startswith("darkroom worker: the model cannot be served: ")
    assert line.endswith("cannot be read as state_dict: not written by torch.save(), or damaged")
    assert not [line for line in processes_in(clone) if str(data) in line]


def test_two_copies_run_side_by_side(clone: Path, first_run: tuple[MakeRun, int], tmp_path: Path) -> None:
    """The second copy runs from the same folder on another port. A `make run` after the first starts in seconds."""
    _, port = first_run
    other = free_port()
    with MakeRun(clone, tmp_path / "run.log", PORT=str(other)) as second:
        second.wait_until_ready(30)
        for copy in (port, other):
            subprocess.run(
                ["curl", "-sf", "--data-binary", "@tests/data/0018-bag.png", f"http://127.0.0.1:{copy}/v1/jobs"],
                cwd=clone, capture_output=True, check=True,
            )  # fmt: skip
        listed = subprocess.run(
            ["curl", "-sf", f"http://127.0.0.1:{other}/v1/jobs"], capture_output=True, text=True, check=True
        )
        assert len(json.loads(listed.stdout)["jobs"]) == 1

        third = subprocess.run(
            ["make", "run", f"PORT={free_port()}", f"DATA_DIR={clone}/data/port-{other}"],
            cwd=clone, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert "is in use by another `make run`" in third.stderr
        os.killpg(second.pid, signal.SIGINT)
        second.wait(30)
    assert not [line for line in processes_in(clone) if str(other) in line]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_make_run_leaves_no_process_and_loses_no_job(
    clone: Path, first_run: tuple[MakeRun, int], tmp_path: Path, how: signal.Signals
) -> None:
    data, port = tmp_path / "data", free_port()
    url = f"http://127.0.0.1:{port}/v1/jobs"
    large = tmp_path / "large.png"
    large.write_bytes((ROOT / "tests/data/0018-bag.png").read_bytes() + bytes(100_000))

    def submit(picture: str) -> Any:
        command = ["curl", "-sf", "--data-binary", f"@{picture}", url]
        return json.loads(subprocess.run(command, cwd=clone, capture_output=True, check=True).stdout)

    with MakeRun(clone, tmp_path / "run.log", PORT=str(port), DATA_DIR=str(data)) as make:
        make.wait_until_ready(30)
        assert (data / "uploads" / "darkroom-uploads" / "store").exists(), "large uploads wait here"
        before = len(processes_in(clone))
        accepted = [submit(picture) for picture in ["tests/data/0018-bag.png", str(large)] * 10]
        os.killpg(make.pid, how)
        make.wait(40)
        wait_until(lambda: len(processes_in(clone)) < before - 5, what="the end of all processes")
    left = [line for line in processes_in(clone) if str(data) in line or str(port) in line]
    assert left == []

    with MakeRun(clone, tmp_path / "again.log", PORT=str(port), DATA_DIR=str(data)) as make:
        make.wait_until_ready(30)
        for job in accepted:
            polled = subprocess.run(["curl", "-sf", f"{url}/{job['id']}?wait=30"], capture_output=True, check=True)
            assert json.loads(polled.stdout)["result"]["class"] == "Bag"


MINE = """
from torch import nn
def network():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
"""


def test_a_readers_own_weights_and_network_are_served(
    clone: Path, first_run: tuple[MakeRun, int], tmp_path: Path
) -> None:
    """The README serves a network, the page of own models a state dict from a book. An absent model stops neither."""
    (clone / "mine.py").write_text(MINE)
    make_weights = "import mine, torch; torch.save(mine.network().state_dict(), 'mine.pt')"
    subprocess.run([clone / ".venv/bin/python", "-c", make_weights], cwd=clone, check=True)
    pages = (ROOT / "README.md").read_text(), (ROOT / "docs" / "how-to" / "own-model.md").read_text()
    found = [re.findall(r"```sh\n((?:(?!```).)*?)make run MODEL=(mine|book)\n```", page, re.DOTALL) for page in pages]
    assert [[model for _, model in blocks] for blocks in found] == [["mine"], ["mine", "book"]]
    blocks = [found[0][0], found[1][1]]
    for lines, _ in blocks:
        subprocess.run(["bash", "-ec", lines], cwd=clone, check=True)
    port = free_port()
    with MakeRun(clone, tmp_path / "run.log", PORT=str(port), MODELS="mine,book,absent") as make:
        make.wait_until_ready(60)
        results = dict[str, dict[str, object]]()
        for _, model in blocks:
            url, picture = f"http://127.0.0.1:{port}/v1/jobs?model={model}", "@tests/data/0018-bag.png"
            submit = ["curl", "-sf", "-H", "Prefer: wait=30", "--data-binary", picture, url]
            done = subprocess.run(submit, cwd=clone, capture_output=True, check=True)
            results[model] = json.loads(done.stdout)["result"]
    assert (results["mine"]["class"] in ("cat", "dog"), results["book"]["class"]) == (True, "Bag")
    assert all(re.fullmatch(f"{model}@[0-9a-f]{{8}}", str(result["model"])) for model, result in results.items())
