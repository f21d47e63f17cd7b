"""A web server for outbound workers: pictures, and a receiver of webhooks. Both fail now and then."""

import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.support.outbound import SECRET

PICTURE_FAILURE_SHARE = 0.02
WEBHOOK_FAILURE_SHARE = 0.2


class Site:
    def __init__(self, pictures: Sequence[bytes], random_source: random.Random) -> None:
        self._pictures = pictures
        self._random = random_source
        self.url = ""
        self.called = dict[str, list[str]]()
        """For each job whose webhook was taken, the statuses that it was called with."""
        self.forged = 0
        """Calls of the webhook without a valid signature."""
        self._secret = Webhook(SECRET)
        self.requests = Counter[str]()

    def picture(self, number: int) -> str:
        return f"{self.url}/picture/{number}.png"

    @property
    def missing(self) -> str:
        """The URL of a picture that is not there."""
        return f"{self.url}/missing.png"

    @property
    def webhook(self) -> str:
        return f"{self.url}/webhook"

    async def _picture(self, request: web.Request) -> web.Response:
        self.requests["pictures"] += 1
        if self._random.random() < PICTURE_FAILURE_SHARE:
            return web.Response(status=503)
        return web.Response(body=self._pictures[int(request.match_info["number"])], content_type="image/png")

    async def _webhook(self, request: web.Request) -> web.Response:
        self.requests["webhooks"] += 1
        try:
            body = self._secret.verify(await request.read(), {name.lower(): it for name, it in request.headers.items()})
        except WebhookVerificationError:
            self.forged += 1
            return web.Response(status=401)
        if self._random.random() < WEBHOOK_FAILURE_SHARE:
            return web.Response(status=500)
        job = body["data"]
        self.called.setdefault(job["id"], []).append(job["status"])
        return web.Response(status=204)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve on a free port of 127.0.0.1."""
        application = web.Application()
        application.router.add_get(r"/picture/{number:\d+}.png", self._picture)
        application.router.add_post("/webhook", self._webhook)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        place = web.TCPSite(runner, "127.0.0.1", 0)
        await place.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield
        finally:
            await runner.cleanup()
