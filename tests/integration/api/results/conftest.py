import httpx
import pytest

from tests.integration.api.conftest import StartApi
from tests.support.completions import ObservedCompletions


@pytest.fixture
async def notified_api(start_api: StartApi, observed_completions: ObservedCompletions) -> httpx.AsyncClient:
    """An API whose waiters are woken by notices alone: it never rereads the jobs that they await."""
    return await start_api(reread_seconds=3600)
