"""The way of each process to Redis: a path of its own to Valkey's socket, which a fault can lead through a proxy.

Outside of such a fault the path is a link to the socket itself, so that the proxy costs nothing.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from math import inf
from pathlib import Path

PIECE_BYTES = 4096  # at which a slow line passes bytes on


class Proxy:
    """Passes connections on to a socket: all of it at once, slowly, without the replies, or nothing for a while."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self.bytes_per_second = inf
        """Of each connection and direction."""
        self.loses_replies = False
        """Whether requests are passed on, and their replies are not."""
        self._flows = asyncio.Event()
        self._flows.set()
        self._server: asyncio.Server | None = None
        self._connections = set[asyncio.Task[None]]()

    async def start(self, path: Path) -> None:
        self._server = await asyncio.start_unix_server(self._accept, path)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self.cut()

    def hold(self) -> None:
        """Pass no byte on from now on, and close no connection: a black hole."""
        self._flows.clear()

    def pass_on(self) -> None:
        """End a black hole. What it has swallowed arrives now."""
        self._flows.set()

    async def cut(self) -> None:
        """Close all connections. What they have not passed on is lost."""
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pumps = list[asyncio.Task[None]]()
        writers = [writer]
        try:
            from_server, to_server = await asyncio.open_unix_connection(self._socket)
            writers.append(to_server)
            pumps = [
                asyncio.create_task(self._pump(reader, to_server, replies=False)),
                asyncio.create_task(self._pump(from_server, writer, replies=True)),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass  # the server is away
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for each in writers:
                each.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(PIECE_BYTES if self.bytes_per_second < inf else 1 << 16):
                await self._flows.wait()
                if replies and self.loses_replies:
                    continue
                if self.bytes_per_second < inf:
                    await asyncio.sleep(len(data) / self.bytes_per_second)
                writer.write(data)
                await writer.drain()


class Line:
    def __init__(self, path: Path, socket: Path) -> None:
        """`path` is where the process finds the socket."""
        self._path = path
        self._socket = socket
        self._lead_to(socket)

    @property
    def url(self) -> str:
        return f"unix://{self._path}?db=0"

    @asynccontextmanager
    async def through_proxy(self) -> AsyncIterator[Proxy]:
        """New connections go through a proxy during the block. At its end the proxy closes them."""
        proxy, path = Proxy(self._socket), self._path.with_suffix(".proxy")
        await proxy.start(path)
        self._lead_to(path)
        try:
            yield proxy
        finally:
            self._lead_to(self._socket)
            await proxy.stop()
            path.unlink()

    def _lead_to(self, target: Path) -> None:
        link = self._path.with_suffix(".new")
        link.symlink_to(target)
        link.rename(self._path)
