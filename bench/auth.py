"""What API keys and quotas cost a request: CPU of one API process, without an HTTP server, over a real store.

    .venv/bin/python -m bench.auth

Polls and submits are called as the server would call them, 32 at a time: without any key, with keys of each kind, and
with wrong ones. Each figure is the least of several rounds, which take turns.
"""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from starlette.types import Message

from api.app import create_app
from api.settings import ApiSettings
from jobs.settings import StoreSettings
from jobs.store.for_api.api_key_registry import ApiKeyRegistry
from jobs.store.for_api.api_keys import KeyLimits, Scope
from tests.support.processes import ROOT, Valkey

ROUNDS, REQUESTS, IN_FLIGHT = 15, 1600, 32
MANY = 1_000_000
LIMITS = KeyLimits(requests_per_second=MANY, items_per_day=MANY, pending_items=MANY)
IMAGE = (ROOT / "tests" / "data" / "0007-shirt.png").read_bytes()


class Kind(NamedTuple):
    """A kind of request, and the status of its answer."""

    key: str | None
    status: int
    path: str = ""
    """That of a job that is polled; an image is submitted without it."""


class Caller:
    """Calls an application as the server does."""

    def __init__(self, app: Any, state: Mapping[str, Any]) -> None:
        self._app = app
        self._state = state

    async def submit(self, key: str | None) -> str:
        """Returns the path of the job."""
        start = await self._call(Kind(key, 202))
        return str(dict(start["headers"])[b"location"], "ascii")

    async def cpu_us(self, kind: Kind) -> float:
        """CPU of this process for one request, in µs."""

        async def one_after_the_other() -> None:
            for _ in range(REQUESTS // IN_FLIGHT):
                await self._call(kind)

        before = time.process_time()
        await asyncio.gather(*(one_after_the_other() for _ in range(IN_FLIGHT)))
        return (time.process_time() - before) / REQUESTS * 1e6

    async def _call(self, kind: Kind) -> Message:
        headers = [(b"host", b"127.0.0.1:8000"), (b"user-agent", b"bench"), (b"accept", b"*/*")]
        if kind.key is not None:
            headers.append((b"authorization", b"Bearer " + kind.key.encode()))
        body = b"" if kind.path else IMAGE
        if body:
            headers += [(b"content-type", b"image/png"), (b"content-length", b"%d" % len(body))]
        sent = list[Message]()

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "GET" if kind.path else "POST",
            "path": kind.path or "/v1/jobs",
            "query_string": b"",
            "headers": headers,
            "state": dict(self._state),
        }
        await self._app(scope, receive, send)
        assert sent[0]["status"] == kind.status, sent
        return sent[0]


async def measure(redis_url: str) -> dict[str, float]:
    app = create_app(ApiSettings(redis_url=redis_url, models_dir=ROOT / "weights"))
    async with app.router.lifespan_context(app) as state:
        assert state is not None
        caller = Caller(app, state)
        path = await caller.submit(None)
        found = await least(
            caller, {"poll, open server": Kind(None, 200, path), "submit, open server": Kind(None, 202)}
        )
        registry = ApiKeyRegistry(StoreSettings(redis_url=redis_url))
        keys = [registry.create("alice", Scope.ALL, limits)[1] for limits in (KeyLimits(), LIMITS)]
        plain, limited = keys
        while not state["services"].api_keys.closed:
            await asyncio.sleep(0.1)
        path = await caller.submit(plain)
        return found | await least(
            caller,
            {
                "poll, key without limits": Kind(plain, 200, path),
                "poll, key with all limits": Kind(limited, 200, path),
                "submit, key without limits": Kind(plain, 202),
                "submit, key with all limits": Kind(limited, 202),
                "wrong key": Kind(limited[:-1] + "~", 401, path),
                "no key": Kind(None, 401, path),
            },
        )


async def least(caller: Caller, kinds: dict[str, Kind]) -> dict[str, float]:
    found = dict.fromkeys(kinds, float("inf"))
    for _ in range(ROUNDS):
        for name, kind in kinds.items():
            found[name] = min(found[name], await caller.cpu_us(kind))
    return found


def main() -> None:
    with TemporaryDirectory() as folder, Valkey(Path(folder)) as server:
        found = asyncio.run(measure(server.url))
    for name, cpu_us in found.items():
        print(f"{name:28} {cpu_us:6.1f} µs of CPU")


if __name__ == "__main__":
    main()
