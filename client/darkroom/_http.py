"""What both clients do with requests and answers: where to, how often, and what an answer means."""

import logging
import os
import random
import ssl
import time
from typing import Any
from urllib.parse import urlsplit

import httpx2

from darkroom.errors import ApiError, DarkroomError, Unreachable, api_error

DEFAULT_URL = "http://127.0.0.1:8000"
_PAUSE_SECONDS_MIN, _PAUSE_SECONDS_MAX = 0.2, 10.0
_HELD_SECONDS_MAX = 180.0  # for which a server that was killed leaves a part to the request that it has lost
_GATEWAY_STATUSES = (502, 503, 504)

log = logging.getLogger("darkroom")


def base_url(url: str | None) -> str:
    """The server's address, which may have a path. Raises ValueError if it is none."""
    found = url or os.environ.get("DARKROOM_URL") or DEFAULT_URL
    parts = urlsplit(found)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"url: {found!r} is no address like {DEFAULT_URL}")
    return found.rstrip("/")


def tls_of(url: str) -> ssl.SSLContext | bool:
    """What `verify` of httpx2 is. Without TLS no certificate is read: that takes longer than all else of a start."""
    return True if urlsplit(url).scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def key_header(api_key: str | None) -> dict[str, str]:
    """Raises ValueError if the key has characters that no header can have."""
    key = (api_key or os.environ.get("DARKROOM_API_KEY") or "").strip()
    if not all("!" <= character <= "~" for character in key):
        raise ValueError("api_key: the key has spaces, line breaks or other characters that no key has")
    return {"Authorization": f"Bearer {key}"} if key else {}


class Retries:
    """When to try again after an error, until there was no sign of life for so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.reset()

    def reset(self) -> None:
        """There was progress."""
        self._tries = 0
        self.is_alive()

    def is_alive(self) -> None:
        """The server answered: the time starts anew, but not the pauses."""
        self._failing_since: float | None = None

    def pause_seconds(self, error: DarkroomError) -> float:
        """How long to wait before the next try. Raises `error` if there is to be none."""
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        pause = min(_PAUSE_SECONDS_MIN * 2.0 ** min(self._tries, 10), _PAUSE_SECONDS_MAX) * random.uniform(0.5, 1)
        if error.retry_after_seconds is not None:
            pause = error.retry_after_seconds * random.uniform(1, 1.25)
        seconds = self._seconds
        if isinstance(error, ApiError) and error.code == "idempotency_in_progress" and seconds:
            seconds = max(seconds, _HELD_SECONDS_MAX)
        if not error.retryable or now + pause > self._failing_since + seconds:
            raise error
        if self._tries == 0:
            log.warning("%s; trying again for up to %.0f s", error, seconds)
        self._tries += 1
        return pause


def checked(response: httpx2.Response) -> Any:
    """The JSON of a response that has been read; None if it has no content.

    Raises:
        ApiError, Unreachable
    """
    status, where = response.status_code, response.request.url.copy_with(query=None)
    kind = response.headers.get("content-type", "nothing").partition(";")[0]
    if status == httpx2.codes.NO_CONTENT:
        return None
    if response.is_redirect:
        target = response.headers.get("location", "")
        raise Unreachable(f"{where} redirects to {target}: use the address that it leads to", retryable=False)
    body: Any = None
    if kind.endswith("json"):
        try:
            body = response.json()
        except ValueError:
            kind = "broken JSON"
    if response.is_success and isinstance(body, dict):
        return body
    if isinstance(body, dict) and isinstance(body.get("code"), str):
        headers = response.headers
        raise api_error(status, body, headers.get("x-request-id"), headers.get("retry-after"))
    if status in _GATEWAY_STATUSES:
        raise Unreachable(f"{where} answers {status} with {kind}: the server behind it is away")
    raise Unreachable(f"{where} answers {status} with {kind}: this is no Darkroom server", retryable=False)


def unreachable(url: str, error: Exception) -> Unreachable:
    text = " ".join(str(error).split())
    return Unreachable(f"{url} does not answer ({type(error).__name__}{': ' if text else ''}{text})")
