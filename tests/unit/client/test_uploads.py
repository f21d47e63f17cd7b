"""How many requests a submit is, and what becomes of one that is cut."""

import pytest
from aiohttp import web
from darkroom import AsyncDarkroom
from darkroom.errors import QueueFull

from tests.support.web import Site, serving_site
from tests.unit.client.answers import JOB_ID, answer, item, lines, one_after_the_other, problem, serve_job

MIB = 1 << 20


@pytest.mark.parametrize(
    ("sizes", "requests"),
    [
        ([1000] * 64, ["/v1/jobs"]),
        ([1000] * 65, ["/v1/jobs?open=true", "/items", "/items", "/seal"]),
        ([2 * MIB - 2000] * 2, ["/v1/jobs"]),
        ([2 * MIB] * 2, ["/v1/jobs?open=true", "/items", "/items", "/seal"]),
        ([8 * MIB], ["/v1/jobs?open=true", "/items", "/seal"]),
    ],
    ids=["64", "65", "4MiB", "more", "one"],
)
async def test_up_to_64_images_in_4_mib_are_one_request(sizes: list[int], requests: list[str]) -> None:
    async with serving_site() as site, AsyncDarkroom(site.url) as darkroom:
        serve_job(site)
        job = await darkroom.submit([bytes(size) for size in sizes])
    assert job.counts.total == len(sizes)
    assert [str(it.rel_url).removeprefix(f"/v1/jobs/{JOB_ID}") for it in site.requests] == requests


class CuttingSite(Site):
    """Hangs up in the middle of the second part, once."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/items") and self.requested(request.path) == 1:
            self.requests.append(request)
            self.bodies.append(await request.content.readexactly((request.content_length or 0) // 2))
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return await super().handle(request)


async def test_a_part_that_is_cut_is_sent_again_under_its_own_key() -> None:
    images = [bytes([number]) * (3 * MIB) for number in range(5)]
    async with serving_site(site=CuttingSite()) as site, AsyncDarkroom(site.url) as darkroom:
        serve_job(site)
        assert (await darkroom.submit(images)).counts.total == 5
    parts = [place for place, request in enumerate(site.requests) if request.path.endswith("/items")]
    first, cut, second, third = (site.requests[place].headers["Idempotency-Key"] for place in parts)
    assert cut == second
    assert len({first, second, third, site.requests[0].headers["Idempotency-Key"]}) == 4
    bodies = [site.bodies[place] for place in parts]
    assert MIB < len(bodies[1]) < len(bodies[2])
    assert bodies[2].startswith(bodies[1])
    assert site.requests[parts[1]].content_length == len(bodies[2])


async def test_results_come_while_the_queue_is_full() -> None:
    """The job's own images make room: each try reads how far they are."""
    async with serving_site() as site, AsyncDarkroom(site.url) as darkroom:
        serve_job(site)
        items = f"/v1/jobs/{JOB_ID}/items"
        full = problem(503, "queue_full", **{"Retry-After": "0"})
        ended = lines(*map(item, range(64)))
        site.at(items, one_after_the_other(site.handler(items), full, full, full, site.handler(items)))
        results = f"/v1/jobs/{JOB_ID}/results"
        site.at(results, one_after_the_other(lines(), ended, site.handler(results)))
        found = [(it.index, site.requested(items)) async for it in darkroom.classify_many([b"picture"] * 65)]
    assert [index for index, _ in found] == list(range(65))
    assert found[0] == (0, 2), "the first results are there when the second part was refused for the first time"
    assert found[-1] == (64, 5)


async def test_a_queue_that_stays_full_is_an_error_after_the_tries() -> None:
    async with serving_site() as site, AsyncDarkroom(site.url, retry_seconds=0.3) as darkroom:
        serve_job(site)
        site.at(f"/v1/jobs/{JOB_ID}/items", problem(503, "queue_full"))
        site.at(f"/v1/jobs/{JOB_ID}/cancel", answer({}))
        with pytest.raises(QueueFull):
            await darkroom.submit([b"picture"] * 65)
    assert site.requested(f"/v1/jobs/{JOB_ID}/cancel") == 1
