"""Managed keys over HTTP: who is let in, what a key may do, and attacks."""

from collections.abc import Callable
from functools import partial

import httpx
from fastapi.routing import APIRoute

from api.app import create_app
from api.settings import ApiSettings
from jobs.settings import StoreSettings
from jobs.store import keys
from jobs.store.for_api.api_key_registry import ApiKeyRegistry
from jobs.store.for_api.api_keys import KeyLimits, Scope
from tests.integration.api.auth.conftest import MakeKey, answers, id_of
from tests.integration.api.conftest import StartApi
from tests.support.processes import ROOT, Valkey
from tests.support.stack import Stack
from tests.support.store import Store
from tests.support.waiting import eventually, wait_until

PNG = {"Content-Type": "image/png"}
PUBLIC = {"/livez", "/readyz", "/docs", "/docs/start.js"}
REFUSED = {
    "type": "about:blank",
    "title": "A valid API key is required",
    "status": 401,
    "code": "unauthorized",
    "detail": "Send a valid key, as Authorization: Bearer <key>.",
}


async def test_a_key_that_was_made_before_the_start_is_valid_at_the_first_request(
    start_api: StartApi, make_key: MakeKey, shirt: bytes
) -> None:
    key = make_key()
    api = await start_api()
    submitted = await api.post("/v1/jobs", content=shirt, headers=PNG | key)
    assert submitted.status_code == 202
    assert (await api.get(submitted.headers["Location"], headers=key)).status_code == 200
    assert "RateLimit-Policy" not in submitted.headers, "a key without limits carries none"


async def test_the_first_managed_key_closes_the_server_and_others_come_and_go(
    start_api: StartApi, make_key: MakeKey, registry: ApiKeyRegistry
) -> None:
    api = await start_api()
    assert (await api.get("/v1/jobs")).status_code == 200
    first = make_key()
    assert (await answers(api, 401, {})).json() == REFUSED
    assert (await api.get("/v1/jobs", headers=first)).status_code == 200

    second = make_key()
    await answers(api, 200, second)
    registry.revoke(id_of(first))
    assert (await answers(api, 401, first)).json() == REFUSED
    assert (await api.get("/v1/jobs", headers=second)).status_code == 200, "an owner's other key goes on"
    registry.revoke(id_of(second))
    await answers(api, 401, second)
    assert (await api.get("/v1/jobs")).status_code == 401, "closed, even if all keys are revoked"
    assert (await (await start_api()).get("/v1/jobs")).status_code == 401, "also after a start"


async def test_keys_of_the_setting_stay_beside_managed_ones(start_api: StartApi, make_key: MakeKey) -> None:
    api = await start_api(api_keys={"alice": "alice-key-0123456789"})
    managed, configured = make_key("bob"), {"Authorization": "Bearer alice-key-0123456789"}
    await answers(api, 200, managed)
    assert (await api.get("/v1/jobs", headers=configured)).status_code == 200


async def test_a_key_that_is_wrong_revoked_expired_or_absent_gets_the_same_answer(
    start_api: StartApi, make_key: MakeKey, registry: ApiKeyRegistry, valkey: Valkey
) -> None:
    revoked = make_key()
    registry.revoke(id_of(revoked))
    record, text = registry.create("alice", Scope.ALL, KeyLimits(), expires_ms=registry.now_ms() + 3_600_000)
    with valkey.client as client:  # as if an hour had passed
        over = record.model_copy(update={"expires_ms": registry.now_ms() - 1})
        client.hset(keys.API_KEYS, record.id, over.model_dump_json())
    valid = make_key()
    api = await start_api()

    wrong = valid["Authorization"][:-1] + ("A" if valid["Authorization"][-1] != "A" else "B")
    tries: list[dict[str, str]] = [
        {},
        revoked,
        {"Authorization": f"Bearer {text}"},
        {"Authorization": wrong},
        {"Authorization": f"Bearer {record.sha256}"},
        {"Authorization": f"Bearer dk_{id_of(valid)}_"},
        {"Authorization": f"Basic {valid['Authorization'].removeprefix('Bearer ')}"},
    ]
    for headers in tries:
        answer = await api.get("/v1/jobs", headers=headers)
        assert (answer.status_code, answer.json()) == (401, REFUSED), headers
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert (await api.get("/v1/jobs", headers=valid)).status_code == 200


async def test_a_key_expires_while_the_api_runs(start_api: StartApi, registry: ApiKeyRegistry) -> None:
    expires_ms = registry.now_ms() + 1500
    _, text = registry.create("alice", Scope.ALL, KeyLimits(), expires_ms=expires_ms)
    api = await start_api()
    await answers(api, 401, {"Authorization": f"Bearer {text}"})
    assert registry.now_ms() >= expires_ms


async def test_a_key_in_the_query_is_not_a_key(start_api: StartApi, make_key: MakeKey) -> None:
    key = make_key()
    text = key["Authorization"].removeprefix("Bearer ")
    api = await start_api()
    for name in ("api_key", "key", "access_token", "Authorization"):
        answer = await api.get("/v1/jobs", params={name: text})
        assert (answer.status_code, answer.json()) == (401, REFUSED)
        answer = await api.get("/v1/jobs", params={name: text}, headers=key)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_a_job_of_another_owner_is_not_found_with_a_valid_key(
    start_api: StartApi, make_key: MakeKey, shirt: bytes
) -> None:
    alice, bob = make_key("alice"), make_key("bob")
    api = await start_api()
    path = (await api.post("/v1/jobs", content=shirt, headers=PNG | alice)).headers["Location"]
    for method, call in (
        *(("GET", call) for call in ("", "/results", "/events", "/webhook")),
        *(("POST", call) for call in ("/cancel", "/retry", "/seal", "/items")),
        ("DELETE", ""),
    ):
        answer = await api.request(method, path + call, headers=bob)
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found"), f"{method} {call}"
    assert (await api.get(path, headers=alice)).json()["status"] == "queued"


async def test_a_key_of_scope_read_changes_nothing(
    start_api: StartApi, make_key: MakeKey, shirt: bytes, store: Store
) -> None:
    full, read = make_key(), make_key(scope=Scope.READ)
    api = await start_api()
    path = (await api.post("/v1/jobs", content=shirt, headers=PNG | full)).headers["Location"]
    before = store.keys() - {keys.API_KEYS_USED.encode(), keys.WRITE_PROBE.encode()}
    routes = [
        (method, route.path.format(job_id=path.rpartition("/")[2], name="fmnist-mlp"))
        for route in create_app(ApiSettings(models_dir=ROOT / "weights")).routes
        if isinstance(route, APIRoute) and route.path not in PUBLIC
        for method in route.methods
    ]
    assert {method for method, _ in routes} == {"GET", "POST", "DELETE"}
    for method, route in routes:
        if method == "GET":
            answer = (
                await api.head(route, headers=read) if route.endswith("/events") else await api.get(route, headers=read)
            )
            assert answer.status_code == 200, route
        else:
            answer = await api.request(method, route, content=shirt, headers=PNG | read)
            assert (answer.status_code, answer.json()["code"]) == (403, "read_only_key"), f"{method} {route}"
    assert store.keys() - {keys.API_KEYS_USED.encode(), keys.WRITE_PROBE.encode()} == before
    assert (await api.get(path, headers=read)).json()["status"] == "queued"
    assert (await api.head(path, headers=read)).status_code == 200


async def test_the_last_use_is_written_to_the_minute_and_once_a_minute(
    start_api: StartApi, make_key: MakeKey, registry: ApiKeyRegistry, valkey: Valkey
) -> None:
    used, unused = make_key(), make_key()
    api = await start_api()

    def last_use() -> dict[str, int | None]:
        return {record.id: at for record, at in registry.records()}

    before_ms = registry.now_ms() // 60_000 * 60_000
    await answers(api, 200, used)
    await eventually(lambda: last_use()[id_of(used)], what="the last use")
    at = last_use()[id_of(used)]
    assert at is not None
    assert before_ms <= at <= registry.now_ms()
    assert last_use()[id_of(unused)] is None

    with valkey.client as client:

        def calls(command: str) -> int:
            return int(client.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))

        client.config_resetstat()
        rounds = 0
        while rounds < 3:
            await answers(api, 200, used)
            rounds = await eventually(partial(later_than, rounds, partial(calls, "get")), what="a round of the refresh")
        assert calls("hset") <= 1, "one, if a minute began meanwhile"


def later_than(known: int, read: Callable[[], int]) -> int:
    """The number that is read, if it is larger than the known one, else 0."""
    return number if (number := read()) > known else 0


def test_a_revoked_key_is_refused_by_every_process(stack: Stack) -> None:
    """Each of three processes answers on its own."""
    registry = ApiKeyRegistry(StoreSettings(redis_url=stack.valkey.url))
    record, text = registry.create("alice", Scope.ALL, KeyLimits())
    headers = {"Authorization": f"Bearer {text}"}
    api = stack.api(API_PROCESSES="3")

    def statuses() -> set[int]:
        """Of 30 requests, each on a connection of its own."""
        return {httpx.get(f"{api.url}/v1/jobs", headers=headers).status_code for _ in range(30)}

    assert statuses() == {200}
    registry.revoke(record.id)
    wait_until(lambda: statuses() == {401}, what="the end of the key in each process")
    assert statuses() == {401}
