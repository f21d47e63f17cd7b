import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn

from api import services
from api.app import create_app
from api.asgi.uvicorn_protocol import protocol_factory
from api.settings import ApiSettings
from api.uploads.zip_spool import ZipSpools
from jobs.store.for_api.upload_budget import UploadBudget
from tests.support.completions import ObservedCompletions
from tests.support.processes import MAXMEMORY_BYTES, ROOT, Valkey, free_port
from tests.support.store import MODEL

StartApi = Callable[..., Coroutine[Any, Any, httpx.AsyncClient]]


@asynccontextmanager
async def running_api(valkey: Valkey, **overrides: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API that runs in this process, on a port of its own."""
    port = free_port()
    values = {
        "redis_url": valkey.url,
        "port": port,
        "models_dir": ROOT / "weights",
        "default_model": MODEL,
        "redis_maxmemory_bytes": MAXMEMORY_BYTES,
        "upload_bytes_max": 16 << 20,
    } | overrides
    assert values.keys() <= ApiSettings.model_fields.keys()
    settings = ApiSettings(**values)
    protocol = protocol_factory(settings)
    config = uvicorn.Config(
        create_app(settings), port=port, http=protocol, log_config=None, timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        assert not task.done(), "the API did not start"
        await asyncio.sleep(0.01)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=25) as client:
            yield client
    finally:
        server.should_exit = True
        await task


@pytest.fixture
def observed_completions(monkeypatch: pytest.MonkeyPatch) -> ObservedCompletions:
    """The waiters of APIs that are started after this fixture."""
    return ObservedCompletions(monkeypatch)


@pytest.fixture
def budgets(monkeypatch: pytest.MonkeyPatch) -> list[UploadBudget]:
    """Those of the APIs that are started after this fixture."""
    made = list[UploadBudget]()

    def make(*args: Any, **options: Any) -> UploadBudget:
        made.append(UploadBudget(*args, **options))
        return made[-1]

    monkeypatch.setattr(services, "UploadBudget", make)
    return made


@pytest.fixture
def zip_spools(monkeypatch: pytest.MonkeyPatch) -> list[ZipSpools]:
    """As `budgets`."""
    made = list[ZipSpools]()

    def make(*args: Any, **options: Any) -> ZipSpools:
        made.append(ZipSpools(*args, **options))
        return made[-1]

    monkeypatch.setattr(services, "ZipSpools", make)
    return made


@pytest.fixture
async def start_api(valkey: Valkey) -> AsyncIterator[StartApi]:
    """Starts an API with the given settings."""
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> httpx.AsyncClient:
            return await stack.enter_async_context(running_api(valkey, **settings))

        yield start


@pytest.fixture
async def api(start_api: StartApi) -> httpx.AsyncClient:
    """A client of an API with default settings and no worker."""
    return await start_api()
