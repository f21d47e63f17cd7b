"""Settings that the API and the workers share. Each is an environment variable of the same name in capitals."""

from base64 import b64decode
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
from pydantic_settings import BaseSettings, SettingsConfigDict

from jobs.errors import SettingsError

Fraction = Annotated[float, Field(gt=0, lt=1)]
Seconds = Annotated[float, Field(gt=0, le=30 * 86_400)]
Bytes = Annotated[int, Field(ge=1)]
_NAME, _VERSION = "[a-z0-9][a-z0-9._-]{0,63}", "[A-Za-z0-9._-]{1,32}"
ModelName = Annotated[str, Field(pattern=f"^{_NAME}$")]
ModelVersion = Annotated[str, Field(pattern=f"^{_VERSION}$")]
ModelRef = Annotated[str, Field(pattern=f"^{_NAME}(@{_VERSION})?$")]
"""A model's name, for its newest version that is served, or `name@version` for that one."""
SHIPPED_MODEL = "fmnist-cnn"

_REDIS_URL = TypeAdapter(RedisDsn)


def _has_password(redis_url: str) -> bool:
    parts = urlsplit(redis_url)
    return bool(parts.password) or "password" in parse_qs(parts.query)


class StoreSettings(BaseSettings):
    """Where the jobs are kept, how much room they have, and how long they stay."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    redis_password: str | None = Field(
        None,
        repr=False,
        description="The password for `REDIS_URL`, where that holds none; any characters, as they are.",
    )
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0", repr=False, description="The Redis or Valkey that holds the jobs."
    )
    redis_maxmemory_bytes: Bytes = Field(
        1 << 30, description="The server's maxmemory, or what it may use where it sets none. The budgets divide it."
    )
    uploads_budget_fraction: Fraction = Field(0.5, description="Share of that memory for uploads that wait.")
    records_budget_fraction: Fraction = Field(0.3, description="Share of that memory for records with results.")
    retry_fraction: Fraction = Field(
        0.5, description="Share of the room for records up to which images that failed are kept for a retry."
    )
    upload_ttl_seconds: Seconds = Field(360, description="How long upload bytes live without a job that needs them.")
    result_ttl_seconds: Seconds = Field(86_400, description="How long an ended job is kept.")
    min_result_ttl_seconds: Seconds = Field(
        600, description="How long an ended job is kept even where records need its room."
    )
    queue_deadline_seconds: Seconds = Field(
        86_400, description="A job that no worker takes for this long ends; its waiting items fail."
    )
    sweep_seconds: Seconds = Field(1, description="How often what is due is dropped.")

    @field_validator("redis_url")
    @classmethod
    def _is_a_redis_url(cls, url: str, others: ValidationInfo) -> str:
        """The URL with the password in it, so that nobody else has to put the two together."""
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
        return int(self.records_budget_bytes * self.retry_fraction)


class S3Settings(BaseSettings):
    """Where images by reference are read from S3."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    s3_buckets: list[str] = Field(
        [], description='The buckets that `s3://` references may name, as JSON: ["photos"]; ["*"] is any. Empty: none.'
    )
    s3_endpoint_url: str | None = Field(None, description="An S3 of another provider. None: AWS.")
    s3_region: str = Field("us-east-1", description="The region of the buckets.")
    s3_access_key_id: str | None = Field(
        None, description="The key to sign with. None: the machine's own role, as AWS provides it."
    )
    s3_secret_access_key: str | None = Field(None, repr=False, description="What belongs to that key.")
    s3_session_token: str | None = Field(None, repr=False, description="What belongs to a temporary key.")
    s3_anonymous: bool = Field(False, description="Sign nothing: for public buckets.")
    s3_allow_http: bool = Field(False, description="Whether `S3_ENDPOINT_URL` may be without TLS.")

    @model_validator(mode="after")
    def _s3_is_whole(self) -> Self:
        if (self.s3_access_key_id is None) != (self.s3_secret_access_key is None):
            raise ValueError("s3_access_key_id and s3_secret_access_key go together")
        if (self.s3_endpoint_url or "").startswith("http:") and not self.s3_allow_http:
            raise ValueError("s3_endpoint_url is without TLS: set s3_allow_http to allow that")
        return self

    def bucket_allowed(self, bucket: str) -> bool:
        return bucket in self.s3_buckets or "*" in self.s3_buckets


class WebhookSettings(BaseSettings):
    """Who may have webhooks."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    webhook_secrets: dict[str, str] = Field(
        default_factory=dict,
        repr=False,
        description='Owner to the secret that signs their webhooks, as JSON: {"alice": "whsec_…"} with 24 to 64 random '
        "bytes in base64; `public` is the owner where `API_KEYS` is empty. An owner without one can have no webhook.",
    )

    @field_validator("webhook_secrets")
    @classmethod
    def _secrets_are_usable(cls, secrets: dict[str, str]) -> dict[str, str]:
        for owner, secret in secrets.items():
            try:
                size = len(b64decode(secret.removeprefix("whsec_"), validate=True))  # as Standard Webhooks write them
            except ValueError:
                size = 0
            if not secret.startswith("whsec_") or not 24 <= size <= 64:
                raise ValueError(f"the secret of {owner!r} must be whsec_ and 24 to 64 bytes in base64")
        return secrets


S = TypeVar("S", bound=BaseSettings)


def load(settings: type[S], **overrides: Any) -> S:
    """Read settings from the environment.

    Raises:
        SettingsError: one line that names each setting that is wrong.
    """
    try:
        return settings(**overrides)
    except pydantic_settings.SettingsError as error:  # its cause shows the value, which may be a secret
        name = next((name for name in settings.model_fields if f'"{name}"' in str(error)), "a setting")
        raise SettingsError(f"{name.upper()}: must be valid JSON") from None
    except ValidationError as error:
        # A default that depends on a wrong setting is not made; it is no problem of its own.
        problems = (problem for problem in error.errors() if problem["type"] != "default_factory_not_called")
        raise SettingsError("; ".join(_line(settings, problem) for problem in problems)) from None


def _line(settings: type[BaseSettings], problem: Any) -> str:
    text = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return str(text)
    name = str(problem["loc"][0])
    field = settings.model_fields.get(name)
    shown = f" (got {problem['input']!r})" if field is not None and field.repr else ""  # repr=False marks secrets
    return f"{name.upper()}: {text}{shown}"
