"""What the routes call, opened once a process."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from api.asgi.shutdown import on_stop_signal
from api.drain_rate import DrainRate
from api.housekeeping import Housekeeping
from api.presenters import JobPresenter
from api.results.completion import JobCompletions
from api.results.stream_limit import FollowedStreams
from api.settings import ApiSettings
from api.submissions.submit import Intake
from jobs.model_manifest import ModelCard
from jobs.store.client import StoreClient
from jobs.store.job_reader import JobReader
from jobs.store.model_registry import ModelRegistry
from jobs.store.open_job_parts import OpenJobLimits, OpenJobParts
from jobs.store.submit import Submitter
from jobs.store.upload_budget import UploadBudget

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    settings: ApiSettings
    client: StoreClient
    store: JobReader
    models: ModelRegistry
    intake: Intake
    open_jobs: OpenJobParts
    completions: JobCompletions
    followed_streams: FollowedStreams
    drain: DrainRate
    presenter: JobPresenter


@asynccontextmanager
async def open_services(settings: ApiSettings, cards: list[ModelCard]) -> AsyncIterator[Services]:
    """Open the connections and background tasks, and close them in reverse."""
    async with AsyncExitStack() as stack:
        client = StoreClient(settings, timeout_seconds=settings.submit_deadline_seconds)
        stack.push_async_callback(client.close)
        client.start()
        store = JobReader(client)
        models = ModelRegistry(client)
        upload_budget = UploadBudget(
            settings.uploads_budget_bytes, settings.api_processes, bulk_fraction=settings.uploads_bulk_fraction
        )
        submitter = Submitter(client, upload_budget, owner_pending_items_max=settings.owner_pending_items_max)
        open_jobs = OpenJobParts(
            client,
            upload_budget,
            OpenJobLimits(
                owner_pending_items_max=settings.owner_pending_items_max,
                job_items_max=settings.job_items_max,
                room_wait_seconds_max=settings.room_wait_seconds_max,
                hold_seconds=settings.hold_seconds,
            ),
        )
        drain = DrainRate(retry_after_seconds=settings.retry_after_seconds)
        completions = JobCompletions(store, settings.redis_url, client.database)
        completions.start()
        stack.push_async_callback(completions.close)
        stack.enter_context(on_stop_signal(completions.release))
        house = Housekeeping(client, store, models, cards, drain)
        await house.round()
        task = asyncio.create_task(house.keep())
        stack.callback(task.cancel)
        yield Services(
            settings=settings,
            client=client,
            store=store,
            models=models,
            intake=Intake(settings, store, submitter, open_jobs, upload_budget, models),
            open_jobs=open_jobs,
            completions=completions,
            followed_streams=FollowedStreams(
                completions,
                streams_max=settings.held_streams_max,
                seconds_max=settings.held_stream_seconds_max,
            ),
            drain=drain,
            presenter=JobPresenter(settings, models, drain, client.now_ms),
        )
