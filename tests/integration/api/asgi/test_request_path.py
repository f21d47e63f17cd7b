"""The one way from a request to its route and back: the routing table, and errors before and during a response."""

from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest

from api.app import create_app
from api.asgi.endpoint import EndpointRoute
from api.results.export import ResultLines
from api.settings import ApiSettings
from tests.support.processes import ROOT

PNG = {"Content-Type": "image/png"}
NDJSON = {"Accept": "application/x-ndjson"}


def test_the_two_calls_of_a_load_are_the_first_two_routes() -> None:
    app = create_app(ApiSettings(models_dir=ROOT / "weights"))
    first, second = app.routes[:2]
    assert isinstance(first, EndpointRoute)
    assert isinstance(second, EndpointRoute)
    assert (first.path, first.methods) == ("/v1/jobs", {"POST"})
    assert (second.path, second.methods) == ("/v1/jobs/{job_id}", {"GET"})


def test_no_route_takes_fastapis_own_way() -> None:
    app = create_app(ApiSettings(models_dir=ROOT / "weights"))
    others = [route for route in app.routes if not isinstance(route, EndpointRoute)]
    assert [getattr(route, "path", "") for route in others] == ["/openapi.json", "/web", "/docs/assets"]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_a_path_without_a_route_is_a_problem(api: httpx.AsyncClient, method: str) -> None:
    for path in ("/nothing-here", "/v1/jobs/", "/v1/jobs/a/b", "/docs/assets/nothing-here"):
        response = await api.request(method, path)
        assert response.headers["Content-Type"] == "application/problem+json"
        assert response.status_code in {404, 405}
        assert response.json()["code"] in {"not_found", "method_not_allowed"}


@pytest.mark.parametrize("lines", [0, 1])
async def test_an_error_in_a_response_that_has_started_ends_the_connection(
    api: httpx.AsyncClient,
    shirt: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    lines: int,
) -> None:
    path = (await api.post("/v1/jobs", content=shirt, headers=PNG)).headers["Location"]

    async def fail(*_: Any, **__: Any) -> AsyncGenerator[bytes]:
        for _number in range(lines):
            yield b"{}\n"
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(ResultLines, "of", fail)
    if lines == 0:  # the first line is read before the response starts
        response = await api.get(f"{path}/results", headers=NDJSON)
        assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    else:
        with pytest.raises(httpx.RemoteProtocolError):
            await api.get(f"{path}/results", headers=NDJSON)
    assert "unforeseen" in caplog.text
    assert (await api.get(path)).status_code == 200, "the server goes on"
