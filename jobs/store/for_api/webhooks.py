"""The state of a job's webhook, as the API reads it."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from jobs.records import Job
from jobs.store import keys
from jobs.store.for_api.client import StoreClient
from jobs.store.job_hash import job_key
from jobs.webhooks import Attempt, attempts_from


class WebhookState(StrEnum):
    NONE = "none"
    PENDING = "pending"
    DELIVERED = "delivered"
    GAVE_UP = "gave_up"


class Webhook(NamedTuple):
    """The state of a job's webhook."""

    url: str | None
    state: WebhookState
    next_ms: int | None
    """When it is called next, in Redis time; None if that is not known yet, or never."""
    attempts: list[Attempt]
    """The last ones, oldest first."""


async def read_webhook(client: StoreClient, job: Job) -> Webhook:
    """The current state of a job's webhook.

    Raises:
        StoreUnavailable
    """
    fields: Sequence[bytes | None]
    names = (keys.FIELDS["webhook_url"], keys.FIELDS["webhook_attempts"])
    fields, due = await client.read(("HMGET", job_key(job.id), *names), ("ZSCORE", keys.WEBHOOKS_DUE, job.id))
    url, attempts = fields[0], attempts_from(fields[1])
    if url is None:
        return Webhook(None, WebhookState.NONE, None, [])
    if due is not None or not job.state.ended:
        return Webhook(url.decode(), WebhookState.PENDING, None if due is None else int(float(due)), attempts)
    delivered = bool(attempts) and attempts[-1].delivered
    return Webhook(url.decode(), WebhookState.DELIVERED if delivered else WebhookState.GAVE_UP, None, attempts)
