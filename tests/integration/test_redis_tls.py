"""`rediss://`: each part that connects to Redis verifies the server's certificate and its name."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import redis.exceptions
from celery import Celery

from api.results.completion import JobCompletions
from jobs.errors import SettingsError, StoreUnavailable
from jobs.settings import StoreSettings, load
from jobs.store.for_api.client import StoreClient
from jobs.store.for_api.job_reader import JobReader
from jobs.store.for_workers.worker_store import WorkerStore
from jobs.store.redis_url import address_of
from jobs.store.server_check import check_server
from jobs.store.server_rights import API
from tests.support.deploy.tls import Certificate, TlsFront
from tests.support.processes import MAXMEMORY_BYTES, Api, Process, Valkey, Worker
from tests.support.stack import PNG
from tests.support.waiting import eventually, wait_until
from worker.broker import DoorbellAMQP
from worker.celery_app import _broker_url


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate.make(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.fixture
def front(certificate: Certificate, valkey: Valkey) -> Iterator[TlsFront]:
    with TlsFront(certificate, valkey.socket) as front:
        yield front


def store_settings(url: str) -> StoreSettings:
    return StoreSettings(redis_url=url, redis_maxmemory_bytes=MAXMEMORY_BYTES)


async def check_with_api_client(url: str) -> None:
    client = StoreClient(store_settings(url), timeout_seconds=5)
    client.start()
    try:
        await client.ready()
    finally:
        await client.close()
        await asyncio.sleep(0)  # a handshake that failed has closed its transport only after another turn of the loop


async def check_with_worker_store(url: str) -> None:
    with closing(WorkerStore(store_settings(url), lease_seconds=4, timeout_seconds=5)) as worker_store:
        worker_store.show_load_errors("here", {}, seconds=1)


async def check_with_broker(url: str) -> None:
    app = Celery("test", broker=_broker_url(url), amqp=DoorbellAMQP, set_as_current=False)
    with app, app.connection_for_read() as connection:
        connection.connect()


async def check_at_start(url: str) -> None:
    check_server(store_settings(url), API)


PARTS = {
    "API client": (check_with_api_client, StoreUnavailable),
    "worker store": (check_with_worker_store, redis.exceptions.ConnectionError),
    "broker": (check_with_broker, redis.exceptions.ConnectionError),  # Celery's connection, for doorbells
    "check at start": (check_at_start, SettingsError),
}


@pytest.mark.parametrize("part", PARTS)
async def test_a_certificate_of_an_unknown_authority_is_refused(front: TlsFront, part: str) -> None:
    check, refusal = PARTS[part]
    with pytest.raises(refusal):
        await check(f"rediss://localhost:{front.port}/0")


@pytest.mark.parametrize("part", PARTS)
async def test_a_certificate_of_another_host_is_refused(front: TlsFront, certificate: Certificate, part: str) -> None:
    check, refusal = PARTS[part]
    with pytest.raises(refusal):
        await check(f"rediss://127.0.0.1:{front.port}/0?ssl_ca_certs={certificate.certificate}")


@pytest.mark.parametrize("part", PARTS)
async def test_a_certificate_of_a_named_authority_is_accepted(
    front: TlsFront, certificate: Certificate, part: str
) -> None:
    check, _ = PARTS[part]
    await check(f"rediss://localhost:{front.port}/0?ssl_ca_certs={certificate.certificate}")


@pytest.mark.parametrize("query", ["", "?ssl_ca_certs={}"])
async def test_the_subscription_verifies(
    front: TlsFront, certificate: Certificate, valkey: Valkey, caplog: pytest.LogCaptureFixture, query: str
) -> None:
    url = f"rediss://localhost:{front.port}/0{query.format(certificate.certificate)}"
    client = StoreClient(store_settings(valkey.url), timeout_seconds=5)
    completions = JobCompletions(JobReader(client), url, client.database)
    completions.start()
    try:
        with valkey.client as redis_client:
            if query:
                await eventually(redis_client.pubsub_channels, what="a subscription")
            else:
                await eventually(lambda: "CERTIFICATE_VERIFY_FAILED" in caplog.text, what="a refusal")
                assert redis_client.pubsub_channels() == []
    finally:
        await completions.close()
        await client.close()


@pytest.mark.parametrize(
    ("scheme", "query", "reason"),
    [
        ("rediss", "ssl_cert_reqs=none", "ssl_cert_reqs=none would accept any server"),
        ("rediss", "ssl_cert_reqs=optional", "ssl_cert_reqs=optional would accept any server"),
        ("rediss", "ssl_cert_reqs=CERT_NONE", "ssl_cert_reqs=CERT_NONE would accept any server"),
        ("rediss", "ssl_check_hostname=false", "ssl_check_hostname=false would accept any server"),
        ("rediss", "ssl_ca_path=/etc", "ssl_ca_path is not supported"),
        ("rediss", "ssl_ca_certs=/absent.pem&ssl_cert_reqs=none", "ssl_cert_reqs=none would accept any server"),
        ("rediss", "#", "# must be written as %23"),  # Celery's parameter would come behind it
        ("rediss", "db=1#a", "# must be written as %23"),
        ("redis", "ssl_ca_certs=/absent.pem", "ssl_ca_certs needs a URL that begins with rediss://"),
    ],
)
def test_parameters_that_would_not_verify_are_refused(scheme: str, query: str, reason: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(StoreSettings, redis_url=f"{scheme}://:a-password@localhost/0?{query}")
    assert str(refused.value).startswith(f"REDIS_URL: {reason}")
    assert "a-password" not in str(refused.value)


@pytest.mark.parametrize("query", ["ssl_ca_certs=/absent.pem", "ssl_certfile=/dev/null"])
def test_files_that_cannot_be_read_are_named_at_start(query: str) -> None:
    with pytest.raises(SettingsError, match="REDIS_URL: a file of TLS cannot be read: "):
        address_of(f"rediss://localhost/0?{query}")


@pytest.mark.parametrize("url", ["REDISS://:a-password@localhost/0", "rediss://:a-password@localhost/0?db=x"])
def test_a_url_that_redis_py_does_not_understand_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(SettingsError, match="REDIS_URL: ") as refused:
        address_of(load(StoreSettings, redis_url=url).redis_url)
    assert "a-password" not in str(refused.value)


@pytest.mark.parametrize("query", ["ssl_cert_reqs=required", "ssl_check_hostname=true", "ssl_check_hostname=True"])
def test_parameters_that_say_what_is_done_are_accepted(query: str) -> None:
    url = f"rediss://localhost/0?{query}"
    assert store_settings(url).redis_url == url


@pytest.mark.parametrize("service", ["api", "worker", "worker.outbound"])
@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "the server's certificate is refused: "),
        ("?ssl_ca_certs=OTHER", "the server's certificate is refused: "),
        ("?ssl_cert_reqs=none", "ssl_cert_reqs=none would accept any"),
    ],
)
def test_a_service_that_cannot_verify_stops_with_one_line(
    front: TlsFront, tmp_path: Path, service: str, query: str, reason: str
) -> None:
    other = Certificate.make(tmp_path, "localhost").certificate
    url = f"rediss://localhost:{front.port}/0{query.replace('OTHER', str(other))}"
    environment = {"REDIS_URL": url, "MODEL": "fmnist-mlp"}
    with Process([sys.executable, "-m", service], tmp_path / "log", environment) as process:
        assert process.wait(60) == 1
        (line,) = process.output().splitlines()
        assert line.startswith(f"darkroom {service.rpartition('.')[2]}: REDIS_URL: {reason}")


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "CERTIFICATE_VERIFY_FAILED"),
        ("?ssl_cert_reqs=none", "REDIS_URL: ssl_cert_reqs=none would accept any server"),
        ("?ssl_ca_certs=/absent.pem", "REDIS_URL: a file of TLS cannot be read"),
    ],
)
def test_the_command_for_keys_verifies(front: TlsFront, tmp_path: Path, query: str, reason: str) -> None:
    command = [sys.executable, "-m", "api.admin", "keys", "create", "alice"]
    environment = {"REDIS_URL": f"rediss://localhost:{front.port}/0{query}"}
    with Process(command, tmp_path / "log", environment) as process:
        assert process.wait(60) == 1
        (line,) = process.output().splitlines()
    assert line.startswith("darkroom-admin: ")
    assert reason in line


def test_a_whole_stack_works_over_tls(
    front: TlsFront, certificate: Certificate, valkey: Valkey, tmp_path: Path, shirt: bytes
) -> None:
    url = f"rediss://localhost:{front.port}/0?ssl_ca_certs={certificate.certificate}"
    with Api(url, tmp_path / "api.log") as api, Worker(url, tmp_path / "worker.log", children=1), valkey.client as own:
        own.lpush("darkroom.fmnist-mlp", own.get("bell:fmnist-mlp") or b"")
        wait_until(lambda: own.llen("darkroom.fmnist-mlp") == 0, what="a doorbell that is taken")
        headers = PNG | {"Prefer": "wait=20"}
        answer = httpx.post(f"{api.url}/v1/jobs", content=shirt, headers=headers, timeout=30)
        assert answer.json()["result"]["class"] == "Shirt"
