"""What the routes call, opened once a process."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from api.intake import Intake
from api.settings import ApiSettings
from api.stopping import on_stop_signal
from api.views import Views
from api.waiters import Waiters
from jobs.errors import DarkroomError
from jobs.link import StoreLink
from jobs.models import Card
from jobs.registry import ModelRegistry
from jobs.store import JobStore
from jobs.submit import Submitter

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    settings: ApiSettings
    link: StoreLink
    store: JobStore
    models: ModelRegistry
    intake: Intake
    waiters: Waiters
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
        submitter = Submitter(link, owner_pending_items_max=settings.owner_pending_items_max)
        waiters = Waiters(store, settings.redis_url, link.database, settings.reread_seconds)
        waiters.start()
        stack.push_async_callback(waiters.close)
        stack.enter_context(on_stop_signal(waiters.release))
        await _keep_house_once(link, store, models, cards)
        housekeeping = asyncio.create_task(_keep_house(settings.sweep_seconds, link, store, models, cards))
        stack.callback(housekeeping.cancel)
        yield Services(
            settings, link, store, models, Intake(settings, submitter, models), waiters, Views(settings, models)
        )


async def _keep_house(
    every_seconds: float, link: StoreLink, store: JobStore, models: ModelRegistry, cards: list[Card]
) -> None:
    while True:
        await asyncio.sleep(every_seconds)
        await _keep_house_once(link, store, models, cards)


async def _keep_house_once(link: StoreLink, store: JobStore, models: ModelRegistry, cards: list[Card]) -> None:
    """Keep the models of `cards` known, and drop what is due. Workers sweep too; a stack without one must not grow."""
    try:
        await link.set_clock()
        await models.register(cards)
        await store.sweep({card.name for card in await models.cards()})
    except DarkroomError as error:
        log.warning("housekeeping was put off: %s", error)
