"""Web servers that behave oddly, and names that lead to them."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Hosts(AbstractResolver):
    """Names and their addresses, as /etc/hosts would have them; each look-up of a name takes its next answer."""

    def __init__(self, **addresses: list[str]) -> None:
        self._addresses = {name.replace("_", "."): list(found) for name, found in addresses.items()}
        self.asked = list[str]()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked.append(host)
        answers = self._addresses.get(host)
        if not answers:
            raise OSError(f"{host} is not known")
        address = answers.pop(0) if len(answers) > 1 else answers[0]
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [
            {"hostname": host, "host": one, "port": port, "family": kind, "proto": 0, "flags": socket.AI_NUMERICHOST}
            for one in address.split(",")
        ]

    async def close(self) -> None:
        """Nothing is open."""


class Site:
    """A web server on 127.0.0.1: a handler for each path, and what was asked of it."""

    def __init__(self) -> None:
        self.requests = list[web.Request]()
        self.bodies = list[bytes]()
        self.url = ""
        self.port = 0
        self._handlers = dict[str, Handler]()

    def at(self, path: str, handler: Handler) -> str:
        """Serve a path; returns its URL."""
        self._handlers[path] = handler
        return self.url + path

    def answers(self, path: str, status: int = 200, body: bytes = b"", **headers: str) -> str:
        """Serve a path with always the same answer; returns its URL."""

        async def handle(_: web.Request) -> web.Response:
            return web.Response(status=status, body=body, headers=headers)

        return self.at(path, handle)

    def redirects(self, path: str, location: str, status: int = 302) -> str:
        return self.answers(path, status, Location=location)

    def asked(self, path: str) -> int:
        return sum(request.path == path for request in self.requests)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        handler = self._handlers.get(request.path)
        return await handler(request) if handler else web.Response(status=404)


@asynccontextmanager
async def serving_site() -> AsyncIterator[Site]:
    site = Site()
    runner = web.ServerRunner(web.Server(site.handle, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    tcp = web.TCPSite(runner, "127.0.0.1", 0)
    await tcp.start()
    site.port = int(runner.addresses[0][1])
    site.url = f"http://127.0.0.1:{site.port}"
    try:
        yield site
    finally:
        await runner.cleanup()


async def forever() -> None:
    """Wait until the one who asked has gone."""
    await asyncio.Event().wait()
