"""The stack under test: Valkey on a disk that can be filled and a clock that can be stepped, APIs, workers, an outbound
worker. The workers are those of the tests of poison: an image with a mark ends or hangs the process that decodes it.

A process that exits is restarted, as a supervisor would, unless a fault keeps it down.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

import redis

from chaos.clients.load import OWNERS
from chaos.lines import Line
from chaos.uploads import FolderUploads, S3Uploads, Uploads, full, mount, unmount
from jobs.model_packages import MANIFEST
from jobs.store import keys
from jobs.store.keys import Heartbeat
from tests.support.outbound import SECRET
from tests.support.processes import ROOT, Api, Process, Valkey, Worker, children_of

MAXMEMORY_BYTES = 512 << 20
DISK_BYTES = 1 << 30
APIS, WORKERS, CHILDREN = 2, 3, 2
SMALL_WORKERS, SMALL_CHILDREN = 2, 1
MODELS = ("fmnist-mlp", "twin")
"""The cheapest network, and the same with other confidences: workers start often, and both load fast."""
TWIN_TEMPERATURE = 2.0
POISON_WORKER = ROOT / "tests" / "support" / "poison_worker.py"
START_SECONDS_MAX = 30  # in which a process may exit and be started again
POLL_SECONDS = 0.2
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")


class Fleet:
    def __init__(self, folder: Path, logs: Path, *, s3: bool = False, small: bool = False, **settings: str) -> None:
        """`s3`: large uploads wait in S3, not in a folder. `small`: fewer processes, which start in half the time."""
        workers, self._children = (SMALL_WORKERS, SMALL_CHILDREN) if small else (WORKERS, CHILDREN)
        self.folder = folder
        self._disk = folder / "disk"
        self._disk.mkdir()
        self.mounted = mount(self._disk, DISK_BYTES)
        """Whether Valkey has a small disk of its own."""
        self.uploads: Uploads = S3Uploads(logs / "s3.log") if s3 else FolderUploads(folder / "uploads")
        self.models_dir = folder / "models"
        write_models(self.models_dir)
        settings = {
            "REDIS_MAXMEMORY_BYTES": str(MAXMEMORY_BYTES),
            **self.uploads.settings,
            "MODELS": ",".join(MODELS),
            "MODELS_DIR": str(self.models_dir),
            "API_KEYS": json.dumps(OWNERS),
            "WEBHOOK_SECRETS": json.dumps(dict.fromkeys(OWNERS, SECRET)),
            "FETCH_ALLOW_NETWORKS": '["127.0.0.0/8"]',
            "PYTHONPATH": str(ROOT),
            "POISON_LOG": str(logs / "poison"),
        } | settings
        self._clock = folder / "clock"
        self._clock.write_text("+0")
        self.valkey = Valkey(self._disk / "vk", maxmemory_bytes=MAXMEMORY_BYTES)
        self.valkey.log = logs / "valkey.log"
        self.steppable = FAKETIME.exists()
        if self.steppable:
            self.valkey.environment |= {
                "LD_PRELOAD": str(FAKETIME),
                "FAKETIME_TIMESTAMP_FILE": str(self._clock),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        logs_of_apis = [logs / f"api{n}.log" for n in range(APIS)]
        logs_of_workers = [logs / f"worker{n}.log" for n in range(workers)]
        lines = {log: Line(folder / f"{log.stem}.sock", self.valkey.socket) for log in logs_of_apis + logs_of_workers}
        self.apis = [Api(lines[log].url, log, **settings) for log in logs_of_apis]
        self.workers = [Worker(lines[log].url, log, children=self._children, **settings) for log in logs_of_workers]
        for worker in self.workers:
            worker.arguments = [sys.executable, str(POISON_WORKER)]
        self.lines = {process: lines[process.log] for process in (*self.apis, *self.workers)}
        """Their ways to Redis."""
        outbound = [sys.executable, "-m", "worker.outbound"]
        self.outbound = Process(outbound, logs / "outbound.log", {"REDIS_URL": self.valkey.url, **settings})
        self.redis: Any = redis.Redis(unix_socket_path=str(self.valkey.socket), socket_timeout=2)
        self._down = set[Process]()
        self._may_exit = set[Process]()
        self._refusals = list[list[float]]()
        self.unexpected_exits = list[str]()
        """Processes that were restarted although no fault had ended them directly."""

    def __enter__(self) -> Self:
        try:
            self.uploads.start()
            self.valkey.start()
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda process: process.start(), (*self.apis, *self.workers, self.outbound)))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.redis.close()
        for process in (*self.apis, *self.workers, self.outbound, self.valkey):
            if process.running():  # nothing is judged any more
                signal_tree(process, signal.SIGKILL)
            process.stop()
        self.uploads.stop()
        if self.mounted:
            unmount(self._disk)

    # -- state

    @property
    def urls(self) -> list[str]:
        return [api.url for api in self.apis]

    def refused_writes(self, since: float, until: float) -> bool:
        """Whether Redis refused writes at any time between the two."""
        return any(begin <= until and since <= end for begin, end in self._refusals)

    def stat(self, name: str) -> int:
        return int(self.redis.hget(keys.STATS, name) or 0)

    def pending(self) -> int:
        """Images of all owners that have not ended."""
        return sum(self.stat(f"pending:{owner}") for owner in OWNERS)

    def has_ready_uploads(self) -> bool:
        """Whether uploads wait for a worker; URLs that are to be fetched are none."""
        return bool(self.redis.keys(f"{keys.ROTATION}[^@]*"))

    def workers_missing(self) -> list[str]:
        """Workers that have a child which is not ready for every model."""
        ready = [
            {Heartbeat.unpack(it).pid for it in self.redis.zrange(keys.HEARTBEATS + model, 0, -1)} for model in MODELS
        ]
        pids = set.intersection(*ready)
        return [
            it.log.stem for it in self.workers if not it.running() or len(pids & set(it.children())) < self._children
        ]

    def append_only_file(self) -> Path:
        """The file to which Valkey appends."""
        (newest,) = sorted(self._disk.rglob("*.incr.aof"), key=lambda path: path.stat().st_mtime)[-1:]
        return newest

    # -- for faults

    @asynccontextmanager
    async def down(self, process: Process) -> AsyncIterator[None]:
        """The process is not restarted until the block ends; then it is."""
        self._down.add(process)
        try:
            yield
        finally:
            if not process.running():
                await self.start(process)
            self._down.discard(process)

    async def start(self, process: Process) -> None:
        """Start a process; again if it exits, as its supervisor would.

        A worker exits if it finds no Redis, and an API if its budgets do not fit into a Redis whose memory is limited
        by another fault at the moment.
        """
        until = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                return await asyncio.to_thread(process.start)
            except AssertionError:
                if process.running() or time.monotonic() > until:
                    raise

    @asynccontextmanager
    async def refusing_writes(self) -> AsyncIterator[None]:
        """Record that Redis refuses writes during the block and for one second after it."""
        span = [time.monotonic(), float("inf")]
        self._refusals.append(span)
        try:
            yield
        finally:
            span[1] = time.monotonic() + 1

    def set_clock(self, offset_seconds: float) -> None:
        self._clock.write_text(f"{offset_seconds:+g}")

    @asynccontextmanager
    async def full_disk(self) -> AsyncIterator[None]:
        with full(self._disk):
            yield

    @asynccontextmanager
    async def may_exit_in_block(self, *processes: Process) -> AsyncIterator[None]:
        """These processes may exit until the block ends, by a fault that does not end them itself."""
        self._may_exit.update(processes)
        try:
            yield
        finally:
            self._may_exit.difference_update(processes)

    async def watch(self) -> None:
        """Restart processes that have exited, until canceled. None waits for another: a worker needs Redis to start."""
        await asyncio.gather(*map(self._watch, (self.valkey, *self.apis, *self.workers, self.outbound)))

    async def _watch(self, process: Process) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if process in self._down or process.running():
                continue
            if process not in self._may_exit:
                self.unexpected_exits.append(process.log.stem)
            with suppress(AssertionError):  # it exited again at once: the next poll tries again
                await asyncio.to_thread(process.start)


def tree_of(process: Process) -> list[int]:
    """The pids of a process and all its descendants."""
    found = [process.pid]
    for pid in found:
        found += children_of(pid)
    return found


def signal_tree(process: Process, number: signal.Signals) -> None:
    for pid in tree_of(process):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def write_models(models_dir: Path) -> None:
    """The packages of MODELS."""
    name, twin = MODELS
    shutil.copytree(ROOT / "weights" / name, models_dir / name)
    shutil.copytree(ROOT / "weights" / name, models_dir / twin)
    manifest = json.loads((models_dir / twin / MANIFEST).read_text())
    manifest |= {"name": twin, "golden": [], "output": {"temperature": TWIN_TEMPERATURE}}
    (models_dir / twin / MANIFEST).write_text(json.dumps(manifest))
