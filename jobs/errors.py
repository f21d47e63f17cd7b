"""Errors of a request. Each has an HTTP status and the stable code that clients see in `application/problem+json`.

Errors of one item of an accepted job are in `jobs/item_codes.py`, errors that only the API raises in `api/errors.py`.
"""

_LINE_CHARACTERS = 300


class DarkroomError(Exception):
    """A refused request, with a stable code. Its text is for the client."""

    status: int
    code: str
    title: str
    advice = ""
    """What the client can do, at the end of the detail."""

    def __init__(self, detail: str = "", **extensions: str) -> None:
        super().__init__(detail or self.title)
        self.detail = f"{detail} {self.advice}".strip() or self.title
        self.extensions = extensions


class Unauthorized(DarkroomError):
    status, code, title = 401, "unauthorized", "A valid API key is required"
    advice = "Send a valid key, as Authorization: Bearer <key>."


class JobNotFound(DarkroomError):
    status, code, title = 404, "job_not_found", "There is no such job"
    advice = "Check the id, and that the key belongs to the owner who submitted the job."


class IdempotencyInProgress(DarkroomError):
    status, code, title = 409, "idempotency_in_progress", "The first request with this Idempotency-Key is still running"
    advice = "Repeat the request after the seconds of Retry-After: it then gets the first one's response."


class JobEnded(DarkroomError):
    status, code, title = 409, "job_ended", "The job has ended"
    advice = "Submit a new job."


class JobSealed(DarkroomError):
    status, code, title = 409, "job_sealed", "The job is sealed: it takes no more parts"
    advice = "Submit the other images as a new job."


class JobEmpty(DarkroomError):
    status, code, title = 409, "job_empty", "The job has no images"
    advice = "Add images before you seal the job, or delete it."


class JobExpired(DarkroomError):
    status, code, title = 410, "job_expired", "The job has expired or was deleted"
    advice = "Submit the images again; GET the results of a job within RESULT_TTL_SECONDS of its end."


class UploadTooLarge(DarkroomError):
    status, code, title = 413, "upload_too_large", "The upload is too large"
    advice = "GET /v1/server has the limits."


class InvalidRequest(DarkroomError):
    status, code, title = 422, "invalid_request", "The request is not valid"


class IdempotencyKeyReused(DarkroomError):
    status, code, title = 422, "idempotency_key_reused", "This Idempotency-Key was used before with other content"
    advice = "Use a new key for each content."


class QuotaExceeded(DarkroomError):
    status, code, title = 429, "quota_exceeded", "Too many of your items are pending"
    advice = "Wait until some of them have ended: GET /v1/jobs lists them."


class KeyLimitReached(DarkroomError):
    """A limit of the API key, which allows such a request again after `retry_after_seconds`."""

    status = 429

    def __init__(self, detail: str, *, retry_after_seconds: int) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class DailyQuotaExceeded(KeyLimitReached):
    code, title = "daily_quota_exceeded", "This API key may submit no more images today"
    advice = "Submit the rest after the seconds of Retry-After, or ask the operator for more."


class QueueFull(DarkroomError):
    """A budget of the store is used up; `over_bytes` is how much must drain first, 0 if unknown."""

    status, code, title = 503, "queue_full", "The queue is full"
    advice = "Repeat the request after the seconds of Retry-After."

    def __init__(self, detail: str = "", *, over_bytes: int = 0, **extensions: str) -> None:
        super().__init__(detail, **extensions)
        self.over_bytes = over_bytes


class StoreUnavailable(DarkroomError):
    """The store did not reply. Nothing was accepted, unless the extensions have the `job_id` of a possible job."""

    status, code, title = 503, "store_unavailable", "The job store is not available"
    advice = "Repeat the request after the seconds of Retry-After, with the same Idempotency-Key."


class UploadGone(StoreUnavailable):
    """The store has lost a part of the upload that it had accepted, so that the rest cannot continue it."""


class SettingsError(Exception):
    """A setting is invalid, or contradicts another. The text is one line for the operator."""


class ModelPackageError(Exception):
    """A model package cannot be served. The text is one line for the operator."""


class ApiKeyError(Exception):
    """A change of the managed API keys is refused. The text is one line for the operator."""


def one_line(error: Exception) -> str:
    """The kind of a third-party exception and the beginning of its text, on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:_LINE_CHARACTERS] if text else type(error).__name__
