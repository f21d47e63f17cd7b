"""Errors that only the API raises. Errors that the job store also raises are in `jobs/errors.py`."""

from jobs.errors import DarkroomError, KeyLimitReached


class MalformedRequest(DarkroomError):
    status, code, title = 400, "malformed_request", "This is not an HTTP/1.1 request"
    advice = "Send HTTP/1.1, without TLS if the URL begins with http:."


class PreflightRefused(DarkroomError):
    status, code, title = 400, "preflight_refused", "A page of this origin may not do this"
    advice = "Ask the operator to add the page's origin to CORS_ORIGINS."


class RequestTimeout(DarkroomError):
    status, code, title = 408, "request_timeout", "The head of the request took too long"
    advice = "Send the request again, faster."


class UrlTooLong(DarkroomError):
    status, code, title = 414, "url_too_long", "The URL is too long"
    advice = "Send a shorter query."


class HeadersTooLarge(DarkroomError):
    status, code, title = 431, "headers_too_large", "The headers are too many or too long"
    advice = "Send fewer cookies and headers."


class TooManyConnections(DarkroomError):
    status, code, title = 503, "too_many_connections", "Too many connections are open"
    advice = "Close connections that you do not use, or keep fewer open."


class ReadOnlyKey(DarkroomError):
    status, code, title = 403, "read_only_key", "This API key may only read"
    advice = "Use a key that may submit."


class CrossSiteRequest(DarkroomError):
    status, code, title = 403, "cross_site_request", "A page of another site may not do this without an API key"
    advice = "Use an API key, or list the page's origin in CORS_ORIGINS."


class WrongHost(DarkroomError):
    status, code, title = 421, "wrong_host", "This server has another name"
    advice = "Use an address of the server's machine, add the name to ALLOWED_HOSTS, or use API keys."


class ModelNotFound(DarkroomError):
    status, code, title = 404, "model_not_found", "There is no such model"
    advice = "GET /v1/models lists the models."


class JobNotEnded(DarkroomError):
    status, code, title = 409, "job_not_ended", "The job has not ended yet"
    advice = "Wait for its end: GET the job with ?wait=30."


class NothingToRetry(DarkroomError):
    status, code, title = 409, "nothing_to_retry", "The job has no failed image whose bytes are stored"
    advice = "Submit the images again, as a new job."


class UploadTimeout(DarkroomError):
    status, code, title = 408, "upload_timeout", "The upload took too long"
    advice = "Send the upload again, in smaller parts if the connection is slow."


class UnsupportedMediaType(DarkroomError):
    status, code, title = 415, "unsupported_media_type", "Unsupported type of upload"


class UnknownModel(DarkroomError):
    status, code, title = 422, "unknown_model", "There is no model of this name"
    advice = "GET /v1/models lists the models."


class UnclassifiableImage(DarkroomError):
    """The image of a synchronous call failed; the extension `item_code` has the reason."""

    status, code, title = 422, "bad_image", "The image cannot be classified"
    advice = "Send another image."


class RateLimited(KeyLimitReached):
    code, title = "rate_limited", "Too many requests with this API key"
    advice = "Repeat the request after the seconds of Retry-After."


class TooManyStreams(DarkroomError):
    status, code, title = 503, "too_many_streams", "Too many streams are open"
    advice = "Repeat the request after the seconds of Retry-After, or poll the job instead."


class StreamInterrupted(DarkroomError):
    """Raised before the first line it is a response; after that, a broken connection says that lines are missing."""

    status, code, title = 503, "stream_interrupted", "The stream ends before the job does: repeat the request"
    advice = "Repeat the request after the seconds of Retry-After; with ?from= it goes on where it was."


class WaitTimeout(DarkroomError):
    status, code, title = 504, "wait_timeout", "The result was not ready in time"
    advice = "Send the image to POST /v1/jobs, and poll the job."
