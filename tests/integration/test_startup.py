"""Services that stop at their start, with one line that gives the reason."""

import json
import re
import shutil
import signal
import socket
import sys
from pathlib import Path

import pytest
import torch

from jobs.setting_names.removed import REMOVED_SETTINGS
from jobs.settings import SHIPPED_MODEL
from jobs.store.keys import FETCH, LOAD_ERRORS, LoadError
from tests.support.processes import MAXMEMORY_BYTES, ROOT, Api, Process, Valkey, Worker
from tests.support.stack import Stack
from tests.support.waiting import wait_until

SHIPPED = ROOT / "weights" / "fmnist-mlp"


def failed_start(service: str, tmp_path: Path, valkey: Valkey, **environment: str) -> tuple[int, list[str]]:
    """The exit status and the lines of a service that is expected not to start."""
    memory = {"REDIS_MAXMEMORY_BYTES": str(MAXMEMORY_BYTES), "UPLOAD_BYTES_MAX": str(64 << 20)}
    values = {"REDIS_URL": valkey.url, "MODEL": "fmnist-mlp", **memory, **environment}
    with Process([sys.executable, "-m", service], tmp_path / "log", values) as process:
        status = process.wait(150)
        return status, [line for line in process.output().splitlines() if line.startswith("darkroom")]


@pytest.mark.parametrize("service", ["api", "worker"])
@pytest.mark.parametrize(
    ("config", "environment", "line"),
    [
        ({"maxmemory-policy": "allkeys-lru"}, {}, "must run with maxmemory-policy noeviction, not allkeys-lru"),
        ({"maxmemory": str(100 << 20)}, {}, "the budgets would not fit"),
        ({}, {"REDIS_URL": "http://nowhere"}, "REDIS_URL: "),
        ({}, {"REDIS_MAXMEMORY_BYTES": "many"}, "REDIS_MAXMEMORY_BYTES: "),
        ({}, {"UPLOADS_URL": "file:///no/such/folder"}, "UPLOADS_URL: there is no folder /no/such/folder"),
        ({}, {"UPLOADS_URL": "file:///proc"}, "UPLOADS_URL: cannot write into /proc"),
    ],
)
def test_an_unsuitable_server_or_setting_stops_the_service(
    valkey: Valkey, tmp_path: Path, service: str, config: dict[str, str], environment: dict[str, str], line: str
) -> None:
    with valkey.client as client:
        before = {name: client.config_get(name)[name] for name in config}
        for name, value in config.items():
            client.config_set(name, value)
        try:
            status, lines = failed_start(service, tmp_path, valkey, **environment)
        finally:
            for name, value in before.items():
                client.config_set(name, value)
    assert status == 1
    assert len(lines) == 1
    assert lines[0].startswith(f"darkroom {service}: ")
    assert line in lines[0]


def test_a_removed_setting_that_is_still_set_is_named_once_and_the_service_starts(
    valkey: Valkey, tmp_path: Path
) -> None:
    """Only the main process names it, and not the processes that it starts."""
    removed = {"OPEN_JOB_AT_DEADLINE": "seal", "API_PROCESSES": "2", "OUTBOUND_CHILDREN": "1"}
    memory = {"REDIS_URL": valkey.url, "REDIS_MAXMEMORY_BYTES": str(MAXMEMORY_BYTES)}
    outbound = Process([sys.executable, "-m", "worker.outbound"], tmp_path / "outbound", memory | removed)
    api = Api(valkey.url, tmp_path / "api", **removed)
    worker = Worker(valkey.url, tmp_path / "worker", children=1, **removed)
    expected = f"OPEN_JOB_AT_DEADLINE is no longer a setting and is ignored: {REMOVED_SETTINGS['OPEN_JOB_AT_DEADLINE']}"
    with outbound, api, worker, valkey.client as client:
        wait_until(lambda: client.zcard(f"serving:{FETCH}") == 1, seconds=60, what="a ready outbound process")
        for service in (outbound, api, worker):
            named = [line for line in service.output().splitlines() if "OPEN_JOB_AT_DEADLINE" in line]
            assert named == [f"WARNING jobs.setting_names.removed: {expected}"]
            assert service.running()


@pytest.mark.parametrize("service", ["api", "worker"])
def test_a_wrong_password_stops_the_service(valkey: Valkey, tmp_path: Path, service: str) -> None:
    with valkey.client as client:
        client.config_set("requirepass", "right")
        try:
            status, lines = failed_start(service, tmp_path, valkey, REDIS_URL=f"{valkey.url}&password=wrong")
        finally:
            client.execute_command("AUTH", "right")
            client.config_set("requirepass", "")
    assert status == 1
    assert "REDIS_URL: " in lines[0]
    assert "wrong" not in lines[0].replace("wrong pass", ""), "the password is not shown"


def package(folder: Path, **changes: object) -> Path:
    """The shipped package, with other fields in its manifest."""
    shutil.copytree(SHIPPED, folder)
    manifest = json.loads((SHIPPED / "manifest.json").read_text()) | changes
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def load_errors(valkey: Valkey) -> dict[str, str]:
    """The load errors in Redis: each model with the reason why it is not served."""
    with valkey.client as client:
        load_errors = map(LoadError.unpack, client.zrange(LOAD_ERRORS, 0, -1))
        return {it.model: it.reason for it in load_errors}


def test_a_package_with_a_wrong_manifest_stops_the_worker(valkey: Valkey, tmp_path: Path) -> None:
    package(tmp_path / "weights" / "mine", name="mine", colour="red")
    status, lines = failed_start("worker", tmp_path, valkey, MODELS_DIR=str(tmp_path / "weights"), MODEL="mine")
    assert status == 1
    assert "colour: unknown field" in lines[0]
    assert "colour: unknown field" in load_errors(valkey)["mine"]


def test_a_package_that_fails_its_golden_images_stops_the_worker(valkey: Valkey, tmp_path: Path) -> None:
    golden = [{"file": "golden/bag.png", "class_name": "Coat", "confidence": 0.9}]
    package(tmp_path / "weights" / "mine", name="mine", golden=golden)
    status, lines = failed_start("worker", tmp_path, valkey, MODELS_DIR=str(tmp_path / "weights"), MODEL="mine")
    assert status == 1
    assert lines[-1].startswith("darkroom worker: the model cannot be served: ")
    assert "gives Bag" in lines[-1]
    assert "gives Bag" in load_errors(valkey)["mine@1"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_stops_the_worker(valkey: Valkey, tmp_path: Path) -> None:
    status, lines = failed_start("worker", tmp_path, valkey, DEVICE="cuda:1")
    assert status == 1
    assert "Traceback" not in "".join(lines)
    expected = r"darkroom worker: the model cannot be served: DEVICE is cuda:1, but torch \S+ finds no GPUs here"
    assert re.fullmatch(expected, lines[-1])
    assert "DEVICE is cuda:1" in load_errors(valkey)["fmnist-mlp@1"]


def test_a_version_that_is_known_with_other_weights_stops_the_worker(stack: Stack, tmp_path: Path) -> None:
    stack.worker(children=1).stop()
    folder = package(tmp_path / "weights" / "fmnist-mlp", golden=[])
    weights = bytearray((folder / "fmnist-mlp.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "fmnist-mlp.safetensors").write_bytes(weights)
    changed = {"file": "fmnist-mlp.safetensors", "format": "safetensors"}
    manifest = json.loads((folder / "manifest.json").read_text()) | {"weights": changed}
    (folder / "manifest.json").write_text(json.dumps(manifest))

    status, lines = failed_start("worker", tmp_path, stack.valkey, MODELS_DIR=str(tmp_path / "weights"))
    assert status == 1
    assert "fmnist-mlp@1 is known with other weights" in lines[-1]
    assert "is known with other weights" in load_errors(stack.valkey)["fmnist-mlp@1"]


def test_a_worker_that_is_started_first_waits_for_redis(tmp_path: Path, shirt: bytes) -> None:
    server = Valkey(tmp_path / "vk")
    memory = {"REDIS_MAXMEMORY_BYTES": str(MAXMEMORY_BYTES), "WORKER_CHILDREN": "1"}
    environment = {"REDIS_URL": server.url, **memory}
    with Process([sys.executable, "-m", "worker"], tmp_path / "worker.log", environment) as worker:
        wait_until(lambda: "cannot reach Redis yet" in worker.output(), what="a worker that waits")
        with server, server.client as client:
            wait_until(lambda: client.zcard(f"serving:{SHIPPED_MODEL}") == 1, seconds=120, what="a ready child")
            assert worker.running()
            worker.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_has_never_reached_redis_logs_it_once_and_stops_at_a_signal(
    tmp_path: Path, number: signal.Signals
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        url = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        with Process([sys.executable, "-m", "worker"], tmp_path / "worker.log", {"REDIS_URL": url}) as worker:
            wait_until(
                lambda: accept_and_close(server) and "waiting for Redis" in worker.output(), what="a worker that waits"
            )
            for _ in range(3):  # attempts that must not be logged
                accept_and_close(server)
            worker.signal(number)
            assert worker.wait() == 0
            assert len(worker.output().splitlines()) == 2


def accept_and_close(server: socket.socket) -> bool:
    """Accept a connection and close it."""
    server.accept()[0].close()
    return True


def test_a_worker_gives_the_password_of_a_unix_socket_and_does_not_show_it(valkey: Valkey, tmp_path: Path) -> None:
    with valkey.client as client:
        client.config_set("requirepass", "a/b@c")
        try:
            url = f"unix://default:a%2Fb%40c@{valkey.socket}?db=0"
            with Worker(url, tmp_path / "worker.log", children=1) as worker:
                client.lpush("darkroom.fmnist-mlp", client.get("bell:fmnist-mlp") or b"")
                wait_until(lambda: client.llen("darkroom.fmnist-mlp") == 0, what="a doorbell that is taken")
                assert "a/b@c" not in worker.output()
                assert "a%2Fb" not in worker.output()
        finally:
            client.execute_command("AUTH", "a/b@c")
            client.config_set("requirepass", "")
