"""Photos that are accepted while no worker runs: how fast, and what they cost the API and the store.

    .venv/bin/python -m bench.spool [--photos 1000] [--bytes 3000000] [--uploads redis:] [--folder /var/tmp]

Prints MB/s, the memory of the store, and the CPU time of API and store an image; and beside it what the disk itself
takes, if as many threads write and fsync such files there. The client is one process that sends random bytes: their
content is not read. All files are deleted in the end.
"""

import argparse
import asyncio
import os
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from bench.servers import Servers
from tests.support.processes import Api, Valkey

MAXMEMORY_BYTES = 1 << 30
IN_FLIGHT = 8
DISK_PHOTOS_MAX = 1000


async def _send(port: int, bodies: asyncio.Queue[int], photo: bytes) -> None:
    """One connection that sends photos until the queue is empty."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
    lines = ("POST /v1/jobs HTTP/1.1", "Host: localhost", "Content-Type: image/jpeg", f"Content-Length: {len(photo)}")
    head = "".join(f"{line}\r\n" for line in (*lines, ""))
    while not bodies.empty():
        bodies.get_nowait()
        writer.write(head.encode())
        writer.write(photo)
        await writer.drain()
        status = await reader.readline()
        length = 0
        while (line := await reader.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        body = await reader.readexactly(length)
        if b" 202 " not in status:
            raise RuntimeError(f"{status!r} {body[:200]!r}")
    writer.close()


async def _send_all(port: int, photos: int, photo: bytes, in_flight: int) -> None:
    bodies = asyncio.Queue[int]()
    for number in range(photos):
        bodies.put_nowait(number)
    await asyncio.gather(*(_send(port, bodies, photo) for _ in range(in_flight)))


def _disk_bytes_a_second(folder: Path, photo: bytes, photos: int, threads: int) -> float:
    def write(number: int) -> None:
        with (folder / f"{number}").open("wb") as file:
            file.write(photo)
            file.flush()
            os.fdatasync(file.fileno())

    folder.mkdir()
    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(write, range(photos)))
    seconds = time.perf_counter() - began
    shutil.rmtree(folder)
    return photos * len(photo) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--bytes", type=int, default=3_000_000, help="of each photo")
    parser.add_argument("--uploads", default="", help="UPLOADS_URL; by default a folder below --folder")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--in-flight", type=int, default=IN_FLIGHT)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        with ExitStack() as stack:
            valkey = stack.enter_context(Valkey(folder / "vk", maxmemory_bytes=MAXMEMORY_BYTES))
            settings = {
                "UPLOADS_URL": options.uploads or f"file://{folder}",
                "REDIS_MAXMEMORY_BYTES": str(MAXMEMORY_BYTES),
            }
            api = stack.enter_context(Api(valkey.url, folder / "api.log", **settings))
            servers = Servers({"api": api, "valkey": valkey})
            photo = os.urandom(options.bytes)
            disk_photos = min(DISK_PHOTOS_MAX, options.photos)
            disk_before = _disk_bytes_a_second(folder / "disk", photo, disk_photos, options.in_flight)
            asyncio.run(_send_all(api.port, 8, photo, 1))
            before, began = servers.cpu_seconds(), time.perf_counter()
            asyncio.run(_send_all(api.port, options.photos, photo, options.in_flight))
            seconds, after = time.perf_counter() - began, servers.cpu_seconds()
            with valkey.client as client:
                used = client.info("memory")["used_memory"]
            disk_after = _disk_bytes_a_second(folder / "disk", photo, disk_photos, options.in_flight)
        cost = {name: 1000 * (after[name] - before[name]) / options.photos for name in after}
        print(
            f"{options.photos} photos of {options.bytes / 1e6:.1f} MB in {seconds:.1f} s: "
            f"{options.photos * options.bytes / seconds / 1e6:.0f} MB/s, {options.photos / seconds:.1f} a second; "
            f"the store uses {used / 2**20:.1f} MiB; CPU an image: "
            + " + ".join(f"{name} {ms:.2f}" for name, ms in cost.items())
            + f" = {sum(cost.values()):.2f} ms; the disk by itself: {disk_before / 1e6:.0f} MB/s before, "
            f"{disk_after / 1e6:.0f} after"
        )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
