"""A real API behind a real edge, for the tests of one file."""

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.support.deploy.edge import AUTHORIZED, KEY, Edge
from tests.support.processes import Api
from tests.support.stack import Stack


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
