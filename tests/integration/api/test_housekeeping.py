"""The background task of an API process, one run at a time."""

import asyncio
import logging
from pathlib import Path

import pytest

from api.drain_rate import DrainRate
from api.housekeeping import Housekeeping
from jobs.model_packages import pinned_cards
from jobs.settings import StoreSettings
from jobs.store import keys
from jobs.store.for_api.client import StoreClient
from jobs.store.for_api.job_reader import JobReader
from jobs.store.for_api.model_registry import ModelRegistry
from tests.conftest import open_store_client
from tests.support.processes import ROOT, Valkey
from tests.support.store import OWNER, Store


def make_housekeeping(client: StoreClient) -> Housekeeping:
    cards = list(pinned_cards(ROOT / "weights"))
    return Housekeeping(client, JobReader(client), ModelRegistry(client), cards, DrainRate(retry_after_seconds=2))


async def test_a_run_registers_the_models_and_sweeps_without_a_worker(store: Store) -> None:
    part = await store.open(seconds=0.001)
    housekeeping = make_housekeeping(store.store_client)

    await housekeeping.run_once()

    assert b"fmnist-mlp@1" in store.redis.hkeys(keys.MODEL_CARDS)
    async with asyncio.timeout(30):
        while not (await store.get(part.job_id, OWNER)).state.ended:  # until the open job's deadline has passed
            await housekeeping.run_once()


async def test_an_outage_is_logged_once_and_a_later_run_succeeds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Valkey(tmp_path / "vk") as server:
        client = open_store_client(StoreSettings(redis_url=server.url))
        housekeeping = make_housekeeping(client)
        await housekeeping.run_once()
        server.kill()
        caplog.set_level(logging.WARNING)

        for _ in range(2):
            await housekeeping.run_once()
        logged = [record.getMessage() for record in caplog.records if "housekeeping" in record.getMessage()]
        assert len(logged) == 1

        server.start()
        await housekeeping.run_once()
        await client.close()
    assert "housekeeping: waiting for the job store: over after" in caplog.text
