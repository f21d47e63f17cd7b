"""`darkroom doctor`: looks at each step between a picture and its class, and says what to do."""

from collections.abc import Callable
from datetime import UTC, datetime

import click

from darkroom._sync.client import Darkroom
from darkroom.errors import DarkroomError
from darkroom.images import gray_png

_CLOCK_SECONDS_MAX = 60.0
_PICTURE_SECONDS_MAX = 30.0


def examine(client: Darkroom) -> bool:
    """Prints a line for each check. Returns whether all is well; stops where nothing after it can succeed."""
    checks: list[tuple[str, Callable[[Darkroom], str], str, bool]] = [
        (
            "address",
            _address,
            "Is the server running there? --url, DARKROOM_URL and config.toml name the address.",
            True,
        ),
        ("version", _version, "Upgrade the server; all other commands work without it.", False),
        ("clock", _clock, "Set this machine's clock, or the server's: webhooks and expiry go by it.", False),
        ("key", _key, "Ask who runs the server for a key; name its file with --api-key-file.", True),
        ("redis", _redis, "Who runs the server: is Redis (or Valkey) running, and does it accept writes?", True),
        ("workers", _workers, "Who runs the server: start a worker (`python -m worker`), or see its log.", False),
        ("picture", _picture, "`darkroom status` shows whether the queue moves.", False),
    ]
    well = True
    for name, check, advice, is_needed in checks:
        try:
            click.echo(f"ok    {name}: {check(client)}")
        except DarkroomError as error:
            well = False
            click.echo(f"FAIL  {name}: {error}\n      {advice}")
            if is_needed:
                break
    return well


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
