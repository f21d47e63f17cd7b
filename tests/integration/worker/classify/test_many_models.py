"""A worker of several models: each has its own doorbell, and one that cannot be served does not stop the others."""

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from jobs.store import keys
from tests.support.packages import classified, package
from tests.support.pictures import samples
from tests.support.processes import MAXMEMORY_BYTES, ROOT, Api, Process, Worker, children_of
from tests.support.stack import Stack
from tests.support.waiting import wait_until

SHIRT = samples()["0007-shirt.png"]
WRONG = [{"file": "golden/bag.png", "class_name": "Coat", "confidence": 0.9}]


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    package(folder, "first")
    package(folder, "second", version="7")
    package(folder, "broken", golden=WRONG)
    package(folder, "unread", colour="red")
    return folder


@pytest.fixture
def api(stack: Stack, packages: Path) -> Iterator[Api]:
    return stack.api(DEFAULT_MODEL="first", MODELS_DIR=str(packages))


def processes_of(api: Api) -> dict[str, int]:
    models = httpx.get(f"{api.url}/v1/models").json()["models"]
    return {model["name"]: model["serving"]["processes"] for model in models}


def load_errors(api: Api) -> dict[str, tuple[str, int]]:
    found = httpx.get(f"{api.url}/v1/models").json()["faults"]
    return {error["model"]: (error["detail"], error["workers"]) for error in found}


def start(stack: Stack, packages: Path, models: str, children: int = 2) -> Worker:
    return stack.worker(children=children, MODELS=models, MODELS_DIR=str(packages), REAP_SECONDS="0.3")


def test_each_model_of_a_worker_answers_for_itself(stack: Stack, packages: Path, api: Api) -> None:
    start(stack, packages, "first, second")
    for model, ref in (("first", "first@1"), ("second", "second@7"), ("first", "first@1")):
        assert classified(api, SHIRT, model)["result"]["model"] == ref
    assert processes_of(api) == {"first": 2, "second": 2, "broken": 0}
    assert load_errors(api) == {}


def test_a_model_that_cannot_be_served_takes_no_work_and_shows_why(stack: Stack, packages: Path, api: Api) -> None:
    worker = start(stack, packages, "first,broken,unread")
    wait_until(lambda: load_errors(api).keys() == {"broken@1", "unread"}, what="the load errors of the two")
    assert "gives Bag at" in load_errors(api)["broken@1"][0]
    assert "colour: unknown field" in load_errors(api)["unread"][0]
    assert {count for _, count in load_errors(api).values()} == {1}
    assert processes_of(api) == {"first": 2, "second": 0, "broken": 0}
    log = worker.output()
    assert "broken@1 is not served: " in log
    assert "unread is not served: " in log

    waiting = classified(api, SHIRT, "broken", seconds=1)
    assert waiting["status"] == "queued"
    assert classified(api, SHIRT, "first")["status"] == "completed"
    wait_until(lambda: stack.redis.llen(f"{keys.QUEUE}broken") > 0, what="a doorbell that no worker takes")
    assert httpx.get(f"{api.url}/v1/models/broken").json()["faults"][0]["model"] == "broken@1"

    # Another worker can serve it.
    manifest = packages / "broken" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"golden": []}))
    start(stack, packages, "broken", children=1)
    ended = httpx.get(f"{api.url}/v1/jobs/{waiting['id']}?wait=20", timeout=40).json()
    assert ended["status"] == "completed"
    assert load_errors(api)["broken@1"][1] == 1, "of the worker that cannot serve it"
    worker.stop()
    assert load_errors(api) == {}


def test_a_worker_that_can_serve_no_model_ends_with_the_reason(stack: Stack, packages: Path) -> None:
    worker = Worker(stack.valkey.url, packages / "log", MODELS="broken", MODELS_DIR=str(packages))
    with pytest.raises(AssertionError, match=r"the model cannot be served: .*gives Bag at"):
        worker.start()
    worker.stop()


def test_malformed_names_of_models_are_refused(stack: Stack, tmp_path: Path) -> None:
    worker = Worker(stack.valkey.url, tmp_path / "log", MODELS="first,../etc")
    with pytest.raises(AssertionError, match="models: must be names of model packages"):
        worker.start()
    worker.stop()


COUNTED = """
if __name__ == "__main__":
    from worker.main import run
    run()
else:  # a child
    import worker.classify.process
    of = worker.classify.process.Device.of

    class Counted(worker.classify.process.Device):
        @classmethod
        def of(cls, *names, child):
            print("computes as child", child, flush=True)
            return of(*names, child=child)

    worker.classify.process.Device = Counted
"""


def test_each_child_has_its_number_among_the_devices(stack: Stack, tmp_path: Path) -> None:
    script = tmp_path / "counted.py"
    script.write_text(COUNTED)
    environment = {"REDIS_URL": stack.valkey.url, "MODEL": "fmnist-mlp", "WORKER_CHILDREN": "3"}
    environment |= {"REDIS_MAXMEMORY_BYTES": str(MAXMEMORY_BYTES), "PYTHONPATH": str(ROOT)}

    def numbers(worker: Process) -> list[str]:
        return sorted(re.findall(r"computes as child (\d)", worker.output()))

    with Process([sys.executable, str(script)], tmp_path / "counted.log", environment) as worker:
        wait_until(lambda: numbers(worker) == ["0", "1", "2"], seconds=120, what="three children")
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in children_of(worker.pid)}
        killed = next(pid for pid, command in commands.items() if "spawn_main" in command)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: len(numbers(worker)) == 4, seconds=120, what="another in its place")
        assert set(numbers(worker)) == {"0", "1", "2"}


HASHED = """
import hashlib
import os

file_digest = hashlib.file_digest

def report(file, algorithm):
    print("hashed", os.getpid(), file.name, flush=True)
    return file_digest(file, algorithm)

hashlib.file_digest = report

if __name__ == "__main__":
    from worker.main import run
    run()
"""


def test_each_process_hashes_the_weights_of_each_package_once(stack: Stack, packages: Path, tmp_path: Path) -> None:
    script = tmp_path / "hashed.py"
    script.write_text(HASHED)
    environment = {"REDIS_URL": stack.valkey.url, "MODELS": "first,second", "MODELS_DIR": str(packages)}
    environment |= {"REDIS_MAXMEMORY_BYTES": str(MAXMEMORY_BYTES), "WORKER_CHILDREN": "2", "PYTHONPATH": str(ROOT)}
    with Process([sys.executable, str(script)], tmp_path / "hashed.log", environment) as worker:
        wait_until(lambda: stack.redis.zcard(f"{keys.HEARTBEATS}second") == 2, seconds=120, what="two children")
        hashed = [tuple(line.split()[1:]) for line in worker.output().splitlines() if line.startswith("hashed")]
    assert len(hashed) == len(set(hashed)) == 3 * 2, "the main process and two children, two packages each"
