import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from jobs.store.for_workers.outbound import OutboundStore
from tests.support.outbound import SECRET, MakeOutboundProcess, RunSlice
from tests.support.processes import MAXMEMORY_BYTES, Valkey
from tests.support.store import OWNER, WORKER_ID, Store
from tests.support.web import Hosts, Site, serving_site
from worker.outbound.fetch import Fetcher
from worker.outbound.process import OutboundProcess
from worker.outbound.settings import FetchSettings, OutboundSettings
from worker.outbound.web import CheckedHttp
from worker.process_state import ProcessState


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serving_site() as site:
        yield site


@pytest.fixture
def fetched_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "fetched"
    folder.mkdir()
    return folder


@pytest.fixture
def make_outbound_process(
    valkey: Valkey, process_state: ProcessState, fetched_folder: Path
) -> Iterator[MakeOutboundProcess]:
    with ExitStack() as opened:

        def make(**settings: Any) -> OutboundProcess:
            values: dict[str, Any] = {
                "redis_url": valkey.url,
                "redis_maxmemory_bytes": MAXMEMORY_BYTES,
                "item_bytes_max": 1 << 20,
                "fetch_allow_networks": ["127.0.0.0/8"],
                "fetch_retry_seconds": 0.01,
                "webhook_secrets": {OWNER: SECRET},
            }
            checked = OutboundSettings(**values | settings)
            process = OutboundProcess(checked, WORKER_ID, process_state, fetched_folder)
            return opened.enter_context(closing(process))

        yield make


@pytest.fixture
def run_slice(make_outbound_process: MakeOutboundProcess) -> Iterator[RunSlice]:
    """Runs tasks of an outbound process in a thread, one by default, while this event loop serves the images."""
    with ThreadPoolExecutor(1) as thread:

        async def run(*, slices: int = 1, **settings: Any) -> None:
            def task() -> None:
                process = make_outbound_process(**settings)
                process.start()
                for _ in range(slices):
                    process.run_slice("task")

            await asyncio.get_running_loop().run_in_executor(thread, task)

        yield run


@pytest.fixture
def outbound(store: Store) -> Iterator[OutboundStore]:
    with closing(OutboundStore(store.store_client.settings, lease_seconds=4, timeout_seconds=5)) as opened:
        yield opened


@pytest.fixture
async def make_fetcher() -> AsyncIterator[Callable[..., Fetcher]]:
    async with AsyncExitStack() as stack:
        made: list[CheckedHttp] = []

        def make(hosts: Hosts | None = None, *, dns_cache: bool = True, **settings: Any) -> Fetcher:
            values = {"fetch_allow_networks": ["127.0.0.0/8"], "fetch_retry_seconds": 0.01} | settings
            checked = FetchSettings(**values)
            made.append(CheckedHttp(checked, hosts, dns_cache=dns_cache))
            stack.push_async_exit(made[-1])
            return Fetcher(checked, made[-1])

        yield make
