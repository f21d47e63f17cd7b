"""Traces as a collector gets them: a request's span, below the client's, and the workers' spans that link to it."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from jobs import tracing
from jobs.errors import SettingsError
from jobs.ids import from_text
from jobs.store import keys
from jobs.store.job_hash import job_key
from tests.support.archives import make_zip
from tests.support.processes import MAXMEMORY_BYTES, Api, Process
from tests.support.stack import PNG, Stack
from tests.support.waiting import wait_until
from tests.support.web import Site, forever, serving_site

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
QUICK = {"OTEL_BSP_SCHEDULE_DELAY": "50"}  # ms
ZIP, JSON = {"Content-Type": "application/zip"}, {"Content-Type": "application/json"}
SECRET = "whsec_" + "A" * 32


class Collector:
    """What an OTLP collector has got."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.settings = QUICK | {"OTEL_EXPORTER_OTLP_ENDPOINT": site.url}
        site.responds("/v1/traces")

    def hangs(self) -> None:
        async def never(_: Any) -> Any:
            await forever()

        self._site.at("/v1/traces", never)

    def spans(self) -> dict[tuple[str, str], list[Any]]:
        """By service and name."""
        found = dict[tuple[str, str], list[Any]]()
        for body in list(self._site.bodies):
            for of_service in ExportTraceServiceRequest.FromString(body).resource_spans:
                service = attributes(of_service.resource)["service.name"]
                for scope in of_service.scope_spans:
                    for span in scope.spans:
                        found.setdefault((service, span.name), []).append(span)
        return found

    async def span(self, service: str, name: str) -> Any:
        """The only one of this name, once it is there."""
        (span,) = await until(lambda: self.spans().get((service, name)), f"a span {name} of {service}")
        return span


async def until(condition: Callable[[], Any], what: str) -> Any:
    return await asyncio.to_thread(wait_until, condition, what=what)


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with serving_site() as site:
        yield Collector(site)


def attributes(of: Any) -> dict[str, Any]:
    return {it.key: getattr(it.value, it.value.WhichOneof("value")) for it in of.attributes}


def links(span: Any) -> set[tuple[str, str]]:
    return {(link.trace_id.hex(), link.span_id.hex()) for link in span.links}


async def submit(api: Api, content: bytes, path: str = "/v1/jobs", **headers: str) -> str:
    async with httpx.AsyncClient(base_url=api.url, timeout=60) as client:
        submitted = await client.post(path, content=content, headers=headers)
        job_id: str = submitted.json()["id"]
        assert (await client.get(f"/v1/jobs/{job_id}?wait=30")).json()["status"] == "completed"
    return job_id


async def start(stack: Stack, **settings: str) -> Api:
    return (await asyncio.to_thread(stack.api, **settings), await asyncio.to_thread(stack.worker, 1, **settings))[0]


async def test_a_batch_links_to_the_request_that_submitted_its_job(
    stack: Stack, collector: Collector, shirt: bytes
) -> None:
    api = await start(stack, **collector.settings)
    job_id = await submit(api, shirt, **PNG, **SAMPLED)
    request = await collector.span("darkroom-api", "POST /v1/jobs")
    batch = await collector.span("darkroom-worker", "classify")
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    said = attributes(request)
    assert said.pop("darkroom.request_id")
    assert said == {
        "http.request.method": "POST",
        "http.route": "/v1/jobs",
        "http.response.status_code": 202,
        "darkroom.job_id": job_id,
    }
    assert links(batch) == {(TRACE, request.span_id.hex())}
    assert attributes(batch) == {
        "darkroom.model": "fmnist-mlp@1",
        "darkroom.items": 1,
        "darkroom.bulk": False,
        "darkroom.suspect": False,
    }
    assert request.start_time_unix_nano < batch.start_time_unix_nano < batch.end_time_unix_nano
    record = stack.redis.hget(job_key(from_text(job_id)), keys.FIELDS["traceparent"])
    assert record == f"00-{TRACE}-{request.span_id.hex()}-01".encode()


async def test_the_chunks_of_an_archive_link_to_its_request(stack: Stack, collector: Collector, shirt: bytes) -> None:
    api = await start(stack, **collector.settings)
    await submit(api, make_zip({f"{at}.png": shirt for at in range(150)}), **SAMPLED, **ZIP)
    request = await collector.span("darkroom-api", "POST /v1/jobs")

    def batches() -> list[Any]:
        return collector.spans().get(("darkroom-worker", "classify"), [])

    await until(lambda: sum(attributes(it)["darkroom.items"] for it in batches()) == 150, "all chunks")
    assert {link for batch in batches() for link in links(batch)} == {(TRACE, request.span_id.hex())}


async def test_outbound_work_links_to_the_request(
    stack: Stack, collector: Collector, shirt: bytes, tmp_path: Path
) -> None:
    secrets = {"WEBHOOK_SECRETS": json.dumps({"public": SECRET})}
    api = await start(stack, **collector.settings, **secrets)
    environment = {
        "REDIS_URL": stack.valkey.url,
        "REDIS_MAXMEMORY_BYTES": str(MAXMEMORY_BYTES),
        "FETCH_ALLOW_NETWORKS": '["127.0.0.0/8"]',
        **collector.settings,
        **secrets,
    }
    outbound = Process([sys.executable, "-m", "worker.outbound"], tmp_path / "outbound.log", environment)
    async with serving_site() as site:
        body, path = (
            {"urls": [site.responds("/shirt.png", body=shirt)]},
            f"/v1/jobs?webhook_url={site.responds('/hook')}",
        )
        with outbound:
            await submit(api, json.dumps(body).encode(), path, **SAMPLED, **JSON)
            request = await collector.span("darkroom-api", "POST /v1/jobs")
            for service, name in (("outbound", "fetch"), ("worker", "classify"), ("outbound", "webhook")):
                span = await collector.span(f"darkroom-{service}", name)
                assert links(span) == {(TRACE, request.span_id.hex())}, name


async def test_what_the_client_does_not_sample_has_no_span(stack: Stack, collector: Collector, shirt: bytes) -> None:
    api = await start(stack, **collector.settings)
    unsampled = await submit(api, shirt, **PNG, traceparent=f"00-{TRACE}-{PARENT}-00")
    assert not stack.redis.hexists(job_key(from_text(unsampled)), keys.FIELDS["traceparent"])
    await submit(api, shirt, **PNG, traceparent=f"00-{'1' * 32}-{PARENT}-01")
    batch = await collector.span("darkroom-worker", "classify")
    assert {trace for trace, _ in links(batch)} == {"1" * 32}


async def test_a_malformed_traceparent_begins_a_new_trace(stack: Stack, collector: Collector, shirt: bytes) -> None:
    malformed = ["", "00-1-2-3", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01", "x" * 300]
    api = await asyncio.to_thread(stack.api, **collector.settings)
    async with httpx.AsyncClient(base_url=api.url) as client:
        for traceparent in malformed:
            answer = await client.post("/v1/jobs", content=shirt, headers=PNG | {"traceparent": traceparent})
            assert answer.status_code == 202

    def requests() -> list[Any]:
        return collector.spans().get(("darkroom-api", "POST /v1/jobs"), [])

    await until(lambda: len(requests()) == len(malformed), "the requests")
    traces = {it.trace_id.hex() for it in requests()}
    assert len(traces - {TRACE, "0" * 32}) == len(malformed)
    assert not any(it.parent_span_id for it in requests())


async def test_names_have_no_word_of_the_client(stack: Stack, collector: Collector) -> None:
    api = await asyncio.to_thread(stack.api, **collector.settings)
    async with httpx.AsyncClient(base_url=api.url) as client:
        assert (await client.get("/v1/jobs/secret-word")).status_code == 404
        assert (await client.patch("/secret-word")).status_code in (404, 405)
    await collector.span("darkroom-api", "GET /v1/jobs/{job_id}")
    await collector.span("darkroom-api", "other other")
    assert "word" not in str(collector.spans()).lower()


async def test_a_process_that_stops_sends_what_is_left(stack: Stack, collector: Collector, shirt: bytes) -> None:
    settings = collector.settings | {"OTEL_BSP_SCHEDULE_DELAY": "600000"}
    api = await asyncio.to_thread(stack.api, **settings)
    worker = await asyncio.to_thread(stack.worker, 1, **settings)
    await submit(api, shirt, **PNG, **SAMPLED)
    assert collector.spans() == {}
    await asyncio.to_thread(worker.stop)
    await collector.span("darkroom-worker", "classify")
    await asyncio.to_thread(api.stop)
    await collector.span("darkroom-api", "POST /v1/jobs")


async def test_a_collector_that_does_not_answer_keeps_no_process_from_stopping(
    stack: Stack, collector: Collector, shirt: bytes
) -> None:
    collector.hangs()
    settings = collector.settings | {"OTEL_EXPORTER_OTLP_TIMEOUT": "600"}  # s
    api = await asyncio.to_thread(stack.api, **settings)
    worker = await asyncio.to_thread(stack.worker, 1, **settings)
    await submit(api, shirt, **PNG, **SAMPLED)
    for process in (worker, api):
        await asyncio.to_thread(process.stop)
        assert process.wait(0) != -signal.SIGKILL


async def test_jobs_complete_while_the_collector_is_away(stack: Stack, shirt: bytes) -> None:
    api = await start(stack, **QUICK, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    for _ in range(20):
        await submit(api, shirt, **PNG, **SAMPLED)


async def test_without_an_endpoint_the_record_has_no_trace(stack: Stack, shirt: bytes) -> None:
    api = await start(stack)
    job_id = await submit(api, shirt, **PNG, **SAMPLED)
    assert not stack.redis.hexists(job_key(from_text(job_id)), keys.FIELDS["traceparent"])


def test_an_endpoint_without_the_extra_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SettingsError, match=r"^OTEL_EXPORTER_OTLP_ENDPOINT: .* is not installed: pip install"):
        tracing.open_tracing("http://127.0.0.1:4318", "api")
    assert not tracing.is_open()
