"""What Prometheus reads of a real stack, and that nobody can make it grow."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import httpx
import orjson
import pytest

from api.admin import main as admin
from jobs.store import keys
from jobs.store.store_figures import NAMES_SHOWN_MAX, OTHERS, STORE_UP
from tests.support.metrics import Samples, label_values, names, scraped, value, without
from tests.support.pictures import samples
from tests.support.processes import MAXMEMORY_BYTES, MODEL, ROOT, Worker, free_port
from tests.support.stack import PNG, Stack
from tests.support.waiting import wait_until

OF_PROCESSES = ("darkroom_request_", "process_", "python_")


class Services(NamedTuple):
    worker: Worker
    ports: tuple[int, int]
    """Where Prometheus reads the API and the worker."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture(scope="module")
def services(stack: Stack) -> Services:
    """Of an API with two processes and of a worker with two children, which have done some work."""
    api_port, worker_port = free_port(), free_port()
    api = stack.api(METRICS_PORT=str(api_port), API_PROCESSES="2")
    worker = stack.worker(METRICS_PORT=str(worker_port))
    with httpx.Client(base_url=api.url, timeout=30) as client:
        for image in [*samples().values(), b"no image"]:  # with a connection each: both processes get some
            headers = PNG | {"Prefer": "wait=20", "Connection": "close"}
            assert client.post("/v1/jobs", content=image, headers=headers).status_code == 200
        client.get("/web/main.js")
        for odd in range(20):
            client.request(("PUT", "PROPFIND", "LOCK", "PATCH")[odd % 4], "/v1/jobs")
            client.get(f"/nothing/{odd}")
            client.get(f"/v1/jobs/{odd}")
    return Services(worker, (api_port, worker_port))


@pytest.fixture(scope="module")
def ports(services: Services) -> tuple[int, int]:
    return services.ports


def test_one_port_has_the_requests_of_all_api_processes_by_route(ports: tuple[int, int]) -> None:
    found = scraped(ports[0])
    count = "darkroom_request_seconds_count"
    assert value(found, count, method="POST", route="/v1/jobs", status="200") == len(samples()) + 1
    assert value(found, count, method="GET", route="/v1/jobs/{job_id}", status="404") == 20
    assert value(found, count, route="static", status="200") == 1


def test_no_label_is_one_that_a_client_can_choose(ports: tuple[int, int]) -> None:
    found = scraped(ports[0])
    count = "darkroom_request_seconds_count"
    assert value(found, count, method="other", route="/v1/jobs", status="405") == 20
    assert value(found, count, method="other", route="other", status="404") == 20
    assert label_values(found, "method") == {"GET", "POST", "other"}
    routes = label_values(found, "route")
    assert routes == {"/livez", "/v1/jobs", "/v1/jobs/{job_id}", "static", "other"}
    for port in ports:
        assert not {"owner", "job", "job_id", "path"} & {label for _, labels in scraped(port) for label, _ in labels}


def test_a_worker_counts_what_its_children_do(ports: tuple[int, int]) -> None:
    found = scraped(ports[1])
    assert value(found, "darkroom_items_total", model=MODEL, result="succeeded") == len(samples())
    assert value(found, "darkroom_items_total", model=MODEL, result="not_an_image") == 1
    assert value(found, "darkroom_batch_items_sum", model=MODEL) == len(samples())
    for stage in ("decode", "forward"):
        assert value(found, "darkroom_batch_seconds_sum", model=MODEL, stage=stage) > 0
    assert 0 < value(found, "darkroom_queue_seconds_sum", model=MODEL) < 600
    assert value(found, "darkroom_store_call_seconds_count", call="claim") > 0
    assert label_values(found, "code") == {"worker_crashed", "timeout", "out_of_memory"}


def test_both_show_the_same_figures_of_the_store_and_so_does_the_command(
    stack: Stack, ports: tuple[int, int], monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    moving = ("darkroom_redis_memory_used",)
    api, worker = (without(scraped(port), *OF_PROCESSES, *moving) for port in ports)
    of_store = {key: it for key, it in worker.items() if key in api}
    assert of_store == api
    assert value(api, STORE_UP) == 1
    assert value(api, "darkroom_ended_items_total") == len(samples()) + 1
    assert value(api, "darkroom_serving_processes", model=MODEL, version="1") == 2
    assert value(api, "darkroom_budget_limit_bytes", budget="uploads") == MAXMEMORY_BYTES // 2

    monkeypatch.setenv("REDIS_URL", stack.valkey.url)
    monkeypatch.setenv("REDIS_MAXMEMORY_BYTES", str(MAXMEMORY_BYTES))
    admin(["status", "--json"])
    shown: Samples = {
        (name, frozenset(each["labels"].items())): each["value"]
        for name, values in orjson.loads(capsysbinary.readouterr().out).items()
        for each in values
    }
    assert without(shown, *moving) == {(_bare(name), labels): it for (name, labels), it in api.items()}
    admin(["status"])
    text = capsysbinary.readouterr().out.decode()
    assert "nothing waits" in text
    assert f"serving processes {MODEL} 1".ljust(34) + "2\n" in text


def _bare(name: str) -> str:
    return name.removesuffix("_total")


def test_a_thousand_models_names_stay_a_bounded_number_of_series(stack: Stack, ports: tuple[int, int]) -> None:
    size = len(scraped(ports[0]))
    refs = {f"model-{number}@1": b"{}" for number in range(1000)}
    stack.redis.hset(keys.MODEL_CARDS, mapping=refs)
    try:
        found = wait_until(lambda: _with(scraped(ports[0]), OTHERS), seconds=20, what="the names of many models")
        assert len(label_values(found, "model")) == NAMES_SHOWN_MAX + 1
        assert value(found, "darkroom_serving_processes", model=MODEL, version="1") == 2, "served ones are shown first"
        assert len(found) - size < 20 * NAMES_SHOWN_MAX
    finally:
        stack.redis.hdel(keys.MODEL_CARDS, *refs)


def _with(found: Samples, model: str) -> Samples | None:
    return found if model in label_values(found, "model") else None


def test_a_child_that_is_killed_is_counted_and_takes_nothing_back(services: Services) -> None:
    port = services.ports[1]
    before = scraped(port)
    for child in services.worker.children():
        os.kill(child, signal.SIGKILL)
    wait_until(lambda: value(scraped(port), "darkroom_child_restarts_total") == 2, seconds=90, what="two new children")
    after = scraped(port)
    counters = {key: it for key, it in before.items() if key[0].endswith(("_total", "_count", "_bucket"))}
    assert {key for key, it in counters.items() if after[key] < it} == set()
    assert value(after, "darkroom_items_total", result="succeeded") == len(samples())


def test_without_redis_the_processes_own_numbers_are_there(stack: Stack, services: Services) -> None:
    stack.valkey.kill()
    try:
        away = wait_until(lambda: _without_store(scraped(services.ports[1])), seconds=20, what="a scrape")
        assert value(away, "darkroom_items_total", result="succeeded") == len(samples())
        assert names(away) & {"darkroom_queue_chunks", "darkroom_pending_items"} == set()
    finally:
        stack.valkey.start()
    wait_until(lambda: value(scraped(services.ports[1]), STORE_UP) == 1, seconds=30, what="the store's figures")


def _without_store(found: Samples) -> Samples | None:
    return found if value(found, STORE_UP) == 0 else None


@pytest.mark.parametrize("module", ["api", "worker", "worker.outbound"])
def test_a_port_that_is_taken_or_none_is_one_line(stack: Stack, ports: tuple[int, int], module: str) -> None:
    for port, reason in ((str(ports[0]), f"port {ports[0]} on 127.0.0.1 cannot be used"), ("70000", "less than")):
        environment = {**os.environ, "REDIS_URL": stack.valkey.url, "METRICS_PORT": port, "PORT": str(free_port())}
        environment["REDIS_MAXMEMORY_BYTES"] = str(MAXMEMORY_BYTES)
        done = subprocess.run(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        assert reason in done.stderr, done.stderr
        assert "METRICS_PORT" in done.stderr
        assert "Traceback" not in done.stderr


def test_the_command_says_that_redis_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(SystemExit, match="darkroom-admin: "):
        admin(["status"])
    for seconds in ("0", "abc", "3601"):
        with pytest.raises(SystemExit, match="2"):
            admin(["status", "--watch", seconds])


def test_the_command_watches_until_it_is_interrupted(stack: Stack, ports: tuple[int, int]) -> None:
    environment = {**os.environ, "REDIS_URL": stack.valkey.url}
    watching = subprocess.Popen(
        [sys.executable, "-m", "api.admin", "status", "--watch", "1"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert watching.stdout is not None
    seen = 0
    for line in watching.stdout:
        seen += line.startswith("store up")
        if seen == 2:
            break
    watching.send_signal(signal.SIGINT)
    _, errors = watching.communicate(timeout=30)
    assert (watching.returncode, errors) == (130, "")
