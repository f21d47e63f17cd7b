"""Errors that calls raise. Each code of the server has a class: `except QueueFull`."""

from typing import Any

from darkroom.records import Item

_RETRYABLE_STATUSES = (429, 502, 503, 504)


class DarkroomError(Exception):
    """The base of all errors of this package. Its text is one line for a person."""

    retryable = False
    """Whether the same call may succeed a little later."""
    retry_after_seconds: float | None = None
    """How long the server asks to wait before that."""


class ApiError(DarkroomError):
    """The server refused a request. A code without a class of its own is an `ApiError`."""

    code = ""
    """Stable, to be compared; `detail` is for people."""

    def __init__(
        self, status: int, detail: str, *, code: str = "", request_id: str | None = None, retry_after: str | None = None
    ) -> None:
        self.status, self.detail, self.code, self.request_id = status, detail, code or self.code, request_id
        self.retryable = status in _RETRYABLE_STATUSES or self.code == "idempotency_in_progress"
        if retry_after is not None and retry_after.isdecimal():
            self.retry_after_seconds = float(retry_after)
        super().__init__(f"{self.code}: {detail}")


class Unreachable(DarkroomError):
    """No answer came, or one that is not of a Darkroom server."""

    def __init__(self, detail: str, *, retryable: bool = True) -> None:
        super().__init__(detail)
        self.retryable = retryable


class WaitTimeout(DarkroomError, TimeoutError):
    """The job has not ended in time. It goes on: wait again, or cancel it."""


class ItemFailed(DarkroomError):
    """The image of `classify` has no class; `item.error` says why."""

    def __init__(self, item: Item) -> None:
        self.item = item
        super().__init__(f"{item.error.code}: {item.error.detail}" if item.error else item.status)


BY_CODE: dict[str, type[ApiError]] = {}


def _error(code: str) -> type[ApiError]:
    BY_CODE[code] = type("".join(word.capitalize() for word in code.split("_")), (ApiError,), {"code": code})
    return BY_CODE[code]


BadImage = _error("bad_image")
CrossSiteRequest = _error("cross_site_request")
DailyQuotaExceeded = _error("daily_quota_exceeded")
HeadersTooLarge = _error("headers_too_large")
IdempotencyInProgress = _error("idempotency_in_progress")
IdempotencyKeyReused = _error("idempotency_key_reused")
InvalidRequest = _error("invalid_request")
JobEmpty = _error("job_empty")
JobEnded = _error("job_ended")
JobExpired = _error("job_expired")
JobNotEnded = _error("job_not_ended")
JobNotFound = _error("job_not_found")
JobSealed = _error("job_sealed")
MalformedRequest = _error("malformed_request")
ModelNotFound = _error("model_not_found")
NothingToRetry = _error("nothing_to_retry")
PreflightRefused = _error("preflight_refused")
QueueFull = _error("queue_full")
QuotaExceeded = _error("quota_exceeded")
RateLimited = _error("rate_limited")
ReadOnlyKey = _error("read_only_key")
RequestTimeout = _error("request_timeout")
StoreUnavailable = _error("store_unavailable")
StreamInterrupted = _error("stream_interrupted")
TooManyConnections = _error("too_many_connections")
TooManyStreams = _error("too_many_streams")
Unauthorized = _error("unauthorized")
UnknownModel = _error("unknown_model")
UnsupportedMediaType = _error("unsupported_media_type")
UploadTimeout = _error("upload_timeout")
UploadTooLarge = _error("upload_too_large")
UrlTooLong = _error("url_too_long")
WaitTimeoutAtServer = BY_CODE["wait_timeout"] = type("WaitTimeoutAtServer", (ApiError,), {"code": "wait_timeout"})
WrongHost = _error("wrong_host")


def api_error(status: int, problem: dict[str, Any], request_id: str | None, retry_after: str | None) -> ApiError:
    code = str(problem["code"])
    detail = str(problem.get("detail") or problem.get("title") or status)
    return BY_CODE.get(code, ApiError)(status, detail, code=code, request_id=request_id, retry_after=retry_after)
