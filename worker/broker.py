"""How a worker receives doorbells: Celery's connection to Redis, without the parts that protect messages from loss.

A doorbell may be lost at any time, because the sweep rings again for work that waits. So Redis keeps no copy of a
doorbell while its task runs: the copies would be plain writes, which a full Redis refuses, and a refused one ends a
Celery worker; but only workers that go on free memory.
"""

from collections.abc import Callable
from typing import Any

from celery.app.amqp import AMQP
from kombu.connection import Connection
from kombu.transport import redis

from jobs.logs.outage_log import OutageLog

RECONNECT_SECONDS = 1


class DoorbellChannel(redis.Channel):
    ack_emulation = False  # no `unacked` keys
    supports_fanout = False  # no table of bindings: doorbells are pushed to their queue by its name
    do_restore = False  # nothing is pushed back when the connection ends

    def _restore(self, message: Any, leftmost: bool = False) -> None:  # noqa: FBT001, FBT002 - as kombu calls it
        """Push nothing back, also if a doorbell arrives from a queue that is no longer consumed."""


class DoorbellTransport(redis.Transport):
    Channel = DoorbellChannel


class DoorbellConnection(Connection):
    def get_transport_cls(self) -> type[DoorbellTransport]:
        return DoorbellTransport

    def ensure_connection(
        self,
        errback: Callable[[Exception, float], None] | None = None,  # noqa: ARG002 - Celery's logs each attempt
        max_retries: int | None = None,
        **options: Any,
    ) -> "DoorbellConnection":
        """Try to connect each second, where Celery would wait for up to 30 s between two attempts."""
        outage = OutageLog("doorbells: waiting for Redis")
        steps = {"interval_start": RECONNECT_SECONDS, "interval_step": 0, "interval_max": RECONNECT_SECONDS}
        self._ensure_connection(lambda error, _: outage.failed(error), max_retries, **steps, **options)
        outage.recovered()
        return self


class DoorbellAMQP(AMQP):
    Connection = DoorbellConnection
