"""Waits until the stack that `make run` starts is ready, and prints a first command to try."""

import json
import os
import time
import urllib.error
import urllib.request
from http import HTTPStatus

from jobs.settings import load
from worker.settings import WorkerSettings

POLL_SECONDS = 0.1
SAMPLE = "tests/data/0007-shirt.png"


def main() -> None:
    base = _base_url(os.environ["HOST"], os.environ["PORT"])
    served = load(WorkerSettings).served
    while not _serving(base, served):
        time.sleep(POLL_SECONDS)
    print(
        f"\nDarkroom is ready at {base} (pages to try it: {base}/docs). In another terminal:\n\n"
        f"  curl --data-binary @{SAMPLE} {base}/v1/jobs\n\n"
        "then read the job at the path under \"self\", or let curl wait with -H 'Prefer: wait=5'.\n"
        "Ctrl-C stops everything.\n",
        flush=True,
    )


def _base_url(host: str, port: str) -> str:
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _serving(base: str, served: tuple[str, ...]) -> bool:
    """Whether the API accepts jobs, and some worker process has loaded one of these models."""
    try:
        with urllib.request.urlopen(f"{base}/readyz", timeout=5):
            pass
        request = urllib.request.Request(f"{base}/v1/models", headers=_authorization())
        with urllib.request.urlopen(request, timeout=5) as answer:
            serving = [model for model in json.load(answer)["models"] if model["serving"]["processes"]]
            return any(model[key] in served for model in serving for key in ("name", "id"))
    except urllib.error.HTTPError as error:
        return error.code == HTTPStatus.UNAUTHORIZED  # there are managed keys, and none is known here
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _authorization() -> dict[str, str]:
    keys = json.loads(os.environ.get("API_KEYS") or "{}")
    return {"Authorization": f"Bearer {next(iter(keys.values()))}"} if keys else {}


if __name__ == "__main__":
    main()
