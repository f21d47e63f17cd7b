"""A stack of an API, a worker and an outbound worker that have done some work, and a Prometheus that scrapes them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.archives import make_zip
from tests.support.pictures import samples
from tests.support.processes import MAXMEMORY_BYTES, Api, Process, free_port
from tests.support.prometheus import Prometheus
from tests.support.stack import PNG, Stack

ZIP = {"Content-Type": "application/zip"}


@contextmanager
def monitored(folder: Path) -> Iterator[tuple[Prometheus, Api]]:
    ports = {service: free_port() for service in ("api", "worker", "outbound")}
    settings = {service: {"METRICS_PORT": str(port)} for service, port in ports.items()}
    with Stack(folder) as stack, Prometheus(folder / "prometheus", ports) as prometheus:
        api = stack.api(**settings["api"])
        environment = {"REDIS_URL": stack.valkey.url, "REDIS_MAXMEMORY_BYTES": str(MAXMEMORY_BYTES)}
        outbound = [sys.executable, "-m", "worker.outbound"]
        with Process(outbound, folder / "outbound.log", environment | settings["outbound"]):
            stack.worker(**settings["worker"])
            work(api)
            yield prometheus, api


def work(api: Api) -> None:
    """Images one by one and in an archive, by reference, a bad one, and a request that is refused."""
    images = samples()
    with httpx.Client(base_url=api.url, timeout=60) as client:
        for image in [*images.values(), b"no image"]:
            client.post("/v1/jobs", content=image, headers=PNG | {"Prefer": "wait=20"})
        jobs = [
            client.post("/v1/jobs", content=make_zip(images), headers=ZIP),
            client.post("/v1/jobs", json={"urls": ["http://127.0.0.1:1/shirt.png"]}),
        ]
        for job in jobs:
            assert client.get(f"{job.headers['Location']}?wait=30").json()["status"] in ("completed", "failed")
        client.get("/v1/jobs/nothing")
