"""Errors that only the API raises. Errors that the job store also raises are in `jobs/errors.py`."""

from jobs.errors import DarkroomError


class Unauthorized(DarkroomError):
    status, code, title = 401, "unauthorized", "A valid API key is required"


class ModelNotFound(DarkroomError):
    status, code, title = 404, "model_not_found", "There is no such model"


class JobNotEnded(DarkroomError):
    status, code, title = 409, "job_not_ended", "The job has not ended yet"


class NothingToRetry(DarkroomError):
    status, code, title = 409, "nothing_to_retry", "The job has no failed image whose bytes are stored"


class UploadTimeout(DarkroomError):
    status, code, title = 408, "upload_timeout", "The upload took too long"


class UnsupportedMediaType(DarkroomError):
    status, code, title = 415, "unsupported_media_type", "Unsupported type of upload"


class UnknownModel(DarkroomError):
    status, code, title = 422, "unknown_model", "There is no model of this name"


class UnclassifiableImage(DarkroomError):
    """The image of a synchronous call failed; the extension `item_code` has the reason."""

    status, code, title = 422, "bad_image", "The image cannot be classified"


class TooManyStreams(DarkroomError):
    status, code, title = 503, "too_many_streams", "Too many streams are open"


class WaitTimeout(DarkroomError):
    status, code, title = 504, "wait_timeout", "The result was not ready in time"
