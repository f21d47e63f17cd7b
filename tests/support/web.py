"""A web server whose paths tests define, and a resolver for host names of tests."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

_BODY_BYTES_MAX = 64 << 20

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Hosts(AbstractResolver):
    """Resolves names from a table; each look-up of a name takes its next address."""

    def __init__(self, **addresses: list[str]) -> None:
        self._addresses = {name.replace("_", "."): list(found) for name, found in addresses.items()}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        addresses = self._addresses.get(host)
        if not addresses:
            raise OSError(f"{host} is not known")
        address = addresses.pop(0) if len(addresses) > 1 else addresses[0]
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [
            {"hostname": host, "host": one, "port": port, "family": kind, "proto": 0, "flags": socket.AI_NUMERICHOST}
            for one in address.split(",")
        ]

    async def close(self) -> None:
        """Does nothing: no connection is open."""


class Site:
    """A web server on 127.0.0.1: a handler for each path, and the requests that arrived."""

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

    def handler(self, path: str) -> Handler:
        return self._handlers[path]

    def responds(self, path: str, status: int = 200, body: bytes = b"", **headers: str) -> str:
        """Serve a path with always the same response; returns its URL."""

        async def handle(_: web.Request) -> web.Response:
            return web.Response(status=status, body=body, headers=headers)

        return self.at(path, handle)

    def redirects(self, path: str, location: str, status: int = 302) -> str:
        return self.responds(path, status, Location=location)

    def requested(self, path: str) -> int:
        return sum(request.path == path for request in self.requests)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        handler = self._handlers.get(request.path)
        return await handler(request) if handler else web.Response(status=404)


@asynccontextmanager
async def serving_site(tls: ssl.SSLContext | None = None, site: Site | None = None) -> AsyncIterator[Site]:
    site = site or Site()
    server = web.Server(site.handle, request_factory=_request, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    tcp = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await tcp.start()
    site.port = int(runner.addresses[0][1])
    site.url = f"{'https' if tls else 'http'}://127.0.0.1:{site.port}"
    try:
        yield site
    finally:
        await runner.cleanup()


def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    return web.BaseRequest(
        message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=_BODY_BYTES_MAX
    )


async def forever() -> None:
    """Wait until the client disconnects."""
    await asyncio.Event().wait()
