"""A real API behind a real edge, for the tests of one file; and one stack under compose, for those of several."""

import json
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.support.deploy.compose import Compose, caddy_image
from tests.support.deploy.edge import AUTHORIZED, KEY, Edge
from tests.support.processes import Api
from tests.support.stack import Stack
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack"), API_KEYS=json.dumps({"alice": KEY})) as stack:
        yield stack


@pytest.fixture(scope="module")
def api(stack: Stack) -> Api:
    stack.worker(children=1)
    return stack.api(DOMAIN="localhost")


@pytest.fixture(scope="module")
def edge(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with Edge(f"127.0.0.1:{api.port}", tmp_path_factory.mktemp("edge")) as edge:
        yield edge


@pytest.fixture
def client(edge: Edge) -> Iterator[httpx.Client]:
    with edge.client() as client:
        client.headers.update(AUTHORIZED)
        yield client


@pytest.fixture(scope="session")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """The stack, one container of each service."""
    compose = Compose()
    with caddy_image(tmp_path_factory.mktemp("caddy")):
        compose("build")
    try:
        compose.make_key()
        started = time.monotonic()
        compose("up", "--detach")
        result = wait_until(compose.first_result, seconds=120, what="the first result")
        compose.seconds_to_first_result = time.monotonic() - started
        assert result["class"] == "Bag"
        yield compose
    finally:
        compose("down", "--volumes", "--timeout", "30", check=False)
