"""The stack that is attacked: all services of compose, the keys of attackers and of another owner, and a victim."""

import http.client
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import orjson

from bench.client import request
from bench.hostile.attackers import Attackers
from bench.hostile.target import Target, exchange
from bench.hostile.victim import Victim, victim
from bench.services import Darkroom, darkroom
from jobs.store import keys
from tests.support.processes import Process
from tests.support.waiting import wait_until

_ATTACKERS = 4
_OWNERS = ["other", *(f"attacker{number}" for number in range(_ATTACKERS))]
_KEYS = {owner: f"{owner}-key-0123456789" for owner in _OWNERS}
OTHER, *ATTACKERS = (f"Bearer {key}" for key in _KEYS.values())
_SETTINGS = {"API_KEYS": orjson.dumps(_KEYS).decode(), "FETCH_ALLOW_NETWORKS": '["127.0.0.0/8"]'}
_LISTED = 1000  # jobs in one page
_TOGETHER = 32  # requests
_CLEAR_SECONDS_MAX = 10


class Attacked(NamedTuple):
    service: Darkroom
    victim: Victim
    attackers: Attackers


@contextmanager
def attacked() -> Iterator[Attacked]:
    """With compose's limits. Ends all processes."""
    with ExitStack() as exits:
        folder = Path(exits.enter_context(TemporaryDirectory()))
        other = exits.enter_context(victim(folder))
        attackers = exits.enter_context(Attackers())
        service = exits.enter_context(darkroom(_SETTINGS))
        settings = {**_SETTINGS, "REDIS_URL": service.stack.valkey.url}
        command = [sys.executable, "-m", "worker.outbound"]
        outbound = exits.enter_context(Process(command, folder / "outbound.log", settings))
        wait_until(lambda: service.stack.redis.zcard(keys.HEARTBEATS + keys.FETCH), what="the outbound worker")
        service.servers.add("outbound", outbound)
        yield Attacked(service, other, attackers)


def clear(port: int) -> int:
    """Delete the attackers' jobs, so that the next attack finds what this one has found. Returns how many remain."""
    ends = time.monotonic() + _CLEAR_SECONDS_MAX
    return sum(_clear(Target(port, [authorization], 0), ends) for authorization in ATTACKERS)


def _clear(target: Target, ends: float) -> int:
    while paths := _jobs(target, ends):
        if time.monotonic() > ends:
            return len(paths)
        deletes = [request("DELETE", path, b"", Authorization=target.authorization) for path in paths]
        with suppress(OSError), target.connect() as connection:
            for at in range(0, len(deletes), _TOGETHER):
                exchange(connection, deletes[at : at + _TOGETHER])
    return 0


def _jobs(target: Target, ends: float) -> list[str]:
    """The paths of its newest jobs."""
    while True:
        with closing(http.client.HTTPConnection("127.0.0.1", target.port, timeout=_CLEAR_SECONDS_MAX)) as client:
            client.request("GET", f"/v1/jobs?limit={_LISTED}", headers={"Authorization": target.authorization})
            answer = client.getresponse()
            body = answer.read()
        if answer.status == HTTPStatus.OK:
            return [job["links"]["self"] for job in orjson.loads(body)["jobs"]]
        assert time.monotonic() < ends, body
