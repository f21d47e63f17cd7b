"""The stack under test: Valkey on a disk that can be filled and a clock that can be stepped, APIs, workers.

A process that exits is restarted, as a supervisor would, unless a fault keeps it down.
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
POLL_SECONDS = 0.2
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")


class Fleet:
    def __init__(self, folder: Path, logs: Path, **settings: str) -> None:
        settings = {"REDIS_MAXMEMORY_BYTES": str(MAXMEMORY_BYTES)} | settings
        self._disk = folder / "disk"
        self._disk.mkdir()
        self.mounted = _mount(self._disk)
        """Whether Valkey has its own small disk."""
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
        self._down = set[Process]()
        self._refusals = list[list[float]]()
        self.unexpected_exits = list[str]()
        """Processes that were restarted although no fault had ended them directly."""

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

    # -- state

    @property
    def urls(self) -> list[str]:
        return [api.url for api in self.apis]

    def refused_writes(self, since: float, until: float) -> bool:
        """Whether Redis refused writes at any time between the two."""
        return any(begin <= until and since <= end for begin, end in self._refusals)

    def stat(self, name: str) -> int:
        return int(self.redis.hget(keys.STATS, name) or 0)

    # -- for faults

    @asynccontextmanager
    async def down(self, process: Process) -> AsyncIterator[None]:
        """The process is not restarted until the block ends; then it is."""
        self._down.add(process)
        try:
            yield
        finally:
            if not process.running():
                await asyncio.to_thread(process.start)
            self._down.discard(process)

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
        balloon = self._disk / "balloon"
        await asyncio.to_thread(_fill, balloon)
        try:
            yield
        finally:
            balloon.unlink()

    async def watch(self) -> None:
        """Restart processes that have exited, until canceled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            for process in (self.valkey, *self.apis, *self.workers):
                if process in self._down or process.running():
                    continue
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
