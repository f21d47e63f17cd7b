"""Counts the processes that the kernel has killed because the container was out of memory."""

from contextlib import suppress
from pathlib import Path

CGROUP_V2 = Path("/sys/fs/cgroup/memory.events")
CGROUP_V1 = Path("/sys/fs/cgroup/memory/memory.oom_control")


def oom_kills(*files: Path) -> int:
    """The number of such kills in this container so far; 0 if the kernel does not report it.

    Source: the counter `oom_kill` of the kernel's memory controller, in either version of cgroups.
    """
    for file in files or (CGROUP_V2, CGROUP_V1):
        with suppress(OSError, ValueError):
            for line in file.read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
    return 0
