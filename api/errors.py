"""Errors that only the API raises. Errors that the job store also raises are in `jobs/errors.py`."""

from jobs.errors import DarkroomError, KeyLimitReached


class MalformedRequest(DarkroomError):
    status, code, title = 400, "malformed_request", "This is not an HTTP/1.1 request"


class PreflightRefused(DarkroomError):
    status, code, title = 400, "preflight_refused", "A page of this origin may not do this"


class RequestTimeout(DarkroomError):
    status, code, title = 408, "request_timeout", "The head of the request took too long"


class UrlTooLong(DarkroomError):
    status, code, title = 414, "url_too_long", "The URL is too long"


class HeadersTooLarge(DarkroomError):
    status, code, title = 431, "headers_too_large", "The headers are too many or too long"


class TooManyConnections(DarkroomError):
    status, code, title = 503, "too_many_connections", "Too many connections are open"


class ReadOnlyKey(DarkroomError):
    status, code, title = 403, "read_only_key", "This API key may only read"


class CrossSiteRequest(DarkroomError):
    status, code, title = 403, "cross_site_request", "A page of another site may not do this without an API key"


class WrongHost(DarkroomError):
    status, code, title = 421, "wrong_host", "This server has another name"


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


class RateLimited(KeyLimitReached):
    code, title = "rate_limited", "Too many requests with this API key"


class TooManyStreams(DarkroomError):
    status, code, title = 503, "too_many_streams", "Too many streams are open"


class StreamInterrupted(DarkroomError):
    """Raised before the first line it is a response; after that, a broken connection says that lines are missing."""

    status, code, title = 503, "stream_interrupted", "The stream ends before the job does: repeat the request"


class WaitTimeout(DarkroomError):
    status, code, title = 504, "wait_timeout", "The result was not ready in time"
