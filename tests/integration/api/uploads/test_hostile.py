"""Hostile uploads over a socket, against a real API and a real Valkey: no 500, and a refused upload leaves nothing.

The workers' side: `tests/unit/worker/inference/images/test_hostile_images.py`;
many more of these: `bench/hostile/damaged.py`.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import httpx
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.settings import StoreSettings
from jobs.store import keys
from jobs.store.for_workers.leases import LeaseStore
from tests.support.hostile import kinds, upload
from tests.support.processes import MAXMEMORY_BYTES, Api, Valkey

SETTINGS = {
    "WAIT_SECONDS_MAX": "0.1",
    "PREDICT_WAIT_SECONDS": "0.05",  # there is no worker
    "HELD_STREAM_SECONDS_MAX": "0.2",
    "ROOM_WAIT_SECONDS_MAX": "0.1",
    "S3_ENDPOINT_URL": "http://127.0.0.1:9",  # a closed port
    "S3_ALLOW_HTTP": "true",
    "S3_LIST_SECONDS_MAX": "0.1",
    "UPLOAD_BYTES_MAX": str(16 << 20),
}
bounded = settings(
    database=None,
    deadline=None,
    derandomize=True,
    max_examples=120,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
randoms = st.integers(0, 2**32).map(Random)


@pytest.fixture(scope="module")
def served(_valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with _valkey.client as client:
        client.flushall()
    with Api(_valkey.url, tmp_path_factory.mktemp("api") / "api.log", **SETTINGS) as api:
        yield api
    assert "Traceback" not in api.output()
    assert "ERROR" not in api.output()


@pytest.fixture(scope="module")
def client(served: Api) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def store(served: Api, _valkey: Valkey) -> Iterator["redis.Redis[bytes]"]:
    with _valkey.client as store:
        yield store


@pytest.fixture(scope="module")
def leases(_valkey: Valkey) -> Iterator[LeaseStore]:
    store_settings = StoreSettings(redis_url=_valkey.url, redis_maxmemory_bytes=MAXMEMORY_BYTES)
    leases = LeaseStore(store_settings, lease_seconds=4, timeout_seconds=5)
    yield leases
    leases.close()


def assert_is_success_or_problem(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["code"]
    no_worker = answer.request.url.path == "/predict" and problem["code"] == "wait_timeout"
    assert answer.status_code < 500 or problem["code"] == "queue_full" or no_worker, answer.text


def open_files(pid: int) -> list[str]:
    """Open files other than sockets: a client may have opened one more connection."""
    targets = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
    return sorted(target for target in targets if not target.startswith("socket:"))


def assert_nothing_is_left(client: httpx.Client, store: "redis.Redis[bytes]", leases: LeaseStore) -> None:
    """After deleting every accepted job and a sweep."""
    while jobs := client.get("/v1/jobs?limit=1000").json()["jobs"]:
        for job in jobs:
            assert client.delete(job["links"]["self"]).status_code == 204
    leases.sweep(["fmnist-mlp"], seconds=30)
    assert store.keys(keys.JOB + "*") == store.keys(keys.UPLOAD + "*") == store.keys(keys.IDEMPOTENCY_KEY + "*") == []
    counted = {name: int(store.hget(keys.STATS, name) or 0) for name in ("uploads", "records", "pending:public")}
    assert counted == {"uploads": 0, "records": 0, "pending:public": 0}


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/{id}/items"])
@pytest.mark.parametrize("kind", kinds())
def test_a_damaged_upload_is_accepted_or_refused_and_leaves_nothing(
    kind: str, path: str, served: Api, client: httpx.Client, store: "redis.Redis[bytes]", leases: LeaseStore
) -> None:
    statuses, files = Counter[int](), open_files(served.pid)

    @bounded
    @given(randoms)
    def send(random: Random) -> None:
        it = upload(random, kind)
        to = it.path
        if path != "/v1/jobs":
            to = client.post("/v1/jobs?open=true").json()["links"]["self"] + "/items"
        before = set(store.keys())
        answer = client.post(to, content=it.body, headers={"Content-Type": it.content_type})
        assert_is_success_or_problem(answer)
        statuses[answer.status_code] += 1
        if path == "/v1/jobs" and answer.is_client_error and "job_id" not in answer.json():  # chunks of a part may stay
            assert set(store.keys()) <= before

    send()
    assert_nothing_is_left(client, store, leases)
    assert statuses[202]
    assert statuses[422]
    assert open_files(served.pid) == files
