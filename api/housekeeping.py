"""The background task of an API process: models, clock, drain rate, spool, sweep."""

import asyncio
import logging
from contextlib import suppress

from api.drain_rate import DrainRate
from jobs.errors import DarkroomError
from jobs.logs.outage_log import OutageLog
from jobs.model_manifest import ModelCard
from jobs.store.for_api.client import StoreClient
from jobs.store.for_api.job_reader import JobReader
from jobs.store.for_api.model_registry import ModelRegistry
from jobs.store.for_api.spool_sweep import SpoolSweep
from jobs.store.keys import FETCH

log = logging.getLogger(__name__)

RUN_SECONDS = 1  # between two runs
_SWEEP_SECONDS_MAX = 0.5  # of one run


class Housekeeping:
    """Workers sweep too, but without a running worker the store must not grow either."""

    def __init__(
        self,
        client: StoreClient,
        reader: JobReader,
        model_registry: ModelRegistry,
        cards: list[ModelCard],
        drain_rate: DrainRate,
    ) -> None:
        self._client = client
        self._reader = reader
        self._model_registry = model_registry
        self._cards = cards
        self._drain_rate = drain_rate
        self._spool_sweep = SpoolSweep(client)
        self._outage = OutageLog("housekeeping: waiting for the job store")

    async def run(self) -> None:
        while True:
            await asyncio.sleep(RUN_SECONDS)
            await self.run_once()

    async def run_once(self) -> None:
        """Logs errors instead of raising them: the next run tries again."""
        try:
            await self._client.set_clock()
            await self._client.keep_secret()
            self._drain_rate.sample(self._client.now_ms() / 1000, *await self._reader.drained())
            await self._model_registry.register(self._cards)
            await self._model_registry.read_served()
            models = await self._model_registry.refs()
            with suppress(TimeoutError):  # the next run continues
                async with asyncio.timeout(_SWEEP_SECONDS_MAX):
                    await self._reader.sweep({*models, FETCH})
            await self._spool_sweep.run_once()
            self._outage.recovered()
        except DarkroomError as error:
            self._outage.failed(error)
        except Exception:
            log.exception("housekeeping failed")
