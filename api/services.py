"""What the routes call, opened once a process."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from api.asgi.shutdown import on_stop_signal
from api.drain_rate import Drain
from api.housekeeping import Housekeeping
from api.presenters import Views
from api.results.completion import Waiters
from api.results.stream_limit import Held
from api.settings import ApiSettings
from api.submissions.submit import Intake
from jobs.model_manifest import Card
from jobs.store.client import StoreLink
from jobs.store.job_reader import JobStore
from jobs.store.model_registry import ModelRegistry
from jobs.store.open_job_parts import Limits, OpenJobs
from jobs.store.submit import Submitter
from jobs.store.upload_budget import UploadRoom

log = logging.getLogger(__name__)


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
