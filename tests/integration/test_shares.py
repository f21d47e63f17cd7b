"""One owner takes all that he can get of what owners share; another one is never refused. Real processes."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import orjson
import pytest

from bench.hostile.attackers import Attackers
from bench.hostile.shares import ATTACKS_ON_SHARES, STREAMS, UNFINISHED
from tests.support.archives import make_tar
from tests.support.processes import Api
from tests.support.stack import PNG, Stack
from tests.support.uploads import TAR
from tests.support.waiting import wait_until

MEMORY_BYTES = 24 << 20  # 12 MiB of uploads, 7.2 MiB of records
OWNERS = ["bob", *(f"attacker{number}" for number in range(len(ATTACKS_ON_SHARES)))]
KEYS = {owner: f"{owner}-key-0123456789" for owner in OWNERS}
SETTINGS = {
    "API_KEYS": orjson.dumps(KEYS).decode(),
    "UPLOAD_BYTES_MAX": str(10 << 20),
    "ITEM_BYTES_MAX": str(5 << 20),
    "OPEN_JOB_SECONDS_MAX": "3600",
}
OTHERS_SUBMITS = 20

FULL = {
    f"{STREAMS} uploads that do not go on": "a tar",
    f"{UNFINISHED} images that lack their end": "an image",
    f"{STREAMS} event streams": "events",
    "open jobs without images": "an open job",
    "images that fill the interactive lane": "an image",
    "results that fill the records": "an open job",
}
"""What the attacker is refused once an attack has got all that it can get."""


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with Stack(tmp_path_factory.mktemp("stack"), maxmemory_bytes=MEMORY_BYTES, **SETTINGS) as stack:
        api = stack.api()
        stack.worker(1)
        yield api


@pytest.fixture(scope="module")
def attackers() -> Iterator[Attackers]:
    with Attackers() as attackers:
        yield attackers


def client_of(api: Api, owner: str) -> httpx.Client:
    return httpx.Client(base_url=api.url, headers={"Authorization": f"Bearer {KEYS[owner]}"}, timeout=90)


def refusal(client: httpx.Client, what: str, shirt: bytes, events: str) -> bool:
    """Whether the owner of this client is refused for what others leave him."""
    match what:
        case "a tar":
            answer = client.post("/v1/jobs", content=make_tar({"a.png": shirt}), headers=TAR)
        case "an image":
            answer = client.post("/v1/jobs", content=shirt + bytes(4 << 20), headers=PNG)
        case "an open job":
            answer = client.post("/v1/jobs?open=true")
        case _:
            with client.stream("GET", events) as answer:
                assert answer.status_code in (200, 503)
            return answer.status_code == 503
    assert answer.status_code in (202, 503), answer.text
    assert answer.status_code == 202 or "Retry-After" in answer.headers
    return answer.status_code == 503


def everything_succeeds(client: httpx.Client, shirt: bytes, events: str) -> None:
    for _ in range(OTHERS_SUBMITS):
        answer = client.post("/v1/jobs", content=shirt, headers={**PNG, "Prefer": "wait=60"})
        assert (answer.status_code, answer.json()["status"]) == (200, "completed"), answer.text
    assert client.post("/v1/jobs", content=make_tar({"a.png": shirt}), headers=TAR).status_code == 202
    opened = client.post("/v1/jobs?open=true")
    assert opened.status_code == 202
    with client.stream("GET", events) as answer:
        assert answer.status_code == 200
    assert client.delete(opened.headers["Location"]).status_code == 204


@pytest.mark.parametrize("attack", ATTACKS_ON_SHARES)
def test_another_owner_is_never_refused(api: Api, attackers: Attackers, shirt: bytes, attack: str) -> None:
    owner = f"attacker{list(ATTACKS_ON_SHARES).index(attack)}"
    with client_of(api, owner) as attacker, client_of(api, "bob") as bob:
        paths = [client.post("/v1/jobs?open=true").headers["Location"] for client in (attacker, bob)]
        events = [f"{path}/events" for path in paths]
        with attackers.attacking(attack, api.port, f"Bearer {KEYS[owner]}", seconds=600):
            wait_until(lambda: refusal(attacker, FULL[attack], shirt, events[0]), what="a refusal of the attacker")
            everything_succeeds(bob, shirt, events[1])


def test_results_of_another_owner_stay_while_those_of_who_has_most_go(tmp_path: Path, shirt: bytes) -> None:
    settings = SETTINGS | {"MIN_RESULT_TTL_SECONDS": "0.001"}
    tar = make_tar({f"{n:05}{'x' * 200}.png": b"no picture" for n in range(500)})
    with Stack(tmp_path, maxmemory_bytes=MEMORY_BYTES, **settings) as stack:
        api = stack.api()
        stack.worker(1)
        with client_of(api, OWNERS[1]) as attacker, client_of(api, "bob") as bob:
            kept = bob.post("/v1/jobs", content=shirt, headers={**PNG, "Prefer": "wait=60"}).json()["id"]
            first = attacker.post("/v1/jobs", content=tar, headers=TAR).headers["Location"]

            def is_gone() -> bool:
                assert attacker.post("/v1/jobs", content=tar, headers=TAR).status_code in (202, 503)
                return attacker.get(first).status_code == 410

            wait_until(is_gone, what="the end of the attacker's first result")
            assert bob.get(f"/v1/jobs/{kept}").status_code == 200
