"""Another server, whose URLs an attacker submits: it counts the requests and connections that it gets.

    python -m bench.hostile.victim

Prints its port. `/image` answers with a picture after 20 ms, `/busy` asks for an hour's pause.
"""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from tests.support.processes import ROOT, Process
from tests.support.waiting import wait_until

PORT = "port"
IMAGE, BUSY = "/image", "/busy"
_SEEN = "/seen"
_IMAGE_SECONDS = 0.02


class Seen(NamedTuple):
    """Since it was asked last."""

    requests: int
    connections: int
    """The most at a time."""


class Victim:
    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"

    def seen(self) -> Seen:
        requests, connections = map(int, httpx.get(self.url + _SEEN, timeout=30).text.split())
        return Seen(requests, connections)


@contextmanager
def victim(folder: Path) -> Iterator[Victim]:
    with Process([sys.executable, "-m", "bench.hostile.victim"], folder / "victim.log") as process:

        def port() -> int:
            assert process.running(), process.output()
            name, _, found = process.output().partition(" ")
            return int(found) if name == PORT and found.endswith("\n") else 0

        yield Victim(process, wait_until(port, what="the victim"))


class _Server:
    def __init__(self) -> None:
        self._image = (ROOT / "tests/data/0007-shirt.png").read_bytes()
        self._requests = self._open = self._most = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        counted = False
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].partition(b"?")[0].decode()
                if path == _SEEN:
                    writer.write(_response(200, b"%d %d" % (self._requests, self._most)))
                    self._requests, self._most = 0, self._open
                    continue
                if not counted:
                    counted, self._open = True, self._open + 1
                    self._most = max(self._most, self._open)
                self._requests += 1
                if path == IMAGE:
                    await asyncio.sleep(_IMAGE_SECONDS)
                    writer.write(_response(200, self._image))
                else:
                    writer.write(_response(503, b"", "Retry-After: 3600\r\n"))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open -= counted
            writer.close()


def _response(status: int, body: bytes, headers: str = "") -> bytes:
    return f"HTTP/1.1 {status} x\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _serve() -> None:
    server = await asyncio.start_server(_Server().connected, "127.0.0.1", 0)
    print(PORT, server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
