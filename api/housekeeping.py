"""The background round of an API process: models stay known, the clock stays right, what is due is dropped."""

import asyncio
import logging
from contextlib import suppress

from api.drain_rate import DrainRate
from jobs.errors import DarkroomError
from jobs.model_manifest import ModelCard
from jobs.store.client import StoreClient
from jobs.store.job_reader import JobReader
from jobs.store.keys import FETCH
from jobs.store.model_registry import ModelRegistry

log = logging.getLogger(__name__)


SWEEP_SECONDS = 1  # between two rounds
_SWEEP_SECONDS_MAX = 0.5  # of one round


class Housekeeping:
    """Keeps the models of `cards` known and the server's clock right, and drops what is due.

    Workers sweep too; a stack without one must not grow.
    """

    def __init__(
        self, client: StoreClient, store: JobReader, models: ModelRegistry, cards: list[ModelCard], drain: DrainRate
    ) -> None:
        self._client = client
        self._store = store
        self._models = models
        self._cards = cards
        self._drain = drain
        self._well = True

    async def keep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await self.round()

    async def round(self) -> None:
        """Whatever fails, the next round comes; an outage is logged once."""
        try:
            await self._client.set_clock()
            self._drain.sample(self._client.now_ms() / 1000, *await self._store.drained())
            await self._models.register(self._cards)
            models = await self._models.refs()
            with suppress(TimeoutError):  # the next round goes on
                async with asyncio.timeout(_SWEEP_SECONDS_MAX):
                    await self._store.sweep({*models, FETCH})
            self._well = True
        except DarkroomError as error:
            if self._well:
                log.warning("housekeeping is put off: %s", error)
            self._well = False
        except Exception:
            log.exception("housekeeping failed")
