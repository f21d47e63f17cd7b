"""The objects that routes call, created once for each API process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from api.auth.keys import ApiKeys
from api.auth.local_requests import LocalRequests
from api.auth.refresh import ApiKeyRefresh
from api.drain_rate import DrainRate
from api.exposure import needs_key, why_reachable
from api.housekeeping import Housekeeping
from api.presenters import JobPresenter
from api.results.completion import JobCompletions
from api.results.stream_limit import ResponseStreams
from api.server_status import ServerStatus
from api.settings import ApiSettings
from api.shutdown import on_stop_signal
from api.submissions.parts import OpenJobService
from api.submissions.single_chunk import SingleChunkSubmitter
from api.submissions.stream import StreamSubmitter
from api.submissions.submit import SubmissionService
from api.submissions.upload_streams import UploadStreams
from api.uploads.zip_spool import ZipSpools
from jobs.model_manifest import ModelCard
from jobs.store.for_api.client import StoreClient
from jobs.store.for_api.job_reader import JobReader
from jobs.store.for_api.model_registry import ModelRegistry
from jobs.store.for_api.open_job_parts import OpenJobLimits, OpenJobParts
from jobs.store.for_api.submit import Submitter
from jobs.store.for_api.upload_budget import UploadBudget


@dataclass(frozen=True, slots=True)
class Services:
    settings: ApiSettings
    client: StoreClient
    reader: JobReader
    model_registry: ModelRegistry
    submissions: SubmissionService
    open_jobs: OpenJobService
    completions: JobCompletions
    response_streams: ResponseStreams
    drain_rate: DrainRate
    presenter: JobPresenter
    server_status: ServerStatus
    api_keys: ApiKeys
    local_requests: LocalRequests | None
    """Checks requests without a key, if only this machine is meant to send any."""

    async def check_writes(self) -> None:
        """Raises StoreUnavailable if Redis takes no writes."""
        await self.client.check_writes()


@asynccontextmanager
async def open_services(settings: ApiSettings, cards: list[ModelCard]) -> AsyncIterator[Services]:
    """Open the connections and start the background tasks; stop and close them in reverse order."""
    async with AsyncExitStack() as stack:
        client = StoreClient(settings, timeout_seconds=settings.submit_deadline_seconds)
        stack.push_async_callback(client.close)
        client.start()
        reader = JobReader(client)
        model_registry = ModelRegistry(client)
        drain_rate = DrainRate(retry_after_seconds=settings.retry_after_seconds)
        completions = JobCompletions(reader, settings.redis_url, client.database)
        completions.start()
        stack.push_async_callback(completions.close)
        stack.enter_context(on_stop_signal(completions.release))
        housekeeping = Housekeeping(client, reader, model_registry, cards, drain_rate)
        await housekeeping.run_once()
        api_keys = ApiKeys(
            settings.api_keys,
            closed=needs_key(settings),
            processes=settings.api_processes,
            now_ms=client.now_ms,
        )
        refresh = ApiKeyRefresh(client, api_keys)
        await refresh.run_once()
        for duty in (housekeeping.run(), refresh.run()):
            stack.callback(asyncio.create_task(duty).cancel)
        submissions, open_jobs = _upload_services(settings, client, reader, model_registry, completions)
        yield Services(
            settings=settings,
            client=client,
            reader=reader,
            model_registry=model_registry,
            submissions=submissions,
            open_jobs=open_jobs,
            completions=completions,
            response_streams=ResponseStreams(
                completions,
                streams_max=settings.held_streams_max,
                seconds_max=settings.held_stream_seconds_max,
            ),
            drain_rate=drain_rate,
            presenter=JobPresenter(settings, model_registry, drain_rate, client.now_ms),
            server_status=ServerStatus(settings, client, model_registry, drain_rate),
            api_keys=api_keys,
            local_requests=_local_requests(settings),
        )


def _local_requests(settings: ApiSettings) -> LocalRequests | None:
    return None if why_reachable(settings) else LocalRequests(settings.allowed_hosts, settings.cors_origins)


def _upload_services(
    settings: ApiSettings,
    client: StoreClient,
    reader: JobReader,
    model_registry: ModelRegistry,
    completions: JobCompletions,
) -> tuple[SubmissionService, OpenJobService]:
    """The two services that read uploads. They share the upload budget, the limit of streams, and the spools."""
    upload_budget = UploadBudget(
        settings.uploads_budget_bytes,
        settings.api_processes,
        bulk_fraction=settings.uploads_bulk_fraction,
        spool_bytes=settings.uploads_spool_bytes_max,
    )
    submitter = Submitter(client, upload_budget, owner_pending_items_max=settings.owner_pending_items_max)
    parts = OpenJobParts(
        client,
        upload_budget,
        OpenJobLimits(
            owner_pending_items_max=settings.owner_pending_items_max,
            job_items_max=settings.job_items_max,
            room_wait_seconds_max=settings.room_wait_seconds_max,
            hold_seconds=settings.hold_seconds,
        ),
    )
    streams = UploadStreams(streams_max=settings.upload_streams_max, seconds_max=settings.stream_seconds_max)
    single_chunk = SingleChunkSubmitter(submitter, reader, item_bytes_max=settings.item_bytes_max)
    stream = StreamSubmitter(settings, reader, submitter, parts, upload_budget, streams, single_chunk)
    zip_spools = ZipSpools(bytes_max=settings.zip_disk_bytes_max, free_bytes_min=settings.uploads_free_bytes_min)
    submissions = SubmissionService(
        settings, reader, submitter, upload_budget, model_registry, completions, single_chunk, stream, zip_spools
    )
    return submissions, OpenJobService(settings, reader, submitter, parts, upload_budget, streams, zip_spools)
