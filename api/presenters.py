"""Converts jobs, items and models into the JSON that clients get."""

from collections.abc import Callable
from typing import Any

from api.drain_rate import DrainRate
from api.settings import ApiSettings
from jobs.ids import to_text
from jobs.links import job_path
from jobs.model_manifest import ModelCard
from jobs.records import UNFAMILIAR, Failure, Item, Job, JobState, Unfamiliar
from jobs.store.for_api.model_registry import ModelRegistry
from jobs.store.keys import Heartbeat
from jobs.times import iso_time

CONFIDENCE_DIGITS = 6
NOT_SERVED = "No worker serves this model at the moment: the job waits for one."
ETA_FRACTION = 0.02  # of a job's images: with fewer done, its own rate is too uncertain


class JobPresenter:
    def __init__(
        self,
        settings: ApiSettings,
        model_registry: ModelRegistry,
        drain_rate: DrainRate,
        now_ms: Callable[[], float],
    ) -> None:
        self._result_ttl_ms = int(settings.result_ttl_seconds * 1000)
        self._root_path = settings.root_path
        self._model_registry = model_registry
        self._drain_rate = drain_rate
        self._now_ms = now_ms

    async def job(self, job: Job) -> dict[str, Any]:
        job_id = to_text(job.id)
        path = job_path(job_id, self._root_path)
        view: dict[str, Any] = {
            "id": job_id,
            "status": job.state,
            "model": job.model,
            "lane": job.lane,
            "created_at": iso_time(job.accepted_ms),
            "completed_at": iso_time(job.ended_ms),
            "expires_at": None if job.ended_ms is None else iso_time(job.ended_ms + self._result_ttl_ms),
            "counts": {
                "total": job.total,
                "pending": job.pending,
                "succeeded": job.succeeded,
                "failed": job.failed,
                "canceled": job.canceled,
            },
            "eta_seconds": self._eta_seconds(job),
            "links": {"self": path, "results": f"{path}/results", "events": f"{path}/events"},
        }
        if not job.state.ended and not self._model_registry.is_served(job.model):
            view["notice"] = NOT_SERVED
        if job.skipped:
            view["skipped"] = job.skipped
        if job.retry_of is not None:
            view["retry_of"] = to_text(job.retry_of)
        if job.single_item is not None:
            view["result"] = await self.item(job.single_item)
        return view

    def _eta_seconds(self, job: Job) -> float | None:
        """From the job's own rate once enough images are done, else from the drain rate; None if that is unknown."""
        if job.state.ended or job.state is JobState.OPEN:
            return None
        done = job.succeeded + job.failed
        if job.started_ms is not None and done >= max(1, job.total * ETA_FRACTION):
            seconds = max(0.001, (self._now_ms() - job.started_ms) / 1000)
            return round(job.unfinished * seconds / done, 1)
        if self._drain_rate.images_per_second < 1:
            return None
        return round(job.unfinished / self._drain_rate.images_per_second, 1)

    async def item(self, item: Item) -> dict[str, Any]:
        view: dict[str, Any] = {"index": item.index, "name": item.name, "status": item.state}
        if isinstance(item.outcome, Failure):
            view["error"] = {"code": item.outcome.code, "detail": item.outcome.detail}
        elif item.outcome is not None and item.model_ref is not None:
            classes = (await self._model_registry.card(item.model_ref)).classes
            ranked = [
                {"class": classes[index], "confidence": round(confidence, CONFIDENCE_DIGITS)}
                for index, confidence in item.outcome
            ]
            view |= {**ranked[0], "model": item.model_ref, "top_k": ranked}
            if isinstance(item.outcome, Unfamiliar):
                view["warnings"] = [UNFAMILIAR]
        return view


def model_view(
    card: ModelCard, serving: list[Heartbeat], paces: list[dict[str, Any]], *, default: bool
) -> dict[str, Any]:
    """`serving` has the heartbeats of the processes that serve this version, `paces` what they have measured."""
    workers = {it.worker_id for it in serving}
    return {
        "id": card.ref,
        **card.model_dump(),
        "default": default,
        "serving": {"workers": len(workers), "processes": len(serving)},
        "paces": paces,
    }
