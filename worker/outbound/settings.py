"""The outbound worker's settings. Each is an environment variable of the same name in capitals."""

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Self

from pydantic import Field, model_validator

from jobs.records import REFERENCES_MAX
from jobs.settings import Bytes, S3Settings, Seconds, WebhookSettings
from worker.settings import LeasingSettings


class FetchSettings(S3Settings):
    """What is fetched from others' servers, and within which limits."""

    item_bytes_max: Bytes = Field(10 << 20, description="Bytes of one image.")
    fetch_concurrency: Annotated[int, Field(ge=1, le=1024)] = Field(
        32,
        description="Images that one outbound process fetches at once, and webhooks that it calls; each image may take "
        "`ITEM_BYTES_MAX` of its memory.",
    )
    fetch_seconds_max: Seconds = Field(20, description="How long one image may take, redirects and tries included.")
    fetch_connect_seconds: Seconds = Field(5, description="How long one connection may take to be made.")
    fetch_tries_max: Annotated[int, Field(ge=1, le=10)] = Field(
        3, description="Tries of one image after connections that failed, and after 429 and 5xx."
    )
    fetch_retry_seconds: Seconds = Field(0.25, description="The wait before the second try; it doubles each time.")
    fetch_redirects_max: Annotated[int, Field(ge=0, le=20)] = Field(5, description="Redirects that are followed.")
    fetch_allow_hosts: list[str] = Field(
        [],
        description='Host names that may have any address, as JSON: ["images.internal"]. '
        "What is allowed here holds for webhooks, too.",
    )
    fetch_allow_networks: list[IPv4Network | IPv6Network] = Field(
        [], description='Networks that are spoken to though they are not public, as JSON: ["10.1.0.0/16"].'
    )


class CallSettings(WebhookSettings):
    """How webhooks are called."""

    webhook_seconds_max: Seconds = Field(10, description="How long one call of a webhook may take.")
    webhook_backoff_seconds: Annotated[list[Seconds], Field(min_length=1)] = Field(
        [5, 30, 120, 600, 1800, 3600, 7200, 14_400],
        description="The waits after calls of a webhook that failed, as JSON; the last one repeats.",
    )
    webhook_give_up_seconds: Seconds = Field(
        86_400, description="How long after the job's end its webhook is still called; or as long as the job is kept."
    )


class OutboundSettings(FetchSettings, CallSettings, LeasingSettings):
    outbound_children: Annotated[int, Field(ge=1, le=64)] = Field(
        2, description="Processes that fetch images and call webhooks."
    )
    outbound_slice_seconds: Seconds = Field(
        5, description="How long one task goes on taking work before it ends what it has begun and returns to Celery."
    )
    fetch_room_seconds_max: Seconds = Field(
        15, description="How long fetched images wait for room among the uploads before they are given up for now."
    )

    @model_validator(mode="after")
    def _outbound_times_fit(self) -> Self:
        last = max(self.fetch_seconds_max + self.fetch_room_seconds_max, self.webhook_seconds_max)
        if not self.outbound_slice_seconds + last + self.store_timeout_seconds < self.task_time_limit_seconds:
            raise ValueError(
                "outbound_slice_seconds + fetch_seconds_max + fetch_room_seconds_max + store_timeout_seconds, and the "
                "same with webhook_seconds_max, must be less than task_time_limit_seconds"
            )
        if not self.outbound_slice_seconds + self.webhook_seconds_max < self.watchdog_seconds:
            raise ValueError("outbound_slice_seconds + webhook_seconds_max must be less than watchdog_seconds")
        return self

    @model_validator(mode="after")
    def _a_chunk_has_room(self) -> Self:
        if REFERENCES_MAX * self.item_bytes_max > self.uploads_budget_bytes:
            raise ValueError(
                f"{REFERENCES_MAX} × item_bytes_max must fit into uploads_budget_fraction of redis_maxmemory_bytes: "
                "so many images are fetched together"
            )
        return self
