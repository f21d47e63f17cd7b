"""The outbound worker's settings. Each is an environment variable of the same name in capitals."""

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Self

from pydantic import Field, model_validator

from jobs.links import LinkSettings
from jobs.records import REFERENCES_MAX
from jobs.settings import BucketSettings, Bytes, Seconds, WebhookSettings, advanced
from worker.settings import LeasingSettings


class FetchSettings(BucketSettings):
    """Which images are fetched by reference, and within which limits."""

    item_bytes_max: Bytes = Field(10 << 20, description="Maximum bytes of one image.")
    fetch_concurrency: Annotated[int, Field(ge=1, le=1024)] = Field(
        32,
        description="Maximum images that one outbound process fetches at the same time, and webhooks that it calls; "
        "each image may take `ITEM_BYTES_MAX` of memory.",
    )
    fetch_allow_hosts: list[str] = Field(
        [],
        description='Host names that may be contacted at any address, as JSON: `["images.internal"]`. Applies to '
        "webhooks, too.",
    )
    fetch_allow_networks: list[IPv4Network | IPv6Network] = Field(
        [],
        description='Non-public networks that may be contacted, as JSON: `["10.1.0.0/16"]`. Applies to webhooks, too.',
    )
    fetch_seconds_max: Seconds = advanced(
        20, description="Seconds that one image may take to fetch, including redirects and retries."
    )
    fetch_retry_seconds: Seconds = advanced(
        0.25, description="Seconds before the second try to fetch an image; the wait doubles for each further try."
    )
    fetch_host_connections: Annotated[int, Field(ge=1, le=1024)] = advanced(
        4,
        description="Connections to one host that the processes of an outbound worker have together to fetch images, "
        "at least one for each process.",
    )
    fetch_host_wait_seconds_max: Seconds = advanced(
        14,
        description="Seconds that an image may wait for one of its host's connections. If it gets none, its chunk is "
        "fetched again later, without the images that were fetched.",
    )
    fetch_host_errors_max: Annotated[int, Field(ge=1, le=1000)] = advanced(
        10, description="Failed requests in a row after which a process asks a host no more for a while."
    )
    fetch_host_pause_seconds: Seconds = advanced(
        30,
        description="Seconds for which a host is not asked after too many failures: its images fail with "
        "`fetch_failed`. A longer `Retry-After` counts more, up to an hour.",
    )


class CallSettings(WebhookSettings, LinkSettings):
    """How webhooks are called."""

    webhook_seconds_max: Seconds = advanced(10, description="Seconds that one call of a webhook may take.")
    webhook_backoff_seconds: Annotated[list[Seconds], Field(min_length=1)] = advanced(
        [5, 30, 120, 600, 1800, 3600, 7200, 14_400],
        description="Seconds to wait after each failed call of a webhook, as JSON; the last value repeats.",
    )
    webhook_give_up_seconds: Seconds = advanced(
        86_400,
        description="Seconds after the end of a job during which its webhook is retried, as long as the job is kept.",
    )


class OutboundSettings(FetchSettings, CallSettings, LeasingSettings):
    """All settings of an outbound worker."""

    outbound_children: Annotated[int, Field(ge=1, le=64)] = Field(
        2, description="Processes that fetch images and call webhooks."
    )
    outbound_slice_seconds: Seconds = advanced(
        5,
        description="Seconds for which one task goes on taking work. It then finishes what it has begun and returns to "
        "Celery.",
    )
    fetch_room_seconds_max: Seconds = advanced(
        15,
        description="Seconds that fetched images wait for space in the upload budget before they are dropped, to be "
        "fetched again later.",
    )

    @model_validator(mode="after")
    def _outbound_times_fit(self) -> Self:
        fetch = self.fetch_host_wait_seconds_max + self.fetch_seconds_max + self.fetch_room_seconds_max
        last = max(fetch, self.webhook_seconds_max)
        if not self.outbound_slice_seconds + last + self.store_timeout_seconds < self.task_time_limit_seconds:
            raise ValueError(
                "outbound_slice_seconds + fetch_host_wait_seconds_max + fetch_seconds_max + fetch_room_seconds_max + "
                "store_timeout_seconds, and the same with webhook_seconds_max, must be less than "
                "task_time_limit_seconds"
            )
        if not self.outbound_slice_seconds + self.webhook_seconds_max < self.watchdog_seconds:
            raise ValueError("outbound_slice_seconds + webhook_seconds_max must be less than watchdog_seconds")
        return self

    @model_validator(mode="after")
    def _a_chunk_fits_the_upload_budget(self) -> Self:
        if REFERENCES_MAX * self.item_bytes_max > self.uploads_budget_bytes:
            raise ValueError(
                f"{REFERENCES_MAX} × item_bytes_max must fit into uploads_budget_fraction of redis_maxmemory_bytes: "
                "so many images are fetched together"
            )
        return self
