"""What `GET /v1/server` shows: the version, the limits, and how busy the server is. Nothing of any owner."""

import asyncio
import math
from typing import Any

from api.drain_rate import DrainRate
from api.settings import ApiSettings
from jobs import VERSION
from jobs.image_formats import ALWAYS
from jobs.records import Lane
from jobs.store.for_api.client import StoreClient
from jobs.store.for_api.model_registry import ModelRegistry
from jobs.store.for_api.queue_reader import QueueReader
from jobs.store.queue_reading import UsedBytes, Waiting
from jobs.times import iso_time

_KEPT_SECONDS = 1.0  # however often it is asked for, Redis is read once in this time


class ServerStatus:
    """Of one API process."""

    def __init__(
        self, settings: ApiSettings, client: StoreClient, model_registry: ModelRegistry, drain_rate: DrainRate
    ) -> None:
        self._settings = settings
        self._client = client
        self._queue = QueueReader(client)
        self._model_registry = model_registry
        self._drain_rate = drain_rate
        self._lock = asyncio.Lock()
        self._view: dict[str, Any] = {}
        self._read_at = -math.inf

    async def view(self) -> dict[str, Any]:
        """At most a second old. Raises StoreUnavailable."""
        now = asyncio.get_running_loop().time
        async with self._lock:
            if now() - self._read_at > _KEPT_SECONDS:
                self._view = await self._read()
                self._read_at = now()
            return self._view

    async def _read(self) -> dict[str, Any]:
        settings, registry = self._settings, self._model_registry
        waiting = await self._queue.waiting(await registry.refs())
        used = await self._queue.used_bytes()
        known = await registry.knows(settings.default_model)
        return {
            "version": VERSION,
            "time": iso_time(int(self._client.now_ms())),
            "default_model": settings.default_model if known else None,
            "limits": {
                "image_bytes_max": settings.item_bytes_max,
                "items_max": settings.job_items_max,
                "open_job_idle_seconds": settings.open_job_seconds_max,
                "results_kept_seconds": settings.result_ttl_seconds,
                "formats": [*ALWAYS, *settings.image_formats],
            },
            "queue": {lane.value: self._lane_view(waiting[lane]) for lane in Lane},
            "images_per_second": round(self._drain_rate.images_per_second, 1),
            "workers": registry.workers,
            "budgets": {
                "uploads": self._uploads_view(used),
                "records": {"used_bytes": used.records, "bytes_max": settings.records_budget_bytes},
            },
        }

    def _lane_view(self, waiting: Waiting) -> dict[str, Any]:
        since = waiting.since_ms
        seconds = None if since is None else round(max(0.0, self._client.now_ms() - since) / 1000, 1)
        return {"images": waiting.images, "oldest_seconds": seconds}

    def _uploads_view(self, used: UsedBytes) -> dict[str, int]:
        """The budget in Redis, or that of files outside it if that is fuller."""
        views = [{"used_bytes": used.uploads, "bytes_max": self._settings.uploads_budget_bytes}]
        if self._settings.uploads_url != "redis:":
            views.append({"used_bytes": used.spooled, "bytes_max": self._settings.uploads_spool_bytes_max})
        return max(views, key=lambda it: it["used_bytes"] / it["bytes_max"])
