"""Calls webhooks in the form of Standard Webhooks (https://www.standardwebhooks.com)."""

import asyncio
import time
from datetime import UTC, datetime

import aiohttp
import orjson
from standardwebhooks.webhooks import Webhook as Signer
from yarl import URL

from jobs.ids import to_text
from jobs.store.for_workers.outbound import Due
from jobs.webhooks import Attempt, event
from worker.outbound.settings import CallSettings
from worker.outbound.web import CheckedHttp, is_forbidden

_GONE = 410  # the receiver no longer exists


class WebhookCaller:
    def __init__(self, settings: CallSettings, http: CheckedHttp) -> None:
        self._settings = settings
        self._http = http

    async def call(self, due: Due) -> Attempt:
        """Call the webhook once. No redirect is followed, and only the status of the response is read."""
        at = datetime.now(UTC)
        started = time.monotonic()
        outcome = await self._post(due, at)
        return Attempt(int(at.timestamp() * 1000), outcome, int((time.monotonic() - started) * 1000))

    def again_seconds(self, due: Due, attempt: Attempt) -> float | None:
        """Seconds until the next call after this attempt, or None if there is none."""
        if attempt.delivered or attempt.outcome == _GONE:
            return None
        waits = self._settings.webhook_backoff_seconds
        wait = waits[min(len(due.attempts), len(waits) - 1)]
        since_end = attempt.at_ms / 1000 - (due.job.ended_ms or 0) / 1000
        return wait if since_end + wait <= self._settings.webhook_give_up_seconds else None

    async def _post(self, due: Due, at: datetime) -> int | str:
        secret = self._settings.webhook_secrets.get(due.job.owner)
        if secret is None:
            return "no_secret"
        job_id = to_text(due.job.id)
        body = orjson.dumps(event(due.job, self._settings.root_path))
        headers = {
            "Content-Type": "application/json",
            "webhook-id": job_id,  # the same in each call: the receiver recognises repeats by it
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Signer(secret).sign(job_id, at, body.decode()),
        }
        try:
            url = URL(due.url, encoded=due.url.isascii())
            async with (
                asyncio.timeout(self._settings.webhook_seconds_max),
                self._http.request("POST", url, data=body, headers=headers) as response,
            ):
                return response.status
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            if isinstance(error, TimeoutError):
                return "timeout"
            return "forbidden_address" if is_forbidden(error) else "connection_failed"
