"""Settings that the API and the workers share. Each is an environment variable of the same name in capitals."""

import logging
from base64 import b64decode
from collections.abc import Iterable
from typing import Annotated, Any, Self, TypeVar
from urllib.parse import parse_qs, quote, urlsplit

import pydantic_settings
from pydantic import (
    Field,
    RedisDsn,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from jobs.errors import SettingsError

log = logging.getLogger(__name__)

Fraction = Annotated[float, Field(gt=0, lt=1)]
Seconds = Annotated[float, Field(gt=0, le=30 * 86_400)]
Bytes = Annotated[int, Field(ge=1)]
_NAME, _VERSION = "[a-z0-9][a-z0-9._-]{0,63}", "[A-Za-z0-9._-]{1,32}"
ModelName = Annotated[str, Field(pattern=f"^{_NAME}$")]
ModelVersion = Annotated[str, Field(pattern=f"^{_VERSION}$")]
ModelRef = Annotated[str, Field(pattern=f"^{_NAME}(@{_VERSION})?$")]
"""A model's name, which means its newest version that is served, or `name@version` for one version."""
SHIPPED_MODEL = "fmnist-cnn"

RETRY_FRACTION = 0.5  # share of the record budget up to which the bytes of failed images are retained for a retry

_FORMER_DEFAULT = "its former default now always applies"
REMOVED_SETTINGS = {
    "OPEN_JOB_AT_DEADLINE": "an open job is always canceled at its deadline",
    **dict.fromkeys(
        (
            "BATCH_BYTES_MAX",
            "BATCH_ITEMS_MAX",
            "FETCH_CONNECT_SECONDS",
            "FETCH_REDIRECTS_MAX",
            "FETCH_TRIES_MAX",
            "GROUP_BYTES_MAX",
            "GROUP_SUBMITS_MAX",
            "ITEM_SCANS_MAX",
            "ITEM_SIDE_PIXELS_MAX",
            "PROGRESS_POLL_SECONDS",
            "REREAD_SECONDS",
            "RETRY_AFTER_SECONDS_MAX",
            "RETRY_FRACTION",
            "SSE_HEARTBEAT_SECONDS",
            "SWEEP_SECONDS",
            "ZIP_SPOOL_BYTES_MAX",
        ),
        _FORMER_DEFAULT,
    ),
}
"""Environment variables that were settings once, and what applies now."""

_ADVANCED: dict[str, Any] = {"tier": "advanced"}
_REDIS_URL = TypeAdapter(RedisDsn)

T = TypeVar("T")


def advanced(default: T, *, description: str) -> T:
    """A field for a setting that few operators change: it goes to the second part of docs/SETTINGS.md."""
    field: T = Field(default, description=description, json_schema_extra=_ADVANCED)
    return field


def is_advanced(field: FieldInfo) -> bool:
    return field.json_schema_extra == _ADVANCED


def _has_password(redis_url: str) -> bool:
    parts = urlsplit(redis_url)
    return bool(parts.password) or "password" in parse_qs(parts.query)


class SettingsGroup(BaseSettings):
    """Settings of one subject, read from the environment."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")


class StoreSettings(SettingsGroup):
    """Which server stores the jobs, how its memory is divided, and how long jobs stay."""

    redis_password: str | None = Field(
        None,
        repr=False,
        description="Password of the server, used if `REDIS_URL` contains none. Any characters, unescaped.",
    )
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        repr=False,
        description="URL of the Redis or Valkey server that stores the jobs: `redis://`, `rediss://` or `unix://`.",
    )
    redis_maxmemory_bytes: Bytes = Field(
        1 << 30,
        description="Memory that the server may use, in bytes; not more than its `maxmemory`, if it sets one. "
        "The budgets for uploads and for records are shares of it.",
    )
    uploads_budget_fraction: Fraction = advanced(
        0.5, description="Share of `REDIS_MAXMEMORY_BYTES` for uploads that wait to be classified."
    )
    records_budget_fraction: Fraction = advanced(
        0.3, description="Share of `REDIS_MAXMEMORY_BYTES` for job records and their results."
    )
    upload_ttl_seconds: Seconds = advanced(
        360, description="Seconds until Redis drops the bytes of an upload whose job was never accepted."
    )
    result_ttl_seconds: Seconds = Field(86_400, description="Seconds for which an ended job and its results are kept.")
    min_result_ttl_seconds: Seconds = advanced(
        600, description="Seconds for which an ended job is kept at least, even if the record budget is full."
    )
    queue_deadline_seconds: Seconds = Field(
        86_400, description="Seconds after which a job that no worker has claimed ends; its waiting items fail."
    )

    @field_validator("redis_url")
    @classmethod
    def _is_a_redis_url(cls, url: str, others: ValidationInfo) -> str:
        """The URL with the password in it, so that no other code has to combine the two."""
        if not url.startswith("unix://"):
            _REDIS_URL.validate_python(url)
        password = others.data.get("redis_password")
        if not password or _has_password(url):
            return url
        scheme, _, rest = url.partition("://")
        place, slash, path = rest.partition("/")
        user, _, host = place.rpartition("@")
        return f"{scheme}://{user.rstrip(':')}:{quote(password, safe='')}@{host}{slash}{path}"

    @model_validator(mode="after")
    def _budgets_fit(self) -> Self:
        if self.uploads_budget_fraction + self.records_budget_fraction > 0.9:
            raise ValueError(
                "uploads_budget_fraction + records_budget_fraction must not exceed 0.9 of redis_maxmemory_bytes: "
                "the rest is for leases, queues and the server itself"
            )
        if self.min_result_ttl_seconds > self.result_ttl_seconds:
            raise ValueError("min_result_ttl_seconds must not exceed result_ttl_seconds")
        return self

    @property
    def uploads_budget_bytes(self) -> int:
        return int(self.redis_maxmemory_bytes * self.uploads_budget_fraction)

    @property
    def records_budget_bytes(self) -> int:
        return int(self.redis_maxmemory_bytes * self.records_budget_fraction)

    @property
    def retry_budget_bytes(self) -> int:
        return int(self.records_budget_bytes * RETRY_FRACTION)


class S3Settings(SettingsGroup):
    """How images are read from S3 by reference."""

    s3_buckets: list[str] = Field(
        [],
        description='Buckets that `s3://` references may name, as JSON: `["photos"]`. `["*"]` allows every bucket; '
        "`[]` allows none.",
    )
    s3_endpoint_url: str | None = Field(None, description="URL of an S3-compatible server. Default: AWS.")
    s3_region: str = Field("us-east-1", description="Region of the buckets.")
    s3_access_key_id: str | None = Field(
        None, description="Access key that signs requests. Default: the machine's own role, as AWS provides it."
    )
    s3_secret_access_key: str | None = Field(None, repr=False, description="Secret of `S3_ACCESS_KEY_ID`.")
    s3_session_token: str | None = Field(
        None,
        repr=False,
        description="Session token, if `S3_ACCESS_KEY_ID` is a temporary key.",
        json_schema_extra=_ADVANCED,
    )
    s3_anonymous: bool = advanced(default=False, description="Send unsigned requests, for public buckets.")
    s3_allow_http: bool = advanced(default=False, description="Allow an `S3_ENDPOINT_URL` without TLS.")

    @model_validator(mode="after")
    def _s3_is_whole(self) -> Self:
        if (self.s3_access_key_id is None) != (self.s3_secret_access_key is None):
            raise ValueError("s3_access_key_id and s3_secret_access_key go together")
        if (self.s3_endpoint_url or "").startswith("http:") and not self.s3_allow_http:
            raise ValueError("s3_endpoint_url has no TLS: set s3_allow_http to allow that")
        return self

    def bucket_allowed(self, bucket: str) -> bool:
        return bucket in self.s3_buckets or "*" in self.s3_buckets


class WebhookSettings(SettingsGroup):
    """Which owners may use webhooks."""

    webhook_secrets: dict[str, str] = Field(
        default_factory=dict,
        repr=False,
        description='Secret that signs each owner\'s webhooks, as JSON: `{"alice": "whsec_…"}`, with 24 to 64 random '
        "bytes in base64. If `API_KEYS` is empty, the owner is `public`. Other owners cannot use webhooks.",
    )

    @field_validator("webhook_secrets")
    @classmethod
    def _secrets_are_usable(cls, secrets: dict[str, str]) -> dict[str, str]:
        for owner, secret in secrets.items():
            try:
                size = len(
                    b64decode(secret.removeprefix("whsec_"), validate=True)
                )  # the format of the Standard Webhooks specification
            except ValueError:
                size = 0
            if not secret.startswith("whsec_") or not 24 <= size <= 64:
                raise ValueError(f"the secret of {owner!r} must be whsec_ and 24 to 64 bytes in base64")
        return secrets


S = TypeVar("S", bound=BaseSettings)


def load(settings: type[S], **overrides: Any) -> S:
    """Read settings from the environment.

    Raises:
        SettingsError: with one line that names every invalid setting.
    """
    try:
        return settings(**overrides)
    except pydantic_settings.SettingsError as error:  # its cause contains the value, which may be a secret
        name = next((name for name in settings.model_fields if f'"{name}"' in str(error)), "a setting")
        raise SettingsError(f"{name.upper()}: must be valid JSON") from None
    except ValidationError as error:
        # pydantic also reports every default that it could not compute because of another invalid setting.
        problems = (problem for problem in error.errors() if problem["type"] != "default_factory_not_called")
        raise SettingsError("; ".join(_line(settings, problem) for problem in problems)) from None


def warn_of_removed_settings(environment: Iterable[str]) -> None:
    """Log one line for each variable of the environment that was a setting once."""
    for name in sorted({name.upper() for name in environment} & REMOVED_SETTINGS.keys()):
        log.warning("%s is no longer a setting and is ignored: %s", name, REMOVED_SETTINGS[name])


def _line(settings: type[BaseSettings], problem: Any) -> str:
    text = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return str(text)
    name = str(problem["loc"][0])
    field = settings.model_fields.get(name)
    shown = f" (got {problem['input']!r})" if field is not None and field.repr else ""  # repr=False marks secrets
    return f"{name.upper()}: {text}{shown}"
