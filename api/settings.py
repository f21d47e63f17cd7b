"""The API's settings. Each is an environment variable of the same name in capitals."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, field_validator, model_validator

from jobs.settings import SHIPPED_MODEL, Bytes, Fraction, ModelRef, S3Settings, Seconds, StoreSettings, WebhookSettings

Count = Annotated[int, Field(ge=1, le=10_000_000)]
OWNER_OF_ALL = "public"


def _first(names: object) -> object:
    return names.partition(",")[0].strip() or SHIPPED_MODEL if isinstance(names, str) else names


class ReferenceSettings(S3Settings):
    """How much one job may refer to."""

    references_max: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        1_000_000, description="Images that one submit may refer to, those below its prefixes included."
    )
    references_bytes_max: Bytes = Field(64 << 20, description="Bytes of a JSON body with references.")
    s3_list_seconds_max: Seconds = Field(10, description="How long S3 may take to list 1,000 objects, tries included.")


class ApiSettings(ReferenceSettings, WebhookSettings, StoreSettings):
    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: Annotated[int, Field(ge=1, le=65_535)] = Field(8000, description="The port to listen on.")
    api_processes: Annotated[int, Field(ge=1, le=64)] = Field(1, description="API processes that share the port.")
    api_keys: dict[str, str] = Field(
        default_factory=dict,
        repr=False,
        description='Owner to API key, as JSON: {"alice": "a-long-random-key"}. Empty: everybody may call, '
        "and all jobs belong to one owner.",
    )
    default_model: Annotated[ModelRef, BeforeValidator(_first)] = Field(
        SHIPPED_MODEL,
        validation_alias=AliasChoices("default_model", "model", "models"),
        description="The model of a submit that names none; else `MODEL`, or the first of `MODELS`, as for the worker.",
    )
    models_dir: Path = Field(Path("weights"), description="Model packages whose manifests are known from the start.")
    item_bytes_max: Bytes = Field(10 << 20, description="Bytes of one image.")
    upload_bytes_max: Bytes = Field(64 << 30, description="Bytes of one upload of many images, as they are sent.")
    archive_inflated_bytes_max: Bytes = Field(64 << 30, description="Bytes of an archive, unpacked.")
    archive_ratio_max: Annotated[float, Field(ge=1, le=100_000)] = Field(
        200, description="How many times its bytes an archive, or one entry of a zip, may unpack to."
    )
    zip_bytes_max: Bytes = Field(4 << 30, description="Bytes of a zip, which is kept on the disk until it is read.")
    zip_spool_bytes_max: Bytes = Field(8 << 20, description="Bytes of a zip that are kept in memory, not on the disk.")
    upload_seconds_max: Seconds = Field(300, description="How long a client may take to send one image.")
    upload_idle_seconds_max: Seconds = Field(
        60, description="How long an upload may bring nothing before it is broken."
    )
    upload_streams_max: Count = Field(64, description="Uploads of many images that a process reads at a time.")
    stream_seconds_max: Seconds = Field(86_400, description="How long an upload of many images may take in all.")
    room_wait_seconds_max: Seconds = Field(
        60, description="How long such an upload is not read on while there is no room; then it is canceled."
    )
    job_items_max: Count = Field(1_000_000, description="Images of one job.")
    open_job_seconds_max: Seconds = Field(3600, description="How long an open job waits for its next part.")
    open_job_at_deadline: Literal["seal", "cancel"] = Field(
        "cancel", description="What becomes of an open job that waited for too long: `seal` or `cancel`."
    )
    uploads_bulk_fraction: Fraction = Field(
        0.8, description="Share of the uploads' budget that bulk jobs may fill; the rest is for single uploads."
    )
    owner_pending_items_max: Count = Field(2_000_000, description="Items of one owner that may wait or run.")
    wait_seconds_max: Seconds = Field(30, description="The longest that a client may have an answer held.")
    held_streams_max: Count = Field(
        256, description="Followed results and event streams that a process holds at a time."
    )
    held_stream_seconds_max: Seconds = Field(3600, description="How long one of them may last.")
    progress_poll_seconds: Seconds = Field(0.25, description="How often they look for progress.")
    sse_heartbeat_seconds: Seconds = Field(15, description="How long an event stream may be silent.")
    predict_wait_seconds: Seconds = Field(10, description="How long /predict waits for its result.")
    submit_deadline_seconds: Annotated[float, Field(gt=0, le=2.4)] = Field(
        2, description="How long Redis may take to accept a job. Twice this bounds the answer to a submit."
    )
    group_submits_max: Annotated[int, Field(ge=1, le=1024)] = Field(64, description="Submits of one round trip.")
    group_bytes_max: Bytes = Field(1 << 20, description="Bytes of one round trip; a larger submit goes alone.")
    reread_seconds: Seconds = Field(2, description="How often held answers are looked up, should a notice be lost.")
    retry_after_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        2, description="What a client is told to wait after a 503 or 429, where nothing better is known."
    )
    retry_after_seconds_max: Annotated[int, Field(ge=1, le=3600)] = Field(
        60, description="The most that a client is told to wait for room; how long is told from what drains now."
    )

    @field_validator("api_keys")
    @classmethod
    def _keys_are_usable(cls, api_keys: dict[str, str]) -> dict[str, str]:
        for owner, key in api_keys.items():
            if not owner.replace("-", "").replace("_", "").isalnum() or not owner.isascii() or len(owner) > 32:
                raise ValueError(f"owner {owner!r} must be 1 to 32 letters, digits, - or _")
            if len(key) < 16:
                raise ValueError(f"the key of {owner!r} must have at least 16 characters")
        if len(set(api_keys.values())) < len(api_keys):
            raise ValueError("two owners share a key")
        return api_keys

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        if self.item_bytes_max > self.upload_bytes_max:
            raise ValueError("item_bytes_max must not exceed upload_bytes_max")
        if self.item_bytes_max * self.api_processes > self.uploads_budget_bytes * self.uploads_bulk_fraction:
            raise ValueError(
                "item_bytes_max × api_processes must fit into uploads_bulk_fraction of uploads_budget_fraction "
                "of redis_maxmemory_bytes"
            )
        if self.upload_seconds_max + 2 * self.submit_deadline_seconds >= self.upload_ttl_seconds:
            raise ValueError("upload_seconds_max + 2 × submit_deadline_seconds must be less than upload_ttl_seconds")
        if self.predict_wait_seconds > self.wait_seconds_max:
            raise ValueError("predict_wait_seconds must not exceed wait_seconds_max")
        return self

    @property
    def hold_seconds(self) -> float:
        """For how long an upload belongs to the process that reads it, without a sign of life in the store."""
        return self.upload_idle_seconds_max + self.room_wait_seconds_max + 2 * self.submit_deadline_seconds + 5
