"""What can go wrong, each with the stable code that clients see.

A request error carries its HTTP status and becomes `application/problem+json`; an item error is a code on one
item of a job that was accepted.
"""

from enum import StrEnum


class ItemCode(StrEnum):
    """Why one item failed while its job went on."""

    EMPTY_UPLOAD = "empty_upload"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    CORRUPT_IMAGE = "corrupt_image"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_MANY_FRAMES = "too_many_frames"
    ITEM_TOO_LARGE = "item_too_large"
    UPLOAD_LOST = "upload_lost"
    WORKER_CRASHED = "worker_crashed"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    WORKER_LOST = "worker_lost"
    MODEL_FAILED = "model_failed"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    TOO_MANY_SCANS = "too_many_scans"


ITEM_DETAIL: dict[ItemCode, str] = {
    ItemCode.EMPTY_UPLOAD: "The upload has no bytes.",
    ItemCode.NOT_AN_IMAGE: "The bytes are not an image in a known format.",
    ItemCode.UNSUPPORTED_FORMAT: "Images of this format are not accepted.",
    ItemCode.CORRUPT_IMAGE: "The image is cut off or damaged.",
    ItemCode.TOO_MANY_PIXELS: "The image has more pixels, in all or on one side, than are accepted.",
    ItemCode.TOO_MANY_FRAMES: "The image has more frames than are accepted.",
    ItemCode.ITEM_TOO_LARGE: "The upload has more bytes than are accepted for one item.",
    ItemCode.UPLOAD_LOST: "The stored upload bytes were not found.",
    ItemCode.WORKER_CRASHED: "The worker process died each time it tried this image.",
    ItemCode.TIMEOUT: "The worker ran out of time each time it tried this image.",
    ItemCode.OUT_OF_MEMORY: "The worker ran out of memory on this image.",
    ItemCode.WORKER_LOST: "Too many workers were lost while they held this image.",
    ItemCode.MODEL_FAILED: "The model raised an error on this image.",
    ItemCode.DEADLINE_EXCEEDED: "No worker took the image before its job's deadline.",
    ItemCode.TOO_MANY_SCANS: "The JPEG has more scans than are accepted.",
}


class DarkroomError(Exception):
    """A refusal with a stable code. Its text is for the client."""

    status: int
    code: str
    title: str

    def __init__(self, detail: str = "", **extensions: str) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.extensions = extensions


class Unauthorized(DarkroomError):
    status, code, title = 401, "unauthorized", "A valid API key is needed"


class JobNotFound(DarkroomError):
    status, code, title = 404, "job_not_found", "There is no such job"


class ModelNotFound(DarkroomError):
    status, code, title = 404, "model_not_found", "There is no such model"


class UploadTimeout(DarkroomError):
    status, code, title = 408, "upload_timeout", "The upload took too long"


class JobExpired(DarkroomError):
    status, code, title = 410, "job_expired", "The job is gone: its time to live is over, or it was deleted"


class UploadTooLarge(DarkroomError):
    status, code, title = 413, "upload_too_large", "The upload is too large"


class UnsupportedMediaType(DarkroomError):
    status, code, title = 415, "unsupported_media_type", "This type of upload is not accepted"


class InvalidRequest(DarkroomError):
    status, code, title = 422, "invalid_request", "The request is not valid"


class UnknownModel(DarkroomError):
    status, code, title = 422, "unknown_model", "No model of this name is served here"


class BadImage(DarkroomError):
    """The only image of a synchronous call failed; `item_code` says why."""

    status, code, title = 422, "bad_image", "The image cannot be classified"


class QuotaExceeded(DarkroomError):
    status, code, title = 429, "quota_exceeded", "Too many of your items are waiting"


class QueueFull(DarkroomError):
    status, code, title = 503, "queue_full", "The queue is full"


class StoreUnavailable(DarkroomError):
    """The store gave no answer. Nothing was accepted, unless a `job_id` among the extensions says what may stand."""

    status, code, title = 503, "store_unavailable", "The job store does not answer"


class WaitTimeout(DarkroomError):
    status, code, title = 504, "wait_timeout", "The result was not ready in time"


class SettingsError(Exception):
    """A setting is wrong, or two do not go together. The text is one line for the operator."""


class ModelPackageError(Exception):
    """A model package cannot be served. The text is one line for the operator."""
