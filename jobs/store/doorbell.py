"""The doorbell: a Celery message that says "there is work for this model" and carries no ids.

Celery builds it once for each model. The store's scripts push copies of it, each with a new id, so that a submit needs
neither Celery nor a second round trip. The ids must differ: kombu keeps unacknowledged deliveries by their tag, and the
acknowledgement of one would remove another.
"""

import re
from typing import Any

from celery import Celery
from kombu.connection import Connection
from kombu.messaging import Producer
from kombu.transport import virtual
from kombu.utils.json import dumps

from jobs.store.keys import DOORBELL_PLACEHOLDER, QUEUE, TASK


class _CapturingChannel(virtual.Channel):
    """Captures the message instead of sending it."""

    do_restore = False
    message: Any = None

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        self.message = message

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        return True

    def _new_queue(self, queue: str, **kwargs: Any) -> None:
        """Declares nothing."""


class _CapturingTransport(virtual.Transport):
    Channel = _CapturingChannel
    driver_type = driver_name = "capturing"

    def establish_connection(self) -> "_CapturingTransport":
        return self

    def close_connection(self, connection: Any) -> None:
        """Closes nothing."""


def queue_of(model: str) -> str:
    """The Celery queue whose consumers serve the model."""
    return QUEUE + model


def build_doorbell(app: Celery, model: str, task: str = TASK) -> bytes:
    """The doorbell's template. With its placeholder filled and pushed to the model's queue, it is a Celery task."""
    channel = Connection(transport=_CapturingTransport).channel()
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
    text = dumps(channel.message)
    return re.sub(r'("delivery_tag": ?)"[^"]+"', rf'\1"{DOORBELL_PLACEHOLDER}"', text).encode()
