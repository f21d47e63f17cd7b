"""The API's settings. Each is an environment variable of the same name in capitals."""

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import AliasChoices, BeforeValidator, Field, field_validator, model_validator

from jobs.image_formats import ImageFormatSettings
from jobs.links import LinkSettings
from jobs.metrics.settings import ServiceSettings
from jobs.settings import (
    SHIPPED_MODEL,
    BucketSettings,
    Bytes,
    ModelRef,
    Seconds,
    SettingsGroup,
    WebhookSettings,
    advanced,
)

Count = Annotated[int, Field(ge=1, le=10_000_000)]
_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.ASCII)
OWNER_RULE = "1 to 32 letters, digits, - or _"


def is_owner(name: str) -> bool:
    """Whether an owner may have this name: `OWNER_RULE`."""
    return name.replace("-", "").replace("_", "").isalnum() and name.isascii() and len(name) <= 32


def _first(names: object) -> object:
    return names.partition(",")[0].strip() or SHIPPED_MODEL if isinstance(names, str) else names


class ServerSettings(SettingsGroup):
    """Where the API listens, and who may call it."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: Annotated[int, Field(ge=1, le=65_535)] = Field(8000, description="Port to listen on.")
    bind: str = Field(
        "",
        description="Address of this machine on which a container's port is published, if the API runs in one: `HOST` "
        "is the container's own then. Compose publishes on it, and takes `127.0.0.1` by default.",
    )
    domain: str = Field(
        "",
        description="Name under which the edge serves the API with TLS (compose's profile `tls`).",
    )
    open_to_everybody: bool = Field(
        default=False,
        description="Start without an API key, although others can reach the API by `BIND`, `HOST` or `DOMAIN`. "
        "Everybody may then submit, read and delete all jobs.",
    )
    allowed_hosts: list[str] = advanced(
        [],
        description='Names of this server in `Host`, as JSON: `["darkroom.internal"]`. Only for a server without API '
        "keys that others cannot reach, which else answers to `localhost` and loopback addresses alone: a web page "
        "could reach it by a name of its own.",
    )
    cors_origins: list[str] = advanced(
        [],
        description="Origins whose pages may call the API from a browser (CORS), as JSON: "
        '`["https://app.example.com"]`, or `["*"]` for all.',
    )
    access_log_lines_per_second_max: Annotated[int, Field(ge=0, le=10_000)] = advanced(
        100,
        description="Lines a second, of each API process, for responses from 400 on and for requests that change "
        "something: who did what, without keys. What is left out is counted. 0 writes none.",
    )
    api_processes: Annotated[int, Field(ge=1, le=64)] = Field(1, description="API processes that share the port.")
    keep_alive_seconds: Annotated[int, Field(ge=1, le=3600)] = advanced(
        75,
        description="Seconds that an idle connection stays open: longer than a load balancer in front keeps it, often "
        "60, or it sends a request into a connection that has just been closed.",
    )
    api_keys: dict[str, str] = Field(
        default_factory=dict,
        repr=False,
        description='API key of each owner, as JSON: `{"alice": "a-long-random-key"}`. Managed keys stand beside '
        "them: see [API keys](../KEYS.md). On a server without any key, calls need none and all jobs belong to the "
        "owner `public`.",
    )

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} must be an origin like https://app.example.com, in small letters, or *")
        return origins

    @field_validator("api_keys")
    @classmethod
    def _keys_are_usable(cls, api_keys: dict[str, str]) -> dict[str, str]:
        for owner, key in api_keys.items():
            if not is_owner(owner):
                raise ValueError(f"owner {owner!r} must be {OWNER_RULE}")
            if len(key) < 16:
                raise ValueError(f"the key of {owner!r} must have at least 16 characters")
            if not key.isascii() or not key.isprintable() or key != key.strip():
                raise ValueError(f"the key of {owner!r} must be printable ASCII characters, without spaces around it")
        if len(set(api_keys.values())) < len(api_keys):
            raise ValueError("two owners share a key")
        return api_keys


class ConnectionSettings(SettingsGroup):
    """Limits of one API process for connections and requests, before an API key is looked at."""

    request_url_bytes_max: Count = advanced(8 << 10, description="Maximum bytes of a request's URL.")
    request_headers_max: Count = advanced(100, description="Maximum number of a request's headers.")
    request_headers_bytes_max: Count = advanced(32 << 10, description="Maximum bytes of a request's headers.")
    request_first_byte_seconds_max: Seconds = advanced(
        10, description="Seconds after which a new connection is closed if nothing has arrived on it."
    )
    request_head_seconds_max: Seconds = advanced(
        20,
        description="Seconds that a request's URL and headers may take from their first byte on, and the rest of a "
        "body that is not read because the response has been sent.",
    )
    pipelined_requests_max: Count = advanced(
        64,
        description="Requests that wait on one connection for the response to an earlier one. More are read later.",
    )
    connections_max: Count = advanced(
        10_000, description="Maximum open connections of one API process; fewer if it may not open so many files."
    )
    connections_per_address_max: Count = advanced(
        5000,
        description="Maximum open connections from one address (IPv6: one /64 network), and at most half of "
        "`CONNECTIONS_MAX`. Behind a proxy, all connections have its address.",
    )
    response_idle_seconds_max: Seconds = advanced(
        60, description="Seconds over which `RESPONSE_BYTES_PER_SECOND_MIN` is judged while a client is behind."
    )
    response_bytes_per_second_min: Count = advanced(
        1000, description="Bytes a second that a client reads at least while a response waits for it, or it is cut off."
    )


class ModelSettings(SettingsGroup):
    """Which models the API knows."""

    default_model: Annotated[ModelRef, BeforeValidator(_first)] = Field(
        SHIPPED_MODEL,
        validation_alias=AliasChoices("default_model", "model", "models"),
        description="Model for a submit that names none. If unset: `MODEL`, or the first of `MODELS`, as set for the "
        "worker.",
    )
    models_dir: Path = Field(
        Path("weights"), description="Folder of model packages. The API knows their manifests before a worker starts."
    )


class JobSettings(SettingsGroup):
    """How large a job and an owner's backlog may become."""

    job_items_max: Count = Field(1_000_000, description="Maximum images in one job.")
    owner_pending_items_max: Count = Field(
        2_000_000, description="Maximum images of one owner that wait or are being classified."
    )
    open_job_seconds_max: Seconds = advanced(
        3600, description="Seconds that an open job waits for its next part before it is canceled."
    )


class UploadSettings(SettingsGroup):
    """Limits of one upload: one image, or an archive or form with many."""

    item_bytes_max: Bytes = Field(10 << 20, description="Maximum bytes of one image.")
    upload_bytes_max: Bytes = Field(64 << 30, description="Maximum bytes of one upload of many images, as sent.")
    archive_inflated_bytes_max: Bytes = advanced(64 << 30, description="Maximum bytes of an archive after unpacking.")
    archive_ratio_max: Annotated[float, Field(ge=1, le=100_000)] = advanced(
        200, description="Maximum ratio of unpacked to packed bytes, of an archive or of one zip entry."
    )
    archive_name_bytes_max: Count = advanced(
        4096, description="Maximum bytes of the path of an archive's entry. An image with a longer one fails."
    )
    archive_header_bytes_max: Bytes = advanced(
        64 << 10, description="Maximum bytes of one extended header of a tar (PAX, or GNU's long names)."
    )
    archive_header_records_max: Count = advanced(
        1000, description="Maximum records of one PAX header of a tar; most have fewer than 20."
    )
    zip_bytes_max: Bytes = advanced(
        4 << 30, description="Maximum bytes of a zip; unlike a tar, it is spooled to disk before it is read."
    )
    zip_disk_bytes_max: Bytes = advanced(
        8 << 30,
        description="Maximum bytes of all zips that one API process has spooled (in `TMPDIR`), at least twice "
        "`ZIP_BYTES_MAX`. An owner may have half of what the others leave.",
    )
    upload_seconds_max: Seconds = advanced(300, description="Seconds that a client may take to send one image.")
    upload_idle_seconds_max: Seconds = advanced(
        60, description="Seconds without a byte from the client after which an upload is aborted."
    )
    upload_bytes_per_second_min: Count = advanced(
        100,
        description="Bytes a second that an upload brings at least, judged over `UPLOAD_IDLE_SECONDS_MAX`. Only the "
        "time for which the API waits for the client counts.",
    )
    upload_streams_max: Count = advanced(
        64,
        description="Maximum uploads of many images that one API process reads at the same time. An owner may "
        "have half of those that the others leave.",
    )
    stream_seconds_max: Seconds = advanced(
        86_400, description="Seconds that an upload of many images may take in total."
    )
    room_wait_seconds_max: Seconds = advanced(
        60,
        description="Seconds that a streaming upload waits for space in the upload budget before it is canceled.",
    )

    @model_validator(mode="after")
    def _an_image_fits_an_upload(self) -> Self:
        if self.item_bytes_max > self.upload_bytes_max:
            raise ValueError("item_bytes_max must not exceed upload_bytes_max")
        if 2 * self.zip_bytes_max > self.zip_disk_bytes_max:  # an owner's share, if nobody else uploads one
            raise ValueError("zip_bytes_max must not exceed half of zip_disk_bytes_max")
        return self


class ReferenceSettings(BucketSettings):
    """How much one job may refer to."""

    references_max: Count = advanced(
        1_000_000, description="Maximum images that one submit may refer to, including those below its S3 prefixes."
    )
    references_bytes_max: Bytes = advanced(64 << 20, description="Maximum bytes of a JSON body with references.")
    s3_list_seconds_max: Seconds = advanced(
        10, description="Seconds that S3 may take to list 1,000 objects, including retries."
    )


class ResponseSettings(SettingsGroup):
    """How long responses may take."""

    wait_seconds_max: Seconds = Field(
        30, description="Maximum seconds that a client may wait for a result with `Prefer: wait` or `?wait=`."
    )
    predict_wait_seconds: Seconds = advanced(10, description="Seconds that `/predict` waits for its result.")
    held_streams_max: Count = advanced(
        256,
        description="Maximum event streams, followed results (`?follow=true`) and results of more than 1,000 images "
        "that one API process streams at the same time. An owner may have half of those that the others leave.",
    )
    held_stream_seconds_max: Seconds = advanced(
        3600, description="Seconds after which an event stream or followed results are closed."
    )
    submit_deadline_seconds: Annotated[float, Field(gt=0, le=2.4)] = advanced(
        2, description="Seconds that Redis may take to accept a job. A submit is answered within twice this time."
    )
    retry_after_seconds: Annotated[int, Field(ge=1, le=3600)] = advanced(
        2, description="`Retry-After` of a 503 or 429, in seconds, if no better estimate is known."
    )

    @model_validator(mode="after")
    def _waits_fit(self) -> Self:
        if self.predict_wait_seconds > self.wait_seconds_max:
            raise ValueError("predict_wait_seconds must not exceed wait_seconds_max")
        return self


class ApiSettings(
    ResponseSettings,
    ReferenceSettings,
    UploadSettings,
    JobSettings,
    ModelSettings,
    ConnectionSettings,
    ServerSettings,
    LinkSettings,
    ImageFormatSettings,
    WebhookSettings,
    ServiceSettings,
):
    """All settings of the API."""

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        if self.item_bytes_max * self.api_processes > self.uploads_budget_bytes * self.uploads_bulk_fraction:
            raise ValueError(
                "item_bytes_max × api_processes must fit into uploads_bulk_fraction of uploads_budget_fraction "
                "of redis_maxmemory_bytes"
            )
        if self.uploads_url != "redis:" and (
            self.item_bytes_max > self.uploads_spool_bytes_max * self.uploads_bulk_fraction
        ):
            raise ValueError("item_bytes_max must fit into uploads_bulk_fraction of uploads_spool_bytes_max")
        if self.upload_seconds_max + 2 * self.submit_deadline_seconds >= self.upload_ttl_seconds:
            raise ValueError("upload_seconds_max + 2 × submit_deadline_seconds must be less than upload_ttl_seconds")
        return self

    @property
    def hold_seconds(self) -> float:
        """Seconds for which an unfinished part belongs to the process that reads it, without a write to the store."""
        return self.upload_idle_seconds_max + self.room_wait_seconds_max + 2 * self.submit_deadline_seconds + 5
