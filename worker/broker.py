"""How the worker listens for doorbells: Celery's connection to Redis, without what assumes that messages matter.

A doorbell may be lost at any time, since the sweep rings again for what waits. So no copy of it is kept in Redis while
it is at work: such copies would be plain writes, which a full Redis refuses, and a refused one ends a Celery worker.
But only a worker that goes on makes room.
"""

import time
from collections.abc import Callable
from typing import Any

from celery.app.amqp import AMQP
from kombu.connection import Connection
from kombu.transport import redis

RECONNECT_SECONDS = 1
LOG_SECONDS = 10


class DoorbellChannel(redis.Channel):
    ack_emulation = False  # no `unacked` keys
    supports_fanout = False  # no table of bindings: bells are pushed to their queue by its name
    do_restore = False  # nothing is pushed back when the connection ends

    def _restore(self, message: Any, leftmost: bool = False) -> None:  # noqa: FBT001, FBT002 - as kombu calls it
        """Nor when a bell still comes from a queue that was left."""


class DoorbellTransport(redis.Transport):
    Channel = DoorbellChannel


class DoorbellConnection(Connection):
    def get_transport_cls(self) -> type[DoorbellTransport]:
        return DoorbellTransport

    def ensure_connection(
        self, errback: Callable[[Exception, float], None], max_retries: int | None = None, **options: Any
    ) -> "DoorbellConnection":
        """Try each second; Celery would wait for up to 30 s between two tries. Log only some of them."""
        said = -float("inf")

        def say(error: Exception, interval: float) -> None:
            nonlocal said
            if time.monotonic() - said >= LOG_SECONDS:
                said = time.monotonic()
                errback(error, interval)

        steps = {"interval_start": RECONNECT_SECONDS, "interval_step": 0, "interval_max": RECONNECT_SECONDS}
        self._ensure_connection(say, max_retries, **steps, **options)
        return self


class DoorbellAMQP(AMQP):
    Connection = DoorbellConnection
