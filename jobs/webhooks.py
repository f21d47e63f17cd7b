"""Webhooks: which owners may use them, the event that is sent, and the record of attempts."""

from typing import Any, NamedTuple

import orjson

from jobs.errors import InvalidRequest
from jobs.ids import to_text
from jobs.links import job_path
from jobs.records import Job
from jobs.settings import WebhookSettings
from jobs.times import iso_time
from jobs.urls import is_web_url

ATTEMPTS_KEPT = 20


class Attempt(NamedTuple):
    """One call of a webhook."""

    at_ms: int
    outcome: int | str
    """The HTTP status of the response, or why there was none."""
    duration_ms: int

    @property
    def delivered(self) -> bool:
        return isinstance(self.outcome, int) and 200 <= self.outcome < 300


def check_webhook(url: str, owner: str, settings: WebhookSettings) -> None:
    """Whether a job of this owner may have this webhook. Where it leads is checked when it is called.

    Raises:
        InvalidRequest: it is no URL, or there is no secret to sign with.
    """
    if not is_web_url(url):
        raise InvalidRequest("webhook_url: must be an http or https URL without credentials.")
    if owner not in settings.webhook_secrets:
        raise InvalidRequest("webhook_url: this owner has no signing secret; the operator sets WEBHOOK_SECRETS.")


def event(job: Job, root_path: str) -> dict[str, Any]:
    """The event that the webhook of an ended job receives; the same for each attempt."""
    job_id = to_text(job.id)
    path = job_path(job_id, root_path)
    return {
        "type": f"job.{job.state}",
        "timestamp": iso_time(job.ended_ms),
        "data": {
            "id": job_id,
            "status": job.state,
            "model": job.model,
            "created_at": iso_time(job.accepted_ms),
            "completed_at": iso_time(job.ended_ms),
            "counts": {
                "total": job.total,
                "succeeded": job.succeeded,
                "failed": job.failed,
                "canceled": job.canceled,
            },
            "links": {"self": path, "results": f"{path}/results"},
        },
    }


def attempts_from(data: bytes | None) -> list[Attempt]:
    """The attempts in a job's hash, as `webhook.lua` writes them."""
    return [Attempt(*attempt) for attempt in orjson.loads(data or b"[]")]
