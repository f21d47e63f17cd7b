"""`python -m api.doctor`: looks at the host and the stack as who runs them would, and says what to do.

It reads the same environment as the API. What a client can see, `darkroom doctor` checks.
"""

import os
import shutil
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from api.exposure import needs_key, why_reachable
from api.settings import ApiSettings
from jobs import VERSION
from jobs.errors import SettingsError, StoreUnavailable
from jobs.settings import load
from jobs.store.for_api.api_key_registry import has_managed_keys
from jobs.store.for_api.server_facts import ServerFacts, read_server_facts

CLOCK_SECONDS_MAX = 2.0
CERTIFICATE_SECONDS_MIN = 14 * 86_400
DISK_FREE_FRACTION_MIN = 0.1
_CONNECT_SECONDS = 5
OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")
NO_REDIS = 2  # exit code: nothing else could be looked at

AOF_ADVICE = "Set `appendonly yes` and `appendfsync always`, as deploy/redis/redis.conf does, and restart Redis."


class Finding(NamedTuple):
    subject: str
    problem: str
    advice: str
    is_warning: bool = False
    """It can go on like this."""


Check = Callable[[ApiSettings, ServerFacts], Iterator[Finding]]


def main() -> None:
    """Exits with 0 if there is no finding but warnings, 1 if there is one, 2 if settings or Redis stop the search."""
    try:
        settings = load(ApiSettings)
        facts = read_server_facts(settings)
    except SettingsError as error:
        print(f"FAIL  settings: {error}")
        sys.exit(NO_REDIS)
    except StoreUnavailable as error:
        _print(
            "FAIL",
            "redis",
            str(error),
            "Is it running? REDIS_URL and REDIS_PASSWORD say where, and with which password.",
        )
        sys.exit(NO_REDIS)
    well = True
    for subject, check in CHECKS.items():
        findings = list(check(settings, facts))
        if not findings:
            print(f"ok    {subject}")
        for finding in findings:
            well = well and finding.is_warning
            _print("warn" if finding.is_warning else "FAIL", *finding[:3])
    sys.exit(0 if well else 1)


def _print(level: str, subject: str, problem: str, advice: str) -> None:
    print(f"{level}  {subject}: {problem}\n      {advice}")


def check_disk(settings: ApiSettings, _: ServerFacts) -> Iterator[Finding]:
    """Of the folder of uploads; `make run` and compose have Redis' files on the same disk."""
    if settings.uploads_url.startswith("file:"):
        folder = unquote(urlsplit(settings.uploads_url).path)
        try:
            space = shutil.disk_usage(folder)
        except OSError as error:
            yield Finding("disk", f"{folder}: {error.strerror}", "Mount or create the folder of UPLOADS_URL.")
            return
        if space.free < settings.uploads_free_bytes_min:
            problem = f"{folder} has {space.free >> 20} MiB free, and UPLOADS_FREE_BYTES_MIN is more: no large uploads"
            yield Finding("disk", problem, "Make room, or enlarge the disk.")
        elif space.free < DISK_FREE_FRACTION_MIN * space.total:
            problem = f"{folder} is on a disk with {space.free >> 20} of {space.total >> 20} MiB free"
            yield Finding("disk", problem, "Make room before Redis cannot write its file.", is_warning=True)


def check_aof(_: ApiSettings, facts: ServerFacts) -> Iterator[Finding]:
    if not facts.persistence.get("aof_enabled"):
        yield Finding("aof", "the server keeps no append-only file: a restart loses all jobs", AOF_ADVICE)
        return
    for name in ("aof_last_write_status", "aof_last_bgrewrite_status"):
        if facts.persistence.get(name, "ok") != "ok":
            yield Finding("aof", f"{name} is {facts.persistence[name]}", "Is the disk full? Redis' log says why.")
    if facts.appendfsync not in ("", "always"):
        problem = f"appendfsync is {facts.appendfsync}: a power cut loses jobs that were accepted"
        yield Finding("aof", problem, AOF_ADVICE, is_warning=True)


def check_memory(settings: ApiSettings, facts: ServerFacts) -> Iterator[Finding]:
    policy, maxmemory = facts.memory["maxmemory_policy"], facts.memory["maxmemory"]
    if policy != "noeviction":
        yield Finding("memory", f"maxmemory-policy is {policy}: it evicts jobs", "Set `maxmemory-policy noeviction`.")
    if 0 < maxmemory < settings.redis_maxmemory_bytes:
        problem = f"maxmemory is {maxmemory}, and REDIS_MAXMEMORY_BYTES {settings.redis_maxmemory_bytes}"
        yield Finding("memory", problem, "Lower REDIS_MAXMEMORY_BYTES, or raise maxmemory.")


def check_overcommit(_settings: ApiSettings, _: ServerFacts) -> Iterator[Finding]:
    """Of the machine on which this runs: Redis' own, with compose and `make run`."""
    if OVERCOMMIT.exists() and OVERCOMMIT.read_text().strip() != "1":
        problem = "vm.overcommit_memory is not 1: Redis may be unable to rewrite its file when memory is short"
        advice = "Run `sysctl vm.overcommit_memory=1` on the host, and write it into /etc/sysctl.d/."
        yield Finding("overcommit", problem, advice, is_warning=True)


def check_clock(_: ApiSettings, facts: ServerFacts) -> Iterator[Finding]:
    if abs(facts.clock_seconds) > CLOCK_SECONDS_MAX:
        problem = f"Redis' clock is {facts.clock_seconds:+.1f} s from this machine's"
        yield Finding("clock", problem, "Synchronize both by NTP (chrony, systemd-timesyncd).")


def check_versions(_: ApiSettings, facts: ServerFacts) -> Iterator[Finding]:
    if others := facts.releases - {VERSION}:
        others = {release or "an earlier one" for release in others}
        problem = f"this is Darkroom {VERSION}, and workers run {', '.join(sorted(others))}"
        advice = "During an upgrade that is as it should be; else bring all to one release."
        yield Finding("versions", problem, advice, is_warning=True)
    for name, refs in sorted(facts.served.items()):
        if len(refs) > 1:
            problem = f"workers serve several versions of {name}: {', '.join(sorted(refs))}"
            advice = "During an upgrade that is as it should be; else restart the workers of the older one."
            yield Finding("versions", problem, advice, is_warning=True)
    if not any(facts.served.values()):
        yield Finding("versions", "no worker serves a model", "Start a worker, or see its log.")
    for error in facts.load_errors:
        yield Finding("versions", f"{error.model} is not served: {error.reason}", "Repair the package, or remove it.")


def check_keys(settings: ApiSettings, _: ServerFacts) -> Iterator[Finding]:
    reason = why_reachable(settings)
    if not reason or settings.api_keys or has_managed_keys(settings):
        return
    if needs_key(settings):
        problem, is_warning = f"{reason}, and there is no API key: the API does not start", False
    else:
        problem, is_warning = f"{reason}, and OPEN_TO_EVERYBODY lets everybody in without a key", True
    advice = "Create a key: `docker compose run --rm --entrypoint darkroom-admin api keys create OWNER` (docs/KEYS.md)."
    yield Finding("keys", problem, advice, is_warning=is_warning)


def check_certificate(settings: ApiSettings, _: ServerFacts) -> Iterator[Finding]:
    """Of `DOMAIN`, at DARKROOM_EDGE, `HOST:PORT`; port 443 of the domain by default."""
    if not settings.domain:
        return
    host, _colon, port = os.environ.get("DARKROOM_EDGE", f"{settings.domain}:443").rpartition(":")
    advice = "`docker compose --profile tls logs edge` says why it is not renewed; ports 80 and 443 must be reachable."
    try:
        with (
            socket.create_connection((host, int(port)), _CONNECT_SECONDS) as connection,
            ssl.create_default_context().wrap_socket(connection, server_hostname=settings.domain) as tls,
        ):
            certificate = tls.getpeercert() or {}
    except (OSError, ValueError) as error:
        yield Finding("certificate", f"{settings.domain} at {host}:{port}: {error}", advice)
        return
    left = ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()
    if left < CERTIFICATE_SECONDS_MIN:
        yield Finding("certificate", f"that of {settings.domain} expires in {left / 86_400:.0f} days", advice)


CHECKS: dict[str, Check] = {
    "disk": check_disk,
    "aof": check_aof,
    "memory": check_memory,
    "overcommit": check_overcommit,
    "clock": check_clock,
    "versions": check_versions,
    "keys": check_keys,
    "certificate": check_certificate,
}


if __name__ == "__main__":
    main()
