"""`/v1/jobs/{id}/webhook`: the state of a job's webhook and its last attempts."""

from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from api import schemas
from api.asgi.endpoint import EndpointRoute
from api.asgi.responses import json_response
from api.routes.parameters import AppServices, JobId, Owner
from jobs.store.for_api.webhooks import Webhook, WebhookState
from jobs.times import iso_time

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=EndpointRoute)


class WebhookAttempt(BaseModel):
    """One call: the status of the response, or a stable code for why there was no response."""

    at: datetime
    status: int | None
    error: str | None
    duration_ms: int


class WebhookResource(BaseModel):
    """A job's webhook with its last 20 attempts, oldest first. A job without a webhook has the state `none`."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "url": "https://example.com/hook",
                "state": "pending",
                "next_attempt_at": "2026-11-23T10:00:05.120Z",
                "attempts": [{"at": "2026-11-23T10:00:00.100Z", "status": 503, "error": None, "duration_ms": 20}],
            }
        }
    )
    url: str | None
    state: WebhookState
    next_attempt_at: datetime | None
    attempts: list[WebhookAttempt]


@router.get(
    "/{job_id}/webhook",
    summary="The state of a job's webhook",
    response_model=WebhookResource,
    responses=schemas.responses(401, 404, 410, 503),
)
async def get_webhook(owner: Owner, job_id: JobId, services: AppServices) -> Response:
    """The URL is shown without its query, which may contain a secret."""
    job = await services.reader.get(job_id, owner)
    return json_response(_view(await services.reader.webhook(job)))


def _view(webhook: Webhook) -> dict[str, Any]:
    return {
        "url": None if webhook.url is None else urlsplit(webhook.url)._replace(query="", fragment="").geturl(),
        "state": webhook.state,
        "next_attempt_at": iso_time(webhook.next_ms),
        "attempts": [
            {
                "at": iso_time(attempt.at_ms),
                "status": attempt.outcome if isinstance(attempt.outcome, int) else None,
                "error": attempt.outcome if isinstance(attempt.outcome, str) else None,
                "duration_ms": attempt.duration_ms,
            }
            for attempt in webhook.attempts
        ],
    }
