"""Behaviour that all routes share, and the small routes: keys, request ids, models, health, /docs."""

import re
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from fastapi.routing import APIRoute

from api.app import create_app
from api.schemas import ModelList
from api.settings import ApiSettings
from jobs.store import keys
from jobs.store.for_api.job_reader import JobReader
from jobs.store.keys import Heartbeat
from tests.integration.api.conftest import StartApi
from tests.support.processes import ROOT
from tests.support.store import MODEL, Store

PNG = {"Content-Type": "image/png"}
PUBLIC = {"/", "/livez", "/readyz", "/docs", "/docs/start.js"}
KEYS = {"alice": "alice-key-0123456789", "bob": "bob-key-0123456789"}


def bearer(owner: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[owner]}"}


async def test_with_api_keys_each_owner_sees_its_own_jobs(start_api: StartApi, shirt: bytes) -> None:
    api = await start_api(api_keys=KEYS)
    job = (await api.post("/v1/jobs", content=shirt, headers=PNG | bearer("alice"))).json()

    assert (await api.get(job["links"]["self"], headers=bearer("alice"))).status_code == 200
    answer = await api.get(job["links"]["self"], headers=bearer("bob"))
    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
    assert (await api.get("/v1/jobs", headers=bearer("bob"))).json()["jobs"] == []


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic YTpi"}])
async def test_without_a_valid_key_every_route_but_the_public_ones_answers_401(
    start_api: StartApi, header: dict[str, str]
) -> None:
    api = await start_api(api_keys=KEYS)
    routes = [
        (method, route.path.format(job_id="not-an-id", name="fmnist-mlp"))
        for route in create_app(ApiSettings(models_dir=ROOT / "weights")).routes
        if isinstance(route, APIRoute) and route.path not in PUBLIC
        for method in route.methods
    ]
    assert len(routes) >= 14
    for method, path in routes:
        answer = await api.request(method, path, headers=header)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), f"{method} {path}"
        assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_health_needs_no_key(start_api: StartApi) -> None:
    api = await start_api(api_keys=KEYS)
    for path in ("/livez", "/readyz"):
        assert (await api.get(path)).json() == {"status": "ok"}


async def test_a_request_id_of_the_client_is_returned(api: httpx.AsyncClient) -> None:
    assert (await api.get("/livez", headers={"X-Request-Id": "abc-1"})).headers["X-Request-Id"] == "abc-1"
    for strange in ("a b", "x" * 65, ""):
        made = (await api.get("/livez", headers={"X-Request-Id": strange})).headers["X-Request-Id"]
        assert re.fullmatch("[0-9a-f]{32}", made)


async def test_models_are_listed_with_the_processes_that_serve_them(api: httpx.AsyncClient, store: Store) -> None:
    listed = (await api.get("/v1/models")).json()
    assert [model["name"] for model in listed["models"]] == ["fmnist-cnn", "fmnist-mlp"]
    assert listed["faults"] == []
    model = listed["models"][1]
    assert (model["id"], model["serving"]) == ("fmnist-mlp@1", {"workers": 0, "processes": 0})
    assert model["classes"][6] == "Shirt"
    assert model["test_accuracy"] > 0.885
    assert re.fullmatch("[0-9a-f]{64}", model["sha256"])

    store.redis.set(keys.DOORBELL_TEMPLATE + MODEL, "ring BELLID")
    for worker_id, pid in (("worker1", 11), ("worker1", 12), ("worker2", 21)):
        store.leases.heartbeat([(MODEL, Heartbeat("fmnist-mlp@1", worker_id, pid))], seconds=60)
    store.leases.show_pace("fmnist-mlp@1", "the CPU, in float32", 32, 0.031)
    store.leases.show_pace("fmnist-mlp@1", "the CPU, in float32", 64, 0.021)
    answer = (await api.get(f"/v1/models/{MODEL}")).json()
    ModelList.model_validate(answer)
    assert answer["models"][0]["serving"] == {"workers": 2, "processes": 3}
    assert answer["models"][0]["paces"] == [{"device": "the CPU, in float32", "batch": 64, "image_ms": 0.021}]


async def test_the_documentation_pages_load_nothing_from_other_servers(api: httpx.AsyncClient) -> None:
    page = await api.get("/docs")
    assert page.status_code == 200
    sources = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert sources
    for source in sources:
        assert not urlsplit(source).netloc, "no CDN"
        assert (await api.get(urljoin("/docs", source))).status_code == 200


async def test_the_documentation_page_has_a_strict_policy_and_no_script_in_it(api: httpx.AsyncClient) -> None:
    page = await api.get("/docs")
    policy = dict(it.strip().split(" ", 1) for it in page.headers["Content-Security-Policy"].split(";"))
    assert (policy["default-src"], policy["script-src"], policy["style-src"]) == ("'none'", "'self'", "'self'")
    assert re.findall(r"<script(?![^>]*\ssrc=)|\son\w+=|<style|\sstyle=|javascript:", page.text) == []
    assert 'url: "openapi.json"' in (await api.get("/docs/start.js")).text
    for gone in ("/redoc", "/docs/oauth2-redirect"):
        assert (await api.get(gone)).status_code == 404


async def test_the_openapi_document_describes_uploads_and_problems_with_examples(api: httpx.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()
    submit = document["paths"]["/v1/jobs"]["post"]
    assert set(submit["requestBody"]["content"]) == {
        "image/*",
        "application/octet-stream",
        "multipart/form-data",
        "application/x-tar",
        "application/zip",
        "application/json",
    }
    assert set(submit["responses"]) >= {"200", "202", "401", "413", "415", "422", "429", "503"}
    assert {"Location", "Retry-After"} <= set(submit["responses"]["202"]["headers"])
    assert submit["responses"]["202"]["content"]["application/json"]["example"]["status"] == "queued"
    assert {"Prefer", "Idempotency-Key"} <= {parameter["name"] for parameter in submit["parameters"]}
    for path in document["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                if status >= "400":
                    (media_type, content) = response["content"].popitem()
                    assert media_type == "application/problem+json"
                    assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
                    assert content["examples"], "a code that is described by name"
    assert document["components"]["schemas"]["Problem"]["example"]["code"] == "job_not_found"
    assert "HTTPValidationError" not in document["components"]["schemas"]
    assert document["components"]["schemas"]["JobResource"]["example"]["result"]["class"] == "Shirt"
    paths = {"/v1/jobs/{job_id}", "/v1/jobs/{job_id}/results", "/v1/jobs/{job_id}/cancel", "/v1/models", "/predict"}
    assert paths <= set(document["paths"])


async def test_head_works_on_every_get_route(api: httpx.AsyncClient) -> None:
    for path in ("/livez", "/v1/jobs", "/v1/models", "/docs"):
        answer = await api.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert int(answer.headers["Content-Length"]) == len((await api.get(path)).content)


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/jobs", "GET, HEAD, OPTIONS, POST"),
        ("/v1/jobs/x", "DELETE, GET, HEAD, OPTIONS"),
        ("/predict", "OPTIONS, POST"),
    ],
)
async def test_a_wrong_method_gets_the_allowed_methods(api: httpx.AsyncClient, path: str, methods: str) -> None:
    answer = await api.request("PATCH", path)
    assert (answer.status_code, answer.headers["Allow"]) == (405, methods)


async def test_an_unforeseen_error_is_a_problem_with_a_request_id(
    api: httpx.AsyncClient, shirt: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = (await api.post("/v1/jobs", content=shirt, headers=PNG)).headers["Location"]

    async def fail(*_: object) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(JobReader, "get", fail)
    answer = await api.get(path, headers={"X-Request-Id": "mine"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert answer.headers["X-Request-Id"] == "mine"


async def test_an_unreadable_card_is_skipped(
    api: httpx.AsyncClient, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.redis.hset(keys.MODEL_CARDS, "other@1", '{"of": "a newer release"}')
    models = (await api.get("/v1/models")).json()["models"]
    assert [model["name"] for model in models] == ["fmnist-cnn", "fmnist-mlp"]
    assert (await api.get("/v1/models/other")).status_code == 404
    assert "the card of other@1 cannot be read" in caplog.text
