"""Makes the C library keep the memory that a forward pass frees, for the next one (docs/decisions/0042)."""

import ctypes
import os
from contextlib import suppress
from pathlib import Path

MIB = 1 << 20
KEPT_BYTES_MAX = 512 * MIB  # of one process
MEMORY_FRACTION = 4  # all processes together keep at most this part of the container's memory
LARGE_FRACTION = 4  # of what is kept: larger pieces, as of a photo of 50 megapixels, go back to the kernel when freed
KEPT_BYTES_MIN = 16 * MIB
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def keep_freed_memory(processes: int = 1) -> int:
    """Let this process, one of so many on the host, keep freed memory. Returns how many bytes at most.

    0 if the C library is another than glibc, and frees memory as it always does.
    """
    kept = max(KEPT_BYTES_MIN, min(KEPT_BYTES_MAX, memory_bytes() // (MEMORY_FRACTION * processes)))
    with suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        if library.mallopt(_M_MMAP_THRESHOLD, kept // LARGE_FRACTION) and library.mallopt(_M_TRIM_THRESHOLD, kept):
            return kept
    return 0


def memory_bytes(*limits: Path) -> int:
    """The memory of this container, or of the machine. `limits`: the kernel's files with limits, in either version."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    container = container_memory_bytes(*limits)
    return machine if container is None else min(machine, container)


def container_memory_bytes(*limits: Path) -> int | None:
    """The memory limit of this container, None if it has none. `limits` as in `memory_bytes`."""
    found = list[int]()
    for file in limits or _LIMITS:
        with suppress(OSError, ValueError):  # another version of cgroups, or no limit: "max"
            found.append(int(file.read_text()))
    return min(found, default=None)
