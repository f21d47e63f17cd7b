import httpx
import pytest

from tests.integration.api.conftest import StartApi
from tests.support.completions import ObservedCompletions


@pytest.fixture
async def notified_api(
    start_api: StartApi, observed_completions: ObservedCompletions, monkeypatch: pytest.MonkeyPatch
) -> httpx.AsyncClient:
    """An API whose waiters are woken by notices alone: it never rereads the jobs that they await."""
    monkeypatch.setattr("api.results.completion.REREAD_SECONDS", 3600)
    return await start_api()
