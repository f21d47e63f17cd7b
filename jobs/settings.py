"""Settings that the API and the workers share. Each is an environment variable of the same name in capitals."""

from base64 import b64decode
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import parse_qs, parse_qsl, quote, urlsplit

import pydantic_settings
from pydantic import Field, RedisDsn, TypeAdapter, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from jobs.errors import SettingsError
from jobs.urls import S3Url, s3_url

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

_ADVANCED: dict[str, Any] = {"tier": "advanced"}
_REDIS_URL = TypeAdapter(RedisDsn)
TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
"""Parameters of a `rediss://` URL."""
_TLS_ALWAYS = {"ssl_cert_reqs": ("required",), "ssl_check_hostname": ("true", "1", "yes")}  # may be given, not changed

T = TypeVar("T")


def advanced(default: T, *, description: str) -> T:
    """A field for a setting that few operators change: it goes to the second part of docs/reference/settings.md."""
    field: T = Field(default, description=description, json_schema_extra=_ADVANCED)
    return field


def is_advanced(field: FieldInfo) -> bool:
    return field.json_schema_extra == _ADVANCED


def _has_password(redis_url: str) -> bool:
    parts = urlsplit(redis_url)
    return bool(parts.password) or "password" in parse_qs(parts.query)


def _check_tls(redis_url: str) -> None:
    """redis-py and Celery would obey parameters that accept any server; the API's own connection knows none of them."""
    for name, value in parse_qsl(urlsplit(redis_url).query):
        if not name.startswith("ssl_"):
            continue
        if not redis_url.startswith("rediss://"):
            raise ValueError(f"{name} needs a URL that begins with rediss://")
        if value.lower() not in _TLS_ALWAYS.get(name, (value.lower(),)):
            raise ValueError(
                f"{name}={value} would accept any server: remove it, and name the file of the certificate's CA with "
                "ssl_ca_certs"
            )
        if name not in (*_TLS_ALWAYS, *TLS_FILES):
            raise ValueError(f"{name} is not supported; {', '.join(TLS_FILES)} are")


class SettingsGroup(BaseSettings):
    """Settings of one subject, read from the environment."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")


class S3Settings(SettingsGroup):
    """How S3 is reached, for images by reference and for uploads."""

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


class SpoolSettings(S3Settings):
    """Where the bytes of large uploads wait."""

    uploads_url: str = Field(
        "redis:",
        description="Where uploads of 64 KiB and more wait to be classified: `redis:`; `file:///path`, an existing "
        "folder that the API and all workers share; or `s3://bucket/prefix`, in a bucket that no reference may name. "
        "Smaller ones always wait in Redis.",
    )
    uploads_spool_bytes_max: Bytes = Field(
        100 << 30, description="Maximum bytes of uploads that wait outside Redis, and of failed images kept there."
    )
    uploads_free_bytes_min: Bytes = advanced(
        1 << 30,
        description="Bytes that uploads leave free on the file system of `UPLOADS_URL`, and zips on that of `TMPDIR`.",
    )

    @field_validator("uploads_url")
    @classmethod
    def _is_a_place(cls, url: str) -> str:
        parts = urlsplit(url)
        if url == "redis:" or (parts.scheme == "file" and not parts.netloc and len(parts.path) > 1) or s3_url(url):
            return url
        raise ValueError("must be redis:, file:///path with three slashes, or s3://bucket/prefix")

    @model_validator(mode="after")
    def _uploads_are_signed(self) -> Self:
        if self.uploads_place is not None and self.s3_anonymous:
            raise ValueError("s3_anonymous must not be set if uploads_url is an s3:// URL")
        return self

    @property
    def uploads_place(self) -> S3Url | None:
        """Where in S3 large uploads wait; None if they wait elsewhere."""
        return s3_url(self.uploads_url)

    @property
    def spool_retry_budget_bytes(self) -> int:
        return int(self.uploads_spool_bytes_max * RETRY_FRACTION)


class StoreSettings(SpoolSettings):
    """Which server stores the jobs, how its memory is divided, and how long jobs stay."""

    log_format: Literal["text", "json"] = advanced("text", description="`text`, or `json` for one JSON object a line.")
    redis_password: str | None = Field(
        None,
        repr=False,
        description="Password of the server, used if `REDIS_URL` contains none. Any characters, unescaped.",
    )
    redis_username: str | None = advanced(
        None,
        description="User of the server, used if `REDIS_URL` names none: one URL then serves several.",
    )
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        repr=False,
        description="URL of the Redis or Valkey server that stores the jobs: `redis://`, `rediss://` or `unix://`. "
        "`rediss://` always verifies the server's certificate and its name. Parameters: `ssl_ca_certs`, the file of a "
        "CA beside the system's; `ssl_certfile` and `ssl_keyfile`, the client's certificate.",
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
    uploads_bulk_fraction: Fraction = advanced(
        0.8,
        description="Share of the upload budget that bulk jobs may fill; the rest is reserved for interactive jobs.",
    )
    upload_ttl_seconds: Seconds = advanced(
        360, description="Seconds until Redis drops the bytes of an upload whose job was never accepted."
    )
    result_ttl_seconds: Seconds = Field(86_400, description="Seconds for which an ended job and its results are kept.")
    min_result_ttl_seconds: Seconds = advanced(
        600, description="Seconds for which an ended job is kept at least, even if the record budget is full."
    )
    queue_deadline_seconds: Seconds = Field(
        86_400,
        description="Seconds without progress after which a job ends that waits in the queue; its waiting items fail. "
        "Progress is an image that ends, or a chunk that is added.",
    )

    @field_validator("redis_url")
    @classmethod
    def _is_a_redis_url(cls, url: str, others: ValidationInfo) -> str:
        """The URL with user and password in it, so that no other code has to combine the two."""
        if not url.startswith("unix://"):
            _REDIS_URL.validate_python(url)
        if "#" in url:  # what follows is no part of the URL for redis-py and Celery, a parameter of TLS included
            raise ValueError("# must be written as %23")
        _check_tls(url)
        password = others.data.get("redis_password")
        if not password or _has_password(url):
            return url
        scheme, _, rest = url.partition("://")
        place, slash, path = rest.partition("/")
        user, _, host = place.rpartition("@")
        user = user.rstrip(":") or quote(others.data.get("redis_username") or "", safe="")
        return f"{scheme}://{user}:{quote(password, safe='')}@{host}{slash}{path}"

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


class BucketSettings(SpoolSettings):
    """Which images may be read from S3 by reference."""

    s3_buckets: list[str] = Field(
        [],
        description='Buckets that `s3://` references may name, as JSON: `["photos"]`. `["*"]` allows every bucket but '
        "that of `UPLOADS_URL`; `[]` allows none.",
    )

    @model_validator(mode="after")
    def _uploads_stay_private(self) -> Self:
        if self.uploads_place is not None and self.uploads_place.bucket in self.s3_buckets:
            raise ValueError("s3_buckets must not name the bucket of uploads_url: it has the uploads of all owners")
        return self

    def bucket_allowed(self, bucket: str) -> bool:
        own = None if self.uploads_place is None else self.uploads_place.bucket
        return (bucket in self.s3_buckets or "*" in self.s3_buckets) and bucket != own


class WebhookSettings(SettingsGroup):
    """Which owners may use webhooks."""

    webhook_secrets: dict[str, str] = Field(
        default_factory=dict,
        repr=False,
        description='Secret that signs each owner\'s webhooks, as JSON: `{"alice": "whsec_…"}`, with 24 to 64 random '
        "bytes in base64. On a server without API keys, the owner is `public`. Other owners cannot use webhooks.",
    )

    @field_validator("webhook_secrets")
    @classmethod
    def _secrets_are_usable(cls, secrets: dict[str, str]) -> dict[str, str]:
        for owner, secret in secrets.items():
            try:
                size = len(b64decode(secret.removeprefix("whsec_"), validate=True))  # as Standard Webhooks has it
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


def _line(settings: type[BaseSettings], problem: Any) -> str:
    text = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return str(text)
    field = settings.model_fields.get(name := str(problem["loc"][0]))
    shown = f" (got {problem['input']!r})" if field is not None and field.repr else ""  # repr=False marks secrets
    return f"{name.upper()}: {text}{shown}"
