"""The doorbell: a Celery message that says "there is work for this model" and carries no ids.

Celery builds it, once a model; the store's scripts then push copies of it, each with a fresh id, so that a submit
needs neither Celery nor a second round trip. The id must be fresh: kombu keeps unacknowledged deliveries by their
tag, and an ack of one would remove another.
"""

import re
from typing import Any

from celery import Celery
from kombu.connection import Connection
from kombu.messaging import Producer
from kombu.transport import virtual
from kombu.utils.json import dumps

from jobs.store.keys import DOORBELL_PLACEHOLDER, QUEUE, TASK


class _KeepingChannel(virtual.Channel):
    """Keeps the message that it is given to send."""

    do_restore = False
    kept: Any = None

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        self.kept = message

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        return True

    def _new_queue(self, queue: str, **kwargs: Any) -> None:
        """There is nothing to declare."""


class _KeepingTransport(virtual.Transport):
    Channel = _KeepingChannel
    driver_type = driver_name = "keeping"

    def establish_connection(self) -> "_KeepingTransport":
        return self

    def close_connection(self, connection: Any) -> None:
        """There is nothing to close."""


def queue_of(model: str) -> str:
    """The Celery queue whose consumers serve the model."""
    return QUEUE + model


def build_doorbell(app: Celery, model: str, task: str = TASK) -> bytes:
    """The doorbell's template: what `LPUSH`ed to the model's queue, its placeholder filled, is a task to Celery."""
    channel = Connection(transport=_KeepingTransport).channel()
    app.send_task(
        task,
        (model,),
        task_id=DOORBELL_PLACEHOLDER,
        queue=queue_of(model),
        producer=Producer(channel, auto_declare=False),
        retry=False,
        ignore_result=True,
        declare=[],
    )
    text = dumps(channel.kept)
    return re.sub(r'("delivery_tag": ?)"[^"]+"', rf'\1"{DOORBELL_PLACEHOLDER}"', text).encode()
