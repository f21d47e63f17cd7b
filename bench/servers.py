"""The processes of a service under a benchmark, with their CPU and memory from /proc."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.processes import Process, children_of

_TICKS = os.sysconf("SC_CLK_TCK")


class Servers:
    def __init__(self, processes: dict[str, Process]) -> None:
        self._processes = processes

    def add(self, name: str, process: Process) -> None:
        self._processes[name] = process

    @contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """Stop a process and its children (SIGSTOP) during the block."""
        self._signal(name, signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(name, signal.SIGCONT)

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        """Within `stopped`: let the process run during the block."""
        self._signal(name, signal.SIGCONT)
        try:
            yield
        finally:
            self._signal(name, signal.SIGSTOP)

    def _signal(self, name: str, number: signal.Signals) -> None:
        for pid in tree(self._processes[name].pid):
            os.kill(pid, number)

    def cpu_seconds(self) -> dict[str, float]:
        """User and system time of each process, including its children."""
        return {name: sum(map(_cpu_seconds, tree(it.pid))) for name, it in self._processes.items()}

    def resident_bytes(self) -> dict[str, int]:
        """Resident memory of each process now; children are listed separately."""
        return {
            f"{name} {pid}": _status_bytes(pid, "VmRSS") for name, it in self._processes.items() for pid in tree(it.pid)
        }

    def peak_bytes(self) -> dict[str, int]:
        """Peak resident memory of each process since `reset_peak`, including its children."""
        return {name: sum(_status_bytes(pid, "VmHWM") for pid in tree(it.pid)) for name, it in self._processes.items()}

    def memory_bytes(self, name: str) -> tuple[int, int]:
        """Resident memory of one process: now, and its peak since `reset_peak`."""
        pid = self._processes[name].pid
        return _status_bytes(pid, "VmRSS"), _status_bytes(pid, "VmHWM")

    def reset_peak(self, name: str) -> None:
        for pid in tree(self._processes[name].pid):
            with suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")


def tree(pid: int) -> list[int]:
    """The process and all that it has started."""
    return [pid, *(below for child in children_of(pid) for below in tree(child))]


def _status_bytes(pid: int, field: str) -> int:
    """0 if the process has exited meanwhile, as the child that rewrites Valkey's file does."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)
    return 0


def _cpu_seconds(pid: int) -> float:
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    return 0
