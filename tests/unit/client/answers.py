"""What a stub of the server answers, and the command run against it."""

import asyncio
import io
import json
import os
import sys
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from tests.support.processes import ROOT
from tests.support.web import Site

JOB_ID = "019254a0-7b11-7cc0-8000-3f1d5a2b9c4e"
COUNTS = {"total": 3, "pending": 0, "succeeded": 3, "failed": 0, "canceled": 0, "a new count": 1}
TIME = "2026-11-23T10:00:00.000Z"
JOB = {
    "id": JOB_ID, "status": "a new state", "model": "m", "lane": "bulk", "counts": COUNTS, "created_at": TIME,
    "completed_at": TIME, "expires_at": TIME, "a new field": 1,
}  # fmt: skip
ITEM = {"status": "succeeded", "class": "Bag", "confidence": 0.5, "model": "m@1", "top_k": []}
SERVER = {
    "version": "0.2.0",
    "time": TIME,
    "default_model": "fmnist-cnn",
    "limits": {"image_bytes_max": 1, "items_max": 1, "open_job_idle_seconds": 1, "formats": ["png"]},
    "queue": {"interactive": {"images": 0, "oldest_seconds": None}, "bulk": {"images": 1200, "oldest_seconds": 7.4}},
    "images_per_second": 950.5,
    "workers": 2,
    "budgets": {"uploads": {"used_bytes": 25, "bytes_max": 100}, "records": {"used_bytes": 0, "bytes_max": 100}},
}

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def one_after_the_other(*answers: Answer) -> Answer:
    left = list(answers)

    async def handle(request: web.Request) -> web.StreamResponse:
        return await (left.pop(0) if len(left) > 1 else left[0])(request)

    return handle


def problem(status: int, code: str, **headers: str) -> Answer:
    async def handle(_: web.Request) -> web.Response:
        body = json.dumps({"code": code, "detail": "no", "title": "no"}).encode()
        return web.Response(status=status, body=body, content_type="application/problem+json", headers=headers)

    return handle


def answer(data: object) -> Answer:
    async def handle(_: web.Request) -> web.Response:
        return web.json_response(data)

    return handle


def by_method(**answers: Answer) -> Answer:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await answers[request.method](request)

    return handle


def item(index: int, name: str = "x", **more: object) -> str:
    return json.dumps({"index": index, "name": name, **ITEM, **more}, ensure_ascii=False) + "\n"


def lines(*texts: str, kind: str = "application/x-ndjson", whole: bool = True) -> Answer:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": kind})
        await response.prepare(request)
        await response.write("".join(texts).encode())
        if not whole:
            assert request.transport is not None
            await asyncio.sleep(0)
            request.transport.close()
        return response

    return handle


def serve_job(site: Site, prefix: str = "") -> None:
    """A job that has as many images as were sent for it, at once or in parts; all of them are bags."""
    total, sealed = 0, False

    async def take(request: web.Request) -> web.Response:
        nonlocal total, sealed
        if request.path.endswith("/jobs"):
            total, sealed = 0, "open" not in request.query
        sealed |= request.path.endswith("/seal")
        total += _images(site.bodies[-1])
        counts = COUNTS | {"total": total, "succeeded": total}
        ends = {} if sealed else {"completed_at": None, "expires_at": None}
        return web.json_response(JOB | {"status": "completed" if sealed else "open", "counts": counts} | ends)

    async def results(request: web.Request) -> web.StreamResponse:
        found = range(int(request.query.get("from", "0")), total if request.query.get("follow") else 0)
        return await lines(*map(item, found))(request)

    site.at(f"{prefix}/v1/jobs", take)
    for path in ("", "/items", "/seal"):
        site.at(f"{prefix}/v1/jobs/{JOB_ID}{path}", take)
    site.at(f"{prefix}/v1/jobs/{JOB_ID}/results", results)


def _images(body: bytes) -> int:
    if body.startswith(b"{"):
        return len(json.loads(body)["urls"])
    return len(tarfile.open(fileobj=io.BytesIO(body)).getmembers()) if body else 0


async def start_command(site: Site, folder: Path, *arguments: object) -> asyncio.subprocess.Process:
    """`darkroom`, in the repository's root; what it remembers is in the folder."""
    own = {"XDG_STATE_HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "DARKROOM_URL": site.url}
    return await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("darkroom")), *map(str, arguments), cwd=ROOT, env=os.environ | own,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def run_command(site: Site, folder: Path, *arguments: object) -> tuple[int, str, str]:
    """Its exit status, stdout and stderr."""
    running = await start_command(site, folder, *arguments)
    out, errors = await asyncio.wait_for(running.communicate(), 60)
    assert running.returncode is not None
    return running.returncode, out.decode(), errors.decode()
