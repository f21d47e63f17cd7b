"""Every way to submit images. Each gives the job that was accepted, or None after a record of the doubt."""

import asyncio
import json
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any

import aiohttp

from bench.bulk.archives import tar_of
from chaos.clients.bodies import BAD_IMAGE, Sample, in_pieces, large, path_of
from chaos.clients.http import Body, Caller, Outcomes, Reply
from chaos.clients.site import Site
from chaos.ledger import Accepted, Doubt, Ledger
from chaos.readings import Expected

FORM_IMAGES, TAR_IMAGES, URL_IMAGES = 8, 90, 5
PARTS, PART_IMAGES = 3, 30
BAD_SHARE = 0.02
MISSING_SHARE = 0.05
LARGE_SHARE = 0.03
KEYED_SHARE, WEBHOOK_SHARE, LANE_SHARE = 0.5, 0.1, 0.1
OTHER_MODEL_SHARE, WAIT_SHARE = 0.1, 0.2
HALFWAY_SECONDS_MAX = 20.0
FORGET_SECONDS = 2.0  # until a fault that makes the store forget has told the ledger
TAR, PNG, JSON = "application/x-tar", "image/png", "application/json"


class Submitter:
    """Submits for one owner."""

    def __init__(
        self,
        caller: Caller,
        ledger: Ledger,
        outcomes: Outcomes,
        samples: Sequence[Sample],
        site: Site,
        random_source: random.Random,
        models: Sequence[str],
    ) -> None:
        self.caller = caller
        self._ledger = ledger
        self._outcomes = outcomes
        self._samples = samples
        self._site = site
        self._random = random_source
        self._models = models

    # -- one request

    async def single(self) -> Accepted | None:
        """An image as it is. Half have a key; the others have neither a key nor a name."""
        options = self._options()
        image, expected = self._pick(options["model"], None)
        prefer = {"Prefer": "wait=5"} if self._random.random() < WAIT_SHARE else {}
        headers = {"Content-Type": PNG} | prefer
        return await self._submit("single", options, [expected], lambda: image, headers, named=False)

    async def form(self, special: bytes = b"", code: str = "") -> Accepted | None:
        """`special`: takes the place of an image, and must end with this code, or like the first sample."""
        options = self._options(key=bool(special))
        picked = [self._pick(options["model"], f"{options['token']}-{n}.png") for n in range(FORM_IMAGES)]
        if special:  # with images before it and behind it
            at, expected = self._random.randrange(2, FORM_IMAGES - 1), self._samples[0].expected[options["model"]]
            name = picked[at][1].name
            picked[at] = special, Expected(name, codes=(code,)) if code else Expected(name, *expected)

        def body() -> aiohttp.FormData:
            data = aiohttp.FormData()
            for image, expected in picked:
                data.add_field("files", image, filename=expected.name)
            return data

        return await self._submit("form", options, [expected for _, expected in picked], body, {})

    async def tar(self) -> Accepted | None:
        options = self._options()
        tar, expected = self._tar(options["model"], options["token"], TAR_IMAGES)
        return await self._submit("tar", options, expected, lambda: in_pieces(tar), {"Content-Type": TAR})

    async def urls(self) -> Accepted | None:
        """By reference: some pictures are not there."""
        options, urls, expected = self._options(key=True), list[str](), list[Expected]()
        for _ in range(URL_IMAGES):
            if self._random.random() < MISSING_SHARE:
                urls.append(self._site.missing)
                expected.append(Expected(self._site.missing, codes=("fetch_not_found",)))
                continue
            number = self._random.randrange(len(self._samples))
            class_name, confidence = self._samples[number].expected[options["model"]]
            urls.append(self._site.picture(number))
            expected.append(Expected(urls[-1], class_name, confidence, ("fetch_failed",)))  # the site may fail thrice
        body = json.dumps({"urls": urls}).encode()
        return await self._submit("urls", options, expected, lambda: body, {"Content-Type": JSON})

    async def twins(self) -> Accepted | None:
        """One image at the same instant to two APIs, under one key: one job."""
        options = self._options(key=True)
        image, expected = self._pick(options["model"], None)
        request, began = (path_of(options), lambda: image), time.monotonic()
        to = {"headers": {"Content-Type": PNG}, "key": options["token"]}
        posts = [self.caller.post(*request, **to, base=base) for base in self._random.sample(self.caller.urls, 2)]
        replies = await asyncio.gather(*posts)
        ids = {reply.body["id"] for reply in replies if reply.status in (200, 202)}
        if not ids:
            self._doubt(options, began)
            return None
        job = self._accepted(ids.pop(), [expected], options, began)
        for other in ids:
            self._ledger.know(other)
            if not self._ledger.has_lost_since(began):  # it may have forgotten the first one, and its key
                self._ledger.contradicted(job, f"one key at the same instant gave also job {other}")
        return job

    async def retry(self, job: Accepted, code: str) -> Accepted | None:
        """The failed images of a job whose code allows it, as a new job. They fail again."""
        assert job.first is not None
        expected = [it for it in job.expected if code in it.codes]
        began, token = time.monotonic(), f"{self._random.getrandbits(64):016x}"
        reply = await self.caller.post(f"/v1/jobs/{job.job_id}/retry", key=token)
        if reply.status == 202:
            return self._accepted(reply.body["id"], expected, {"webhook": job.webhook}, began)
        self._doubt({"token": token, "keyed": True}, began)
        return None

    # -- many requests

    async def parts(self) -> Accepted | None:
        """An open job, its parts one after another, each under its own key, and the seal."""
        options, began, expected = self._options(key=True), time.monotonic(), list[Expected]()
        if (job_id := await self._open_job(options, began)) is None:
            return None
        for number in range(PARTS):
            if not await self._part(job_id, number, options, expected):
                return None
        return await self._sealed(job_id, expected, options, began)

    async def part_over_a_fault(self, opened: asyncio.Event, go_on: asyncio.Event) -> Accepted | None:
        """An open job of one part, whose second chunk is sent after `go_on`."""
        options, began, expected = self._options(key=True), time.monotonic(), list[Expected]()
        job_id = await self._open_job(options, began)
        opened.set()
        if job_id is None or not await self._part(job_id, 0, options, expected, images=TAR_IMAGES, go_on=go_on):
            return None
        job = await self._sealed(job_id, expected, options, began)
        if job is not None:
            job.whole_at = time.monotonic()
        return job

    async def _sealed(
        self, job_id: str, expected: list[Expected], options: dict[str, Any], began: float
    ) -> Accepted | None:
        if await self.caller.change("POST", f"/v1/jobs/{job_id}/seal") != 200:
            return None
        return self._accepted(job_id, expected, options, began)

    async def canceled_halfway(self) -> Accepted | None:
        """An open job that is canceled once its first part has ended: those images keep their results."""
        options, began, expected = self._options(key=True), time.monotonic(), list[Expected]()
        if (job_id := await self._open_job(options, began)) is None:
            return None
        if not await self._part(job_id, 0, options, expected) or not await self._ends(job_id):
            return None
        if not await self._part(job_id, 1, options, expected):
            return None
        if await self.caller.change("POST", f"/v1/jobs/{job_id}/cancel") != 200:
            return None
        job = self._accepted(job_id, expected, options, began)
        job.may_be_canceled = True
        return job

    async def _open_job(self, options: dict[str, Any], began: float) -> str | None:
        """The id of a new open job."""
        reply = await self.caller.post(f"{path_of(options)}&open=true", key=options["token"])
        if reply.status != 202:
            self._doubt(options, began)
            return None
        job_id = str(reply.body["id"])
        self._ledger.know(job_id)
        return job_id

    async def _part(
        self,
        job_id: str,
        number: int,
        options: dict[str, Any],
        expected: list[Expected],
        *,
        images: int = PART_IMAGES,
        go_on: asyncio.Event | None = None,
    ) -> bool:
        """Send a part of an open job, and add its images to `expected`. Whether it was taken."""
        name = f"{options['token']}-{number}"
        tar, of_part = self._tar(options["model"], name, images)
        body, headers = partial(in_pieces, tar, go_on), {"Content-Type": TAR}
        reply = await self.caller.post(f"/v1/jobs/{job_id}/items", body, headers=headers, key=name, archive=True)
        if reply.status != 202:
            self._give_up(reply)
            return False
        expected += of_part
        return True

    async def _ends(self, job_id: str) -> bool:
        """Whether all images that an open job has so far end in time."""
        until = time.monotonic() + HALFWAY_SECONDS_MAX
        while time.monotonic() < until:
            with suppress(aiohttp.ClientError, OSError, TimeoutError):
                status, body = await self.caller.get(f"/v1/jobs/{job_id}")
                if status == 200 and json.loads(body)["counts"]["pending"] == 0:
                    return True
            await asyncio.sleep(0.1)
        return False

    def _give_up(self, reply: Reply) -> None:
        """The open job is canceled at its deadline. A part is never refused for good, unless its job is gone."""
        if reply.status in (400, 413, 415, 422):
            self._outcomes.violations[f"part: {reply.summary}"] += 1

    # -- what all have in common

    async def _submit(
        self,
        kind: str,
        options: dict[str, Any],
        expected: list[Expected],
        body: Body,
        headers: dict[str, str],
        *,
        named: bool = True,
    ) -> Accepted | None:
        began, fault = time.monotonic(), self._ledger.fault

        def first(reply: Reply) -> None:
            self._outcomes.record(kind, reply, began, fault)
            if kind in ("single", "form"):
                self._outcomes.took(time.monotonic() - began, fault)

        reply = await self.caller.post(
            path_of(options),
            body,
            headers=headers,
            key=options["token"] if options["keyed"] else "",
            archive=kind == "tar",
            first=first,
        )
        if reply.status in (200, 202):
            job = self._accepted(reply.body["id"], expected, options, began)
            job.answer = reply.body if reply.status == 200 else None
            job.whole_at = time.monotonic()
            return job
        names_job = "job_id" in reply.body  # of an upload that broke off: its job is canceled, or may exist
        if names_job:
            self._ledger.know(reply.body["job_id"])
        if reply.status == HTTPStatus.GONE:  # it waited for the end of a job that a fault made the store forget
            await asyncio.sleep(FORGET_SECONDS)
        forgotten = reply.status == HTTPStatus.GONE and self._ledger.has_lost_since(began)
        if forgotten or reply.in_doubt or options["keyed"]:  # under a key, an earlier try may have been in doubt
            self._doubt(options, began, named=named)
        elif not reply.refused and reply.sent and not (names_job and reply.status == HTTPStatus.SERVICE_UNAVAILABLE):
            self._outcomes.contradicts(kind, reply, began)
        return None

    def _accepted(self, job_id: str, expected: list[Expected], options: dict[str, Any], began: float) -> Accepted:
        job = Accepted(job_id, self.caller.owner, expected, self._ledger.fault, began, webhook=options["webhook"])
        return self._ledger.accept(job)

    def _doubt(self, options: dict[str, Any], began: float, *, named: bool = True) -> None:
        token = options["token"] if options["keyed"] or named else ""
        now = time.time()
        self._ledger.doubts.append(Doubt(self.caller.owner, token, now - (time.monotonic() - began), now))

    def _options(self, *, key: bool = False) -> dict[str, Any]:
        other = self._random.random() < OTHER_MODEL_SHARE
        return {
            "token": f"{self._random.getrandbits(64):016x}",
            "keyed": key or self._random.random() < KEYED_SHARE,
            "model": self._models[1 if other else 0],
            "webhook": self._random.random() < WEBHOOK_SHARE,
            "lane": self._random.choice(["interactive", "bulk"]) if self._random.random() < LANE_SHARE else "",
            "webhook_url": self._site.webhook,
        }

    def _pick(self, model: str, name: str | None) -> tuple[bytes, Expected]:
        if self._random.random() < BAD_SHARE:
            return BAD_IMAGE, Expected(name, codes=("not_an_image",))
        sample = self._random.choice(self._samples)
        image = large(sample.image) if self._random.random() < LARGE_SHARE else sample.image
        return image, Expected(name, *sample.expected[model])

    def _tar(self, model: str, name: str, count: int) -> tuple[bytes, list[Expected]]:
        picked = [self._pick(model, f"{name}-{number:03}.png") for number in range(count)]
        images, expected = [image for image, _ in picked], [it for _, it in picked]
        return tar_of(images, names=[str(it.name) for it in expected]), expected
