"""What stands between: pages of other origins (CORS), a proxy that serves the API below a path, OPTIONS."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.routing import Mount, Route

from api.app import create_app
from api.asgi.cors import Preflights
from api.asgi.request_id import RequestIdMiddleware
from api.asgi.root_path import WithoutRootPath
from api.settings import ApiSettings
from jobs.errors import SettingsError
from jobs.settings import load
from tests.integration.api.asgi.test_wire import connected, split_response, to_the_end
from tests.support.processes import ROOT, Api, Valkey

ORIGIN = "https://app.example.com"
PNG = {"Content-Type": "image/png"}
EXPOSED = {"location", "retry-after", "x-request-id", "ratelimit", "ratelimit-policy"}
PATHS = [
    "/v1/jobs",
    "/v1/jobs/x",
    "/v1/models",
    "/v1/server",
    "/predict",
    "/livez",
    "/openapi.json",
    "/docs",
    "/nowhere",
]


@pytest.fixture(scope="module")
def behind(_valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API for pages of one origin, below a path."""
    settings = {"CORS_ORIGINS": f'["{ORIGIN}"]', "ROOT_PATH": "/darkroom"}
    with Api(_valkey.url, tmp_path_factory.mktemp("api") / "log", **settings) as api:
        yield api


def preflight(api: Api, path: str, method: str, origin: str = ORIGIN) -> httpx.Response:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization,idempotency-key"}
    return httpx.options(f"{api.url}{path}", headers={"Origin": origin, **asked})


@pytest.mark.parametrize("prefix", ["", "/darkroom"])
@pytest.mark.parametrize("path", PATHS)
def test_a_page_of_an_allowed_origin_may_call_every_route(valkey: Valkey, behind: Api, path: str, prefix: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = preflight(behind, prefix + path, method)
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert method in answer.headers["Access-Control-Allow-Methods"]
        assert "idempotency-key" in answer.headers["Access-Control-Allow-Headers"]
        assert answer.headers["X-Request-Id"]
    answer = httpx.get(behind.url + prefix + path, headers={"Origin": ORIGIN})
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN, "whatever its status"
    assert answer.status_code < 500
    assert {it.strip().lower() for it in answer.headers["Access-Control-Expose-Headers"].split(",")} >= EXPOSED
    assert "Origin" in answer.headers["Vary"]


def test_a_page_of_an_allowed_origin_may_submit_without_a_key(valkey: Valkey, behind: Api, shirt: bytes) -> None:
    headers = PNG | {"Origin": ORIGIN, "Sec-Fetch-Site": "cross-site"}
    answer = httpx.post(f"{behind.url}/v1/jobs", content=shirt, headers=headers)
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (202, ORIGIN)
    headers["Origin"] = "https://evil.example.com"
    assert httpx.post(f"{behind.url}/v1/jobs", content=shirt, headers=headers).status_code == 403


def test_a_page_of_another_origin_may_not(valkey: Valkey, behind: Api) -> None:
    answer = preflight(behind, "/v1/jobs", "POST", "https://evil.example.com")
    assert (answer.status_code, answer.json()["code"]) == (400, "preflight_refused")
    for refused in (answer, httpx.get(f"{behind.url}/livez", headers={"Origin": "https://evil.example.com"})):
        assert "Access-Control-Allow-Origin" not in refused.headers


@pytest.mark.parametrize("prefix", ["", "/darkroom"])
def test_links_begin_with_the_path_of_the_proxy(valkey: Valkey, behind: Api, shirt: bytes, prefix: str) -> None:
    """The proxy strips it or not."""
    answer = httpx.post(f"{behind.url}{prefix}/v1/jobs", content=shirt, headers=PNG)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert answer.headers["Location"] == job["links"]["self"] == f"/darkroom/v1/jobs/{job['id']}"
    assert job["links"]["events"] == f"/darkroom/v1/jobs/{job['id']}/events"
    assert httpx.get(behind.url + job["links"]["results"]).status_code == 200
    assert httpx.get(f"{behind.url}{prefix}/openapi.json").json()["servers"] == [{"url": "/darkroom"}]


@pytest.mark.parametrize("path", ["/darkroomv1/jobs", "/darkroom/darkroom/livez"])
def test_a_path_that_only_looks_like_the_proxys_is_unknown(valkey: Valkey, behind: Api, path: str) -> None:
    assert httpx.get(behind.url + path).status_code == 404


def test_the_path_of_the_proxy_alone_leads_to_its_page(valkey: Valkey, behind: Api) -> None:
    """The page's own addresses are relative to the path with its slash."""
    answer = httpx.get(f"{behind.url}/darkroom")
    assert (answer.status_code, answer.headers["Location"]) == (307, "/darkroom/")
    assert "<title>Darkroom</title>" in httpx.get(f"{behind.url}/darkroom/").text


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/jobs", "GET, HEAD, OPTIONS, POST"),
        ("/v1/jobs/x", "DELETE, GET, HEAD, OPTIONS"),
        ("/v1/jobs/x/results", "GET, HEAD, OPTIONS"),
        ("/v1/jobs/x/seal", "OPTIONS, POST"),
        ("/v1/models", "GET, HEAD, OPTIONS"),
        ("/predict", "OPTIONS, POST"),
        ("/livez", "GET, HEAD, OPTIONS"),
        ("/openapi.json", "GET, HEAD, OPTIONS"),
        ("/docs", "GET, HEAD, OPTIONS"),
        ("/docs/assets/swagger-ui.css", "GET, HEAD, OPTIONS"),
    ],
)
async def test_options_says_what_a_route_takes(api: httpx.AsyncClient, path: str, methods: str) -> None:
    answer = await api.options(path)
    assert (answer.status_code, answer.content, answer.headers["Allow"]) == (204, b"", methods)
    assert answer.headers["X-Request-Id"]
    if "GET" in methods and "/x" not in path:
        head = await api.head(path)
        assert (head.status_code, head.content) == (200, b"")


def methods_by_path() -> dict[str, set[str]]:
    """Of every route of the application, with a value in the place of its parameters."""
    found = dict[str, set[str]]()
    for route in create_app(ApiSettings(models_dir=ROOT / "weights")).routes:
        if isinstance(route, Mount):  # the files of the page
            found[f"{route.path}/main.js"] = {"GET", "HEAD"}
            continue
        assert isinstance(route, Route), route
        found.setdefault(re.sub(r"\{[^}]*\}", "x", route.path), set()).update(route.methods or ())
    return found


async def test_every_route_answers_options_and_head(api: httpx.AsyncClient) -> None:
    routes = methods_by_path()
    assert {"/v1/jobs", "/v1/jobs/x/events", "/v1/jobs/x/webhook", "/v1/server", "/"} <= set(routes)
    for path, methods in routes.items():
        answer = await api.options(path)
        assert (answer.status_code, answer.content) == (204, b""), path
        more = {"HEAD", "OPTIONS"} if "GET" in methods else {"OPTIONS"}
        assert answer.headers["Allow"] == ", ".join(sorted(methods | more)), path
        if "GET" in methods:
            head, whole = await api.head(path), await api.get(path)
            assert (head.status_code, head.content) == (whole.status_code, b""), path
            assert head.headers.get("Content-Type") == whole.headers.get("Content-Type"), path


async def test_options_of_an_unknown_path_is_404(api: httpx.AsyncClient) -> None:
    assert (await api.options("/nowhere")).status_code == 404


def test_without_the_settings_no_layer_stands_in_the_way() -> None:
    def layers(**settings: object) -> list[type]:
        app = create_app(ApiSettings(models_dir=ROOT / "weights", **settings))
        found, layer = list[type](), app.middleware_stack
        while layer is not None:
            found.append(type(layer))
            layer = getattr(layer, "_app", None) or getattr(layer, "app", None)
        return found

    assert not {Preflights, WithoutRootPath} & set(layers())
    assert {RequestIdMiddleware, Preflights, WithoutRootPath} <= set(layers(cors_origins=["*"], root_path="/a"))


@pytest.mark.parametrize("origin", ["https://app.example.com/", "app.example.com", "HTTPS://app.example.com", "null"])
def test_an_origin_that_no_browser_sends_is_refused(origin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORS_ORIGINS", f'["{origin}"]')
    with pytest.raises(SettingsError, match="CORS_ORIGINS"):
        load(ApiSettings)


@pytest.mark.parametrize("path", ["darkroom", "/a b", "https://example.com/darkroom", "//evil.example.com"])
def test_a_root_path_that_is_no_path_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOT_PATH", path)
    with pytest.raises(SettingsError, match="ROOT_PATH"):
        load(ApiSettings)


def test_options_of_the_whole_server_is_answered(valkey: Valkey, tmp_path: Path) -> None:
    with Api(valkey.url, tmp_path / "log") as api, connected(api) as connection:
        connection.sendall(b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert split_response(to_the_end(connection))[0] == b"HTTP/1.1 204 No Content"
