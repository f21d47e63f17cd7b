"""Closed by default: if others can reach the API, it starts with an API key or not at all."""

import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from ipaddress import ip_address

from api.settings import ApiSettings
from jobs.errors import SettingsError, StoreUnavailable
from jobs.store.for_api.api_key_registry import has_managed_keys

REDIS_WAIT_SECONDS_MAX = 30
_RETRY_SECONDS = 0.5

log = logging.getLogger(__name__)


def check_exposure(settings: ApiSettings, variables: Iterable[str]) -> None:
    """Check that there is a key if others than this machine can reach the API, and log who may call; blocking.

    `variables` are the names of the environment's variables: an `API_KEYS` that contains no key is named.

    Raises:
        SettingsError: as `require_key`, or Redis does not say for `REDIS_WAIT_SECONDS_MAX` whether there is a managed
            key.
    """
    variables = list(variables)
    require_key(settings, variables, partial(_wait_for_managed_keys, settings))
    log.info("who may call: %s", _callers(settings))
    if settings.api_keys or needs_key(settings):
        return
    if reason := why_reachable(settings):
        log.warning("OPEN_TO_EVERYBODY: %s, and everybody may submit, read and delete all jobs without a key", reason)
    for hint in _hints(variables):
        log.warning("%s: calls need no key from API_KEYS", hint)


def require_key(settings: ApiSettings, variables: Iterable[str], has_managed_keys: Callable[[], bool]) -> None:
    """Check that there is a key if others than this machine can reach the API.

    Raises:
        SettingsError: there is none.
    """
    if settings.api_keys or not needs_key(settings) or has_managed_keys():
        return
    create = (
        "docker compose run --rm --entrypoint darkroom-admin api keys create OWNER"
        if settings.bind or settings.domain
        else "python -m api.admin keys create OWNER"  # needs a Redis that runs: `make run`'s does not yet
    )
    raise SettingsError(
        f"{why_reachable(settings)}, so others can reach the API, but there is no API key: create one with `{create}` "
        "(docs/KEYS.md), or set API_KEYS, or set OPEN_TO_EVERYBODY=1 if everybody may submit, read and delete all jobs"
        + "".join(f" ({hint})" for hint in _hints(variables))
    )


def needs_key(settings: ApiSettings) -> bool:
    """Whether requests need a key whatever the store says.

    The check at start does not hold for ever: a store that has lost its keys must not open a process that starts later.
    """
    return bool(why_reachable(settings)) and not settings.open_to_everybody


def why_reachable(settings: ApiSettings) -> str:
    """The setting by which others than this machine can reach the API; empty if they cannot."""
    if settings.domain:
        return f"DOMAIN is {settings.domain}"
    name, address = ("BIND", settings.bind) if settings.bind else ("HOST", settings.host)
    return "" if _is_loopback(address) else f"{name} is {address or 'empty'}"


def _callers(settings: ApiSettings) -> str:
    """Without a look at the managed keys, which may change at any time."""
    if settings.api_keys or needs_key(settings):
        return f"owners with a key: {len(settings.api_keys)} of API_KEYS, and those of managed keys"
    whoever = "everybody" if why_reachable(settings) else "this machine alone"
    return f"{whoever}, without a key as long as there is no managed one"


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:  # a name: whatever it resolves to may change
        return address == "localhost"


def _hints(variables: Iterable[str]) -> list[str]:
    """A line if `API_KEYS` is set: it has no key."""
    return [f"{name} contains no key" for name in variables if name.upper() == "API_KEYS"]


def _wait_for_managed_keys(settings: ApiSettings) -> bool:
    ends = time.monotonic() + REDIS_WAIT_SECONDS_MAX
    while True:
        try:
            return has_managed_keys(settings)
        except StoreUnavailable as error:
            if time.monotonic() > ends:
                reason = why_reachable(settings)
                raise SettingsError(f"{reason}, and Redis does not say whether there is a key. {error}") from None
            time.sleep(_RETRY_SECONDS)
