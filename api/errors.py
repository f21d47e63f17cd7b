"""Errors that only the API raises; those that the job store raises too are in `jobs/errors.py`."""

from jobs.errors import DarkroomError


class Unauthorized(DarkroomError):
    status, code, title = 401, "unauthorized", "A valid API key is needed"


class ModelNotFound(DarkroomError):
    status, code, title = 404, "model_not_found", "There is no such model"


class JobNotEnded(DarkroomError):
    status, code, title = 409, "job_not_ended", "The job has not ended yet"


class NothingToRetry(DarkroomError):
    status, code, title = 409, "nothing_to_retry", "The job has no failed image whose bytes are kept"


class UploadTimeout(DarkroomError):
    status, code, title = 408, "upload_timeout", "The upload took too long"


class UnsupportedMediaType(DarkroomError):
    status, code, title = 415, "unsupported_media_type", "This type of upload is not accepted"


class UnknownModel(DarkroomError):
    status, code, title = 422, "unknown_model", "No model of this name is served here"


class UnclassifiableImage(DarkroomError):
    """The only image of a synchronous call failed; `item_code` says why."""

    status, code, title = 422, "bad_image", "The image cannot be classified"


class TooManyStreams(DarkroomError):
    status, code, title = 503, "too_many_streams", "Too many answers are held open now"


class WaitTimeout(DarkroomError):
    status, code, title = 504, "wait_timeout", "The result was not ready in time"
