import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from jobs.settings import StoreSettings
from jobs.store.for_api.api_key_registry import ApiKeyRegistry
from jobs.store.for_api.api_keys import KeyLimits, Scope
from tests.support.waiting import POLL_SECONDS

Headers = dict[str, str]
MakeKey = Callable[..., Headers]


@pytest.fixture
def registry(store_settings: StoreSettings) -> ApiKeyRegistry:
    return ApiKeyRegistry(store_settings)


@pytest.fixture
def make_key(registry: ApiKeyRegistry) -> MakeKey:
    """Makes a key. Returns the header of requests with it."""

    def make(owner: str = "alice", *, scope: Scope = Scope.ALL, **limits: Any) -> Headers:
        _, key = registry.create(owner, scope, KeyLimits(**limits))
        return {"Authorization": f"Bearer {key}"}

    return make


async def answers(api: httpx.AsyncClient, status: int, headers: dict[str, str]) -> httpx.Response:
    """Wait until the API answers a poll with this status."""
    async with asyncio.timeout(30):
        while True:
            answer = await api.get("/v1/jobs", headers=headers)
            if answer.status_code == status:
                return answer
            await asyncio.sleep(POLL_SECONDS)


def id_of(headers: Headers) -> str:
    return headers["Authorization"].split("_")[1]
