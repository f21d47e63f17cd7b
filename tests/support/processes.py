"""Real processes for tests: started with settings of their own, waited for, and ended by their pid."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Self

import redis

from deploy.local.valkey import VALKEY_ENVIRONMENT, valkey_command
from jobs.model_manifest import name_of
from jobs.store.keys import HEARTBEATS, Heartbeat
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
MAXMEMORY_BYTES = 256 << 20
MODEL = "fmnist-mlp"  # the cheapest network: tests and benchmarks with it measure the queue


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int, path: str) -> bool:
    """Whether a server on this machine answers with 200. It is asked again and again, so it is asked at little cost."""
    connection = HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def children_of(pid: int) -> list[int]:
    """The pids of a process's children."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    with suppress(OSError):
        return [int(child) for task in tasks for child in task.read_text().split()]
    return []


class Process:
    """A program under test, which writes its output to a file."""

    def __init__(
        self,
        arguments: list[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        *,
        cwd: Path = ROOT,
        own_group: bool = False,
    ) -> None:
        self.log = log
        self._cwd = cwd
        self._own_group = own_group
        self.arguments = arguments
        self.environment = {**os.environ, **(environment or {})}
        self._popen: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        assert self._popen is not None
        return self._popen.pid

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                self.arguments,
                cwd=self._cwd,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=self._own_group,
            )

    def kill(self) -> None:
        """Send SIGKILL, and wait for the end."""
        assert self._popen is not None
        self._popen.kill()
        self._popen.wait(timeout=30)

    def signal(self, number: signal.Signals) -> None:
        assert self._popen is not None
        self._popen.send_signal(number)

    def wait(self, seconds: float = 60) -> int:
        """Wait for the end. Returns the exit status."""
        assert self._popen is not None
        return self._popen.wait(timeout=seconds)

    def stop(self) -> None:
        """End it as a supervisor would: with SIGTERM, and after 20 s with SIGKILL."""
        if self._popen is None or self._popen.poll() is not None:
            return
        self._popen.terminate()
        try:
            self._popen.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.kill()

    def running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Valkey(Process):
    """A real server with an append-only file."""

    def __init__(self, folder: Path, *, maxmemory_bytes: int = MAXMEMORY_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.socket = folder / "valkey.sock"
        command = valkey_command(folder, maxmemory_bytes=maxmemory_bytes, unix_socket=self.socket)
        super().__init__(command, folder / "valkey.log", VALKEY_ENVIRONMENT)

    @property
    def url(self) -> str:
        return f"unix://{self.socket}?db=0"

    @property
    def client(self) -> "redis.Redis[bytes]":
        return redis.Redis(unix_socket_path=str(self.socket))

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        super().start()
        wait_until(self._answers, what="Valkey")

    def _answers(self) -> bool:
        try:
            with self.client as client:
                return bool(client.ping())
        except redis.exceptions.RedisError:
            assert self.running(), self.output()
            return False


class Api(Process):
    def __init__(self, redis_url: str, log: Path, **settings: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        environment = {"REDIS_URL": redis_url, "PORT": str(self.port), **_common(settings), **settings}
        super().__init__([sys.executable, "-m", "api"], log, environment)

    def start(self) -> None:
        super().start()
        wait_until(self._answers, what="the API")

    def _answers(self) -> bool:
        if answers(self.port, "/livez"):
            return True
        assert self.running(), self.output()
        return False


class Worker(Process):
    def __init__(self, redis_url: str, log: Path, *, children: int = 2, **settings: str) -> None:
        self._redis_url = redis_url
        self._children = children
        self._model = settings.get("MODELS", settings.get("MODEL", "fmnist-mlp")).partition(",")[0]
        environment = {"REDIS_URL": redis_url, "WORKER_CHILDREN": str(children), **_common(settings), **settings}
        super().__init__([sys.executable, "-m", "worker"], log, environment)

    def start(self) -> None:
        super().start()
        wait_until(self._is_up, seconds=120, what="the worker")

    def children(self) -> list[int]:
        """The pids of its classifying processes."""
        return [pid for pid in children_of(self.pid) if _runs(pid, "spawn_main")]

    def _is_up(self) -> bool:
        """Whether all its children send heartbeats."""
        assert self.running(), self.output()
        members = list[bytes]()
        not_now = suppress(redis.ConnectionError, redis.TimeoutError)  # it may be loading, or frozen
        with redis.Redis.from_url(self._redis_url) as client, not_now:
            members = client.zrange(HEARTBEATS + name_of(self._model), 0, -1)
        ready = {Heartbeat.unpack(member).pid for member in members}
        return len(ready & set(self.children())) == self._children


def _runs(pid: int, what: str) -> bool:
    with suppress(OSError):
        return what in Path(f"/proc/{pid}/cmdline").read_text()
    return False


def _common(settings: Mapping[str, str]) -> dict[str, str]:
    """With the cheapest network if the settings name no other."""
    model = {} if "MODELS" in settings else {"MODEL": MODEL}
    return {"REDIS_MAXMEMORY_BYTES": str(MAXMEMORY_BYTES)} | model
