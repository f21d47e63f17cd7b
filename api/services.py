"""What the routes call, opened once a process."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

from api.drain import Drain
from api.held import Held
from api.intake import Intake
from api.settings import ApiSettings
from api.stopping import on_stop_signal
from api.views import Views
from api.waiters import Waiters
from jobs.errors import DarkroomError
from jobs.keys import FETCH
from jobs.link import StoreLink
from jobs.models import Card
from jobs.open_jobs import Limits, OpenJobs
from jobs.registry import ModelRegistry
from jobs.room import UploadRoom
from jobs.store import JobStore
from jobs.submit import Submitter

log = logging.getLogger(__name__)

_SWEEP_SECONDS_MAX = 0.5  # of one round


@dataclass(frozen=True, slots=True)
class Services:
    settings: ApiSettings
    link: StoreLink
    store: JobStore
    models: ModelRegistry
    intake: Intake
    open_jobs: OpenJobs
    waiters: Waiters
    held: Held
    drain: Drain
    views: Views


@asynccontextmanager
async def open_services(settings: ApiSettings, cards: list[Card]) -> AsyncIterator[Services]:
    """Open the connections and background tasks, and close them in reverse."""
    async with AsyncExitStack() as stack:
        link = StoreLink(
            settings,
            timeout_seconds=settings.submit_deadline_seconds,
            group_submits_max=settings.group_submits_max,
            group_bytes_max=settings.group_bytes_max,
        )
        stack.push_async_callback(link.close)
        link.start()
        store = JobStore(link)
        models = ModelRegistry(link)
        room = UploadRoom(
            settings.uploads_budget_bytes, settings.api_processes, bulk_fraction=settings.uploads_bulk_fraction
        )
        submitter = Submitter(link, room, owner_pending_items_max=settings.owner_pending_items_max)
        open_jobs = OpenJobs(
            link,
            room,
            Limits(
                owner_pending_items_max=settings.owner_pending_items_max,
                job_items_max=settings.job_items_max,
                room_wait_seconds_max=settings.room_wait_seconds_max,
                hold_seconds=settings.hold_seconds,
            ),
        )
        drain = Drain(
            retry_after_seconds=settings.retry_after_seconds, retry_after_seconds_max=settings.retry_after_seconds_max
        )
        waiters = Waiters(store, settings.redis_url, link.database, settings.reread_seconds)
        waiters.start()
        stack.push_async_callback(waiters.close)
        stack.enter_context(on_stop_signal(waiters.release))
        house = Housekeeping(link, store, models, cards, drain)
        await house.round()
        task = asyncio.create_task(house.keep(settings.sweep_seconds))
        stack.callback(task.cancel)
        yield Services(
            settings=settings,
            link=link,
            store=store,
            models=models,
            intake=Intake(settings, store, submitter, open_jobs, room, models),
            open_jobs=open_jobs,
            waiters=waiters,
            held=Held(
                waiters,
                streams_max=settings.held_streams_max,
                seconds_max=settings.held_stream_seconds_max,
                poll_seconds=settings.progress_poll_seconds,
            ),
            drain=drain,
            views=Views(settings, models, drain, link.now_ms),
        )


class Housekeeping:
    """Keeps the models of `cards` known and the server's clock right, and drops what is due.

    Workers sweep too; a stack without one must not grow.
    """

    def __init__(
        self, link: StoreLink, store: JobStore, models: ModelRegistry, cards: list[Card], drain: Drain
    ) -> None:
        self._link = link
        self._store = store
        self._models = models
        self._cards = cards
        self._drain = drain
        self._well = True

    async def keep(self, every_seconds: float) -> None:
        while True:
            await asyncio.sleep(every_seconds)
            await self.round()

    async def round(self) -> None:
        """Whatever fails, the next round comes; an outage is logged once."""
        try:
            await self._link.set_clock()
            self._drain.sample(self._link.now_ms() / 1000, *await self._store.drained())
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
