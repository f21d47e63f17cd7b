"""Whether the service answers and serves a model, as a client in the range sees it."""

import json
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from typing import Any

from deploy.ec2.aws import Deadline

ANSWER_SECONDS_MAX = 5
ANSWER_BYTES_MAX = 1 << 20


def base_url(domain: str, ip: str) -> str:
    return f"https://{domain}" if domain else f"http://{ip}:5000"


def not_leading_to(domain: str, ip: str) -> str:
    """What to set in the DNS; nothing if the domain leads to the address."""
    try:
        found = sorted({str(it[4][0]) for it in socket.getaddrinfo(domain, 443, type=socket.SOCK_STREAM)})
    except OSError:
        found = []
    return "" if ip in found else f"{domain} leads to {' and '.join(found) or 'nothing'}: set its A record to {ip}"


def missing(url: str, api_key: str) -> str:
    """What keeps the service from classifying; empty if `/readyz` answers and a model is served."""
    if problem := _get(f"{url}/readyz", "")[1]:
        return problem
    body, problem = _get(f"{url}/v1/models", api_key)
    if problem:
        return problem
    try:
        served = [model for model in json.loads(body)["models"] if model["serving"]["workers"]]
    except (ValueError, TypeError, KeyError):
        return f"{url}/v1/models answers, but not as Darkroom does"
    return "" if served else "the API is ready, and no worker serves a model yet"


def wait_until_ready(
    url: str, api_key: str, *, where: Callable[[], str], say: Callable[[str], None], seconds_max: float
) -> None:
    """Wait, and say each time that it changes what the host is doing (`where`) and what is missing.

    Raises:
        DeployError: it is not ready in time.
    """
    deadline = Deadline(seconds_max, "")
    said = ""
    while problem := missing(url, api_key):
        now_at = f"{where()}; {problem}"
        if now_at != said:
            said = now_at
            say(now_at)
        deadline.problem = (
            f"the service is not ready ({now_at}): `status` shows more, "
            "and docs/EC2.md where the logs are; this machine must be in --cidr to reach it"
        )
        deadline.wait()


def _get(url: str, api_key: str) -> tuple[bytes, str]:
    """The body of a 200, or what went wrong."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=ANSWER_SECONDS_MAX) as answer:
            body: bytes = answer.read(ANSWER_BYTES_MAX)
            return body, ""
    except urllib.error.HTTPError as error:
        return b"", f"{url} answers {error.code} {error.reason}{_detail(error)}"
    except urllib.error.URLError as error:
        return b"", f"{url} does not answer ({error.reason})"
    except (OSError, ssl.SSLError, HTTPException) as error:
        return b"", f"{url} does not answer ({error})"


def _detail(error: urllib.error.HTTPError) -> str:
    """The detail of a problem document."""
    try:
        problem: Any = json.loads(error.read(ANSWER_BYTES_MAX))
        return f": {problem['detail']}"
    except (ValueError, TypeError, KeyError, OSError):
        return ""
