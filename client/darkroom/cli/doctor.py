"""`darkroom doctor`: looks at each step between a picture and its class, and says what to do."""

import json
from collections.abc import Callable
from datetime import UTC, datetime

import click

from darkroom._sync.client import Darkroom
from darkroom.errors import DarkroomError
from darkroom.images import gray_png

_CLOCK_SECONDS_MAX = 60.0
_PICTURE_SECONDS_MAX = 30.0


def examine(client: Darkroom, *, json_: bool) -> DarkroomError | None:
    """Prints each check. Returns the last error; stops where nothing after it can succeed."""
    checks: list[tuple[str, Callable[[Darkroom], str], str, bool]] = [
        (
            "address",
            _address,
            "Is the server running there? --url, DARKROOM_URL and config.toml name the address.",
            True,
        ),
        ("redis", _redis, "Who runs the server: is Redis (or Valkey) running, and does it accept writes?", True),
        ("key", _key, "Ask who runs the server for a key; name its file with --api-key-file.", True),
        ("version", _version, "Upgrade the server; all other commands work without it.", False),
        ("clock", _clock, "Set this machine's clock, or the server's: webhooks and expiry go by it.", False),
        ("workers", _workers, "Who runs the server: start a worker (`python -m worker`), or see its log.", False),
        ("picture", _picture, "`darkroom status` shows whether the queue moves.", False),
    ]
    found = list[dict[str, object]]()
    failed: DarkroomError | None = None
    for name, check, advice, is_needed in checks:
        if name == "clock" and failed is not None:  # a server that is too old does not tell its time
            continue
        try:
            detail = check(client)
            found.append({"check": name, "ok": True, "detail": detail})
            text = f"ok    {name}: {detail}"
        except DarkroomError as error:
            failed = error
            found.append({"check": name, "ok": False, "detail": str(error), "advice": advice})
            text = f"FAIL  {name}: {error}\n      {advice}"
        if not json_:
            click.echo(text)
        if failed is not None and is_needed:
            break
    if json_:
        click.echo(json.dumps(found))
    return failed


def _address(client: Darkroom) -> str:
    client.call("GET", "/livez")
    return client.url


def _version(client: Darkroom) -> str:
    return client.server().version


def _clock(client: Darkroom) -> str:
    seconds = abs((client.server().time - datetime.now(UTC)).total_seconds())
    if seconds > _CLOCK_SECONDS_MAX:
        raise DarkroomError(f"differs from the server's by {seconds:.0f} s")
    return f"{seconds:.1f} s from the server's"


def _key(client: Darkroom) -> str:
    client.call("GET", "/v1/jobs", params={"limit": "1"})
    return "accepted"


def _redis(client: Darkroom) -> str:
    client.call("GET", "/readyz")
    return "accepts jobs"


def _workers(client: Darkroom) -> str:
    served = [model.id for model in client.models() if model.workers]
    if not served:
        raise DarkroomError("no worker serves a model")
    return f"serve {', '.join(served)}"


def _picture(client: Darkroom) -> str:
    item = client.classify(("doctor.png", gray_png()), timeout_seconds=_PICTURE_SECONDS_MAX)
    return f"there and back, a {item.class_name}"
