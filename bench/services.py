"""The compared services, each as separate processes, and the requests that a client sends to them."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.baselines import PROCESSES
from bench.client import Dialect, request
from bench.servers import Servers, tree
from tests.support.processes import ROOT, Process, Valkey, Worker, answers, free_port
from tests.support.stack import Stack
from tests.support.waiting import wait_until

_KEY = "bench-key-0123456789"
SECURED = {"API_KEYS": f'{{"bench": "{_KEY}"}}'}
AUTHORIZATION = {"Authorization": f"Bearer {_KEY}"}
_BOUNDARY = "bench-5f1d0c"
GIB = 1 << 30
BOOK = {"WEIGHTS": str(ROOT / "weights/fmnist-mlp/fmnist-mlp.safetensors")}
"""The environment of a baseline that classifies as the book does; `MODEL_PACKAGE` instead names a package."""
OTHERS_PYTHON = ROOT / ".venv-bench/bin/python"
"""The interpreter that has LitServe and BentoML (requirements/bench.txt), if it is there."""


def _form(path: str) -> Callable[[bytes, str], bytes]:
    """A browser's form with the image in the field `file`."""

    def submit(image: bytes, media_type: str) -> bytes:
        head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="image"\r\n'
        body = f"{head}Content-Type: {media_type}\r\n\r\n".encode() + image + f"\r\n--{_BOUNDARY}--\r\n".encode()
        return request("POST", path, body, Content_Type=f"multipart/form-data; boundary={_BOUNDARY}")

    return submit


def _submit(**headers: str) -> Callable[[bytes, str], bytes]:
    def submit(image: bytes, media_type: str) -> bytes:
        return request("POST", "/v1/jobs", image, Content_Type=media_type, **AUTHORIZATION, **headers)

    return submit


def _look(query: str = "") -> Callable[[bytes, bytes], bytes | None]:
    """Poll the job until it has ended."""

    def after(_: bytes, body: bytes) -> bytes | None:
        if b'"status":"completed"' in body or b'"status":"failed"' in body:
            return None
        at = body.index(b'"id":"') + 6
        return request("GET", f"/v1/jobs/{body[at : at + 36].decode()}{query}", b"", **AUTHORIZATION)

    return after


def _tutorial_look(_: bytes, body: bytes) -> bytes | None:
    if b'"SUCCESS"' in body:
        return None
    at = body.index(b'"task_id":"') + 11
    return request("GET", f"/result/{body[at : at + 36].decode()}", b"")


POLL = Dialect(_submit(), _look())
WAIT = Dialect(_submit(Prefer="wait=30"), _look("?wait=30"), pauses=False)
LONG_POLL = Dialect(_submit(), _look("?wait=30"), pauses=False)
TUTORIAL = Dialect(_form("/predict"), _tutorial_look)
SYNCHRONOUS = Dialect(_form("/predict"), lambda _, __: None)


class Service:
    def __init__(self, port: int, **processes: Process) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.servers = Servers(processes)


class Darkroom(Service):
    def __init__(self, stack: Stack, worker: Worker) -> None:
        began = time.perf_counter()
        api = stack.api()
        api_ready = time.perf_counter()
        worker.start()
        self.ready_seconds = {"api": api_ready - began, "worker": time.perf_counter() - api_ready}
        """Seconds from the start of a process until it is ready."""
        self.stack = stack
        super().__init__(api.port, valkey=stack.valkey, api=api, worker=worker)


@contextmanager
def darkroom(
    settings: Mapping[str, str], *, children: int = 2, maxmemory_bytes: int = GIB, worker_command: Sequence[str] = ()
) -> Iterator[Darkroom]:
    """Valkey (append-only file, fsync always, 1 GiB), one API process and a worker. Prints their warnings."""
    with TemporaryDirectory() as folder, Stack(Path(folder), maxmemory_bytes=maxmemory_bytes, **settings) as stack:
        of_worker = {"REDIS_MAXMEMORY_BYTES": str(maxmemory_bytes), **settings}
        worker = Worker(stack.valkey.url, Path(folder) / "worker.log", children=children, **of_worker)
        worker.arguments = list(worker_command) or worker.arguments
        try:
            yield Darkroom(stack, worker)
        finally:
            worker.stop()
        for log in sorted(Path(folder).glob("*.log")):
            for line in log.read_text().splitlines():
                if line.startswith(("WARNING", "ERROR")):
                    print(line)


@contextmanager
def tutorial(environment: Mapping[str, str] = BOOK) -> Iterator[Service]:
    """Redis without persistence, which is the fastest, one API process, and a Celery worker of two processes."""
    with TemporaryDirectory() as folder, Valkey(Path(folder) / "vk", maxmemory_bytes=GIB) as valkey:
        with valkey.client as redis:
            redis.config_set("appendonly", "no")
        environment = {**environment, "REDIS_URL": f"redis+socket://{valkey.socket}"}
        celery = ["celery", "--app", "bench.baselines.tutorial", "worker", "--concurrency=2", "--loglevel=WARNING"]
        port = free_port()
        worker = Process([sys.executable, "-m", *celery], Path(folder) / "worker.log", environment)
        with worker, _uvicorn("bench.baselines.tutorial:api", port, Path(folder), environment, processes=1) as api:
            yield Service(port, valkey=valkey, api=api, worker=worker)


@contextmanager
def synchronous(environment: Mapping[str, str] = BOOK) -> Iterator[Service]:
    """Two processes, one per core."""
    with TemporaryDirectory() as folder:
        port = free_port()
        app = "bench.baselines.synchronous:app"
        with _uvicorn(app, port, Path(folder), environment, processes=PROCESSES) as api:
            yield Service(port, api=api)


@contextmanager
def litserve(environment: Mapping[str, str]) -> Iterator[Service]:
    """One API server, and two processes that classify in batches."""
    with TemporaryDirectory() as folder:
        port = free_port()
        command = ["bench.baselines.litserve_api", str(port)]
        with _serving(command, port, "/health", Path(folder), environment, OTHERS_PYTHON) as api:
            yield Service(port, api=api)


@contextmanager
def bentoml(environment: Mapping[str, str]) -> Iterator[Service]:
    """One process that takes uploads, and two that classify in batches."""
    with TemporaryDirectory() as folder:
        port = free_port()
        command = ["bentoml", "serve", "bench.baselines.bentoml_service:Upload", "--port", str(port)]
        quiet = {
            "BENTOML_HOME": f"{folder}/home",
            "BENTOML_DO_NOT_TRACK": "true",
            "BENTOML_CONFIG_OPTIONS": "api_server.logging.access.enabled=false",
        }
        with _serving(command, port, "/readyz", Path(folder), {**environment, **quiet}, OTHERS_PYTHON) as api:
            yield Service(port, api=api)


def _uvicorn(
    app: str, port: int, folder: Path, environment: Mapping[str, str], *, processes: int
) -> AbstractContextManager[Process]:
    options = ["--port", str(port), "--workers", str(processes), "--no-access-log", "--log-level", "warning"]
    return _serving(["uvicorn", app, *options], port, "/openapi.json", folder, environment, Path(sys.executable))


@contextmanager
def _serving(
    command: Sequence[str], port: int, path: str, folder: Path, environment: Mapping[str, str], python: Path
) -> Iterator[Process]:
    """`python -m` with this command, once the path answers. No process of it outlives the block."""
    with Process([str(python), "-m", *command], folder / "api.log", dict(environment)) as api:

        def is_up() -> bool:
            assert api.running(), api.output()
            up: bool = answers(port, path)
            return up

        wait_until(is_up, seconds=60, what=command[0])
        started = tree(api.pid)
        try:
            yield api
        finally:
            api.stop()
            for pid in started:  # LitServe's do not end with the first one
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
