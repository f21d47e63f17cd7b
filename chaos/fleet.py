"""The stack that is broken: Valkey on a disk that can fill and a clock that can be stepped, APIs, workers.

What ends is started again, as a supervisor would, unless a fault holds it down.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

import redis

from jobs.store import keys
from tests.support.processes import Api, Process, Valkey, Worker, children_of

MAXMEMORY_BYTES = 512 << 20
DISK_BYTES = 1 << 30
APIS, WORKERS, CHILDREN = 2, 3, 2
LOOK_SECONDS = 0.2
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")


class Fleet:
    def __init__(self, folder: Path, logs: Path, **settings: str) -> None:
        settings = {"REDIS_MAXMEMORY_BYTES": str(MAXMEMORY_BYTES)} | settings
        self._disk = folder / "disk"
        self._disk.mkdir()
        self.mounted = _mount(self._disk)
        """Whether Valkey has a small disk of its own."""
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
        url = self.valkey.url
        self.apis = [Api(url, logs / f"api{n}.log", **settings) for n in range(APIS)]
        self.workers = [Worker(url, logs / f"worker{n}.log", children=CHILDREN, **settings) for n in range(WORKERS)]
        self.redis: Any = redis.Redis(unix_socket_path=str(self.valkey.socket), socket_timeout=2)
        self._held = set[Process]()
        self._closed = list[list[float]]()
        self.ended_by_themselves = list[str]()
        """What was started again though no fault had ended it by its own hand."""

    def __enter__(self) -> Self:
        try:
            self.valkey.start()
            for process in (*self.apis, *self.workers):
                process.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.redis.close()
        for process in (*self.apis, *self.workers, self.valkey):
            for pid in tree_of(process) if process.running() else ():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            process.stop()
        if self.mounted:
            subprocess.run(["umount", str(self._disk)], check=True)

    # -- what is known of it

    @property
    def urls(self) -> list[str]:
        return [api.url for api in self.apis]

    def was_closed(self, since: float, until: float) -> bool:
        """Whether Redis took no writes at some time between."""
        return any(begin <= until and since <= end for begin, end in self._closed)

    def stat(self, name: str) -> int:
        return int(self.redis.hget(keys.STATS, name) or 0)

    # -- what faults use

    @asynccontextmanager
    async def down(self, process: Process) -> AsyncIterator[None]:
        """Nobody starts the process again until the block ends; then it is started."""
        self._held.add(process)
        try:
            yield
        finally:
            if not process.running():
                await asyncio.to_thread(process.start)
            self._held.discard(process)

    @asynccontextmanager
    async def closed(self) -> AsyncIterator[None]:
        """Redis takes no writes from here to the end of the block, and to the end of that second."""
        span = [time.monotonic(), float("inf")]
        self._closed.append(span)
        try:
            yield
        finally:
            span[1] = time.monotonic() + 1

    def set_clock(self, offset_seconds: float) -> None:
        self._clock.write_text(f"{offset_seconds:+g}")

    @asynccontextmanager
    async def full_disk(self) -> AsyncIterator[None]:
        balloon = self._disk / "balloon"
        await asyncio.to_thread(_fill, balloon)
        try:
            yield
        finally:
            balloon.unlink()

    async def watch(self) -> None:
        """Start again what has ended."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for process in (self.valkey, *self.apis, *self.workers):
                if process in self._held or process.running():
                    continue
                self.ended_by_themselves.append(process.log.stem)
                with suppress(AssertionError):  # it ended again at once: the next look tries again
                    await asyncio.to_thread(process.start)


def tree_of(process: Process) -> list[int]:
    """The pids of a process and all below it."""
    found = [process.pid]
    for pid in found:
        found += children_of(pid)
    return found


def signal_tree(process: Process, number: signal.Signals) -> None:
    for pid in tree_of(process):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _fill(balloon: Path) -> None:
    with balloon.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


def _mount(folder: Path) -> bool:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0
