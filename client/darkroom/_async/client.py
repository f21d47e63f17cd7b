"""The client, on asyncio.

`darkroom/_sync/` is made from this folder by `client/make_sync.py`: change it here, and run that.
"""

from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import httpx2

from darkroom._async.job import WAIT_SECONDS_MAX, AsyncJob, job_path
from darkroom._async.upload import LocalItems, OnProgress, cancel, fill
from darkroom._http import Retries, base_url, checked, key_header, tls_of, unreachable
from darkroom._io_async import aclosing, in_thread, sleep
from darkroom.errors import ApiError, DarkroomError, ItemFailed, Unreachable
from darkroom.images import Image, is_one
from darkroom.journal import Journal
from darkroom.parts import Part, Parts
from darkroom.records import Counts, Item, Model, Server, known

_QUIET_SECONDS_MAX = 60.0  # of a stream, before it is opened again: the server sends events at least each 15 s
_UPLOAD_HOLD_SECONDS = 90.0  # for which a server whose queue is full may stop to read an upload
_JOB_PAGE = 100
_STREAM_TYPES = ("application/x-ndjson", "text/event-stream")


class AsyncDarkroom:
    """A connection to a server. Close it, or use it in a `with`.

    `url` and `api_key` default to the environment's DARKROOM_URL and DARKROOM_API_KEY. A call that fails for now is
    tried again for `retry_seconds`.

    Raises:
        ValueError: the address or the key cannot be one.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_seconds: float = 30.0,
        retry_seconds: float = 120.0,
    ) -> None:
        self.url = base_url(url)
        self.retry_seconds = retry_seconds
        self._timeout_seconds = timeout_seconds
        self._http = httpx2.AsyncClient(base_url=self.url, headers=key_header(api_key), verify=tls_of(self.url))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def classify(
        self, image: Image, *, model: str | None = None, top_k: int | None = None, timeout_seconds: float = 60.0
    ) -> Item:
        """One image's class. Raises ItemFailed if it has none, WaitTimeout if it has none yet."""
        if not is_one(image):
            raise TypeError("classify takes one image; classify_many takes many")
        parts = Parts([image])
        part = await in_thread(parts.take, 1) if not await in_thread(parts.at_end) else None
        if part is None or not await in_thread(parts.at_end):
            raise TypeError(f"{image} is a folder; classify_many takes folders")
        local = LocalItems()
        local.note(part, 0)
        if part.unreadable:
            raise ItemFailed(local.item(Item(0, None, "failed")))
        wait = min(WAIT_SECONDS_MAX, timeout_seconds)
        data = await self.call("POST", "/v1/jobs", params=_query(model=model, top_k=top_k), part=part, prefer_wait=wait)
        job = self.to_job(data)
        if not job.ended:
            job = await job.wait(max(0.0, timeout_seconds - wait))
        result = Item.of(job.raw["result"]) if "result" in job.raw else Item(0, None, job.status)
        item = local.item(result)
        if item.status != "succeeded":
            raise ItemFailed(item)
        return item

    async def classify_many(
        self,
        images: Image | Iterable[Image],
        *,
        model: str | None = None,
        top_k: int | None = None,
        lane: str | None = None,
        webhook_url: str | None = None,
        journal: Path | str | None = None,
        on_progress: OnProgress | None = None,
    ) -> AsyncGenerator[Item]:
        """Each image's result, in the images' order, while they are uploaded. Leaving it early cancels the job.

        An image that cannot be read fails in its place as `unreadable`. With a `journal`, leaving cancels nothing: the
        same call goes on with the job. A journal that has come to its end is the caller's to delete.
        """
        query = _query(model=model, top_k=top_k, lane=lane, webhook_url=webhook_url)
        many = [images] if is_one(images) else images
        with Journal(journal, {"url": self.url, **query}) as book:
            start, done, local = 0, False, LocalItems()
            job: AsyncJob | None = None
            try:
                async with aclosing(fill(self, many, query, book, local, on_progress)) as filling:
                    async for job in filling:
                        async with aclosing(job.results(start=start)) as ready:
                            async for item in ready:
                                if item.index != start:  # others have ended before it
                                    break
                                start += 1
                                yield local.item(item)
                if job is not None:
                    async with aclosing(job.results(follow=True, start=start)) as rest:
                        async for item in rest:
                            yield local.item(item)
                done = True
            finally:
                if not done and journal is None:
                    await cancel(self, book)

    async def submit(
        self,
        images: Image | Iterable[Image],
        *,
        model: str | None = None,
        top_k: int | None = None,
        lane: str | None = None,
        webhook_url: str | None = None,
        idempotency_key: str | None = None,
        journal: Path | str | None = None,
        on_progress: OnProgress | None = None,
    ) -> AsyncJob:
        """Hand in any number of images as one job. With a `journal`, the same call goes on after a crash.

        The images must then be ones that can be iterated twice, such as a list or a folder. The journal of a job that
        exists returns that job: delete it to submit the same images again.

        Raises:
            ValueError: there are no images.
        """
        query = _query(model=model, top_k=top_k, lane=lane, webhook_url=webhook_url)
        many = [images] if is_one(images) else images
        job: AsyncJob | None = None
        with Journal(journal, {"url": self.url, **query}) as book:
            if idempotency_key is not None:
                book.use_key(idempotency_key)
            try:
                async with aclosing(fill(self, many, query, book, LocalItems(), on_progress)) as filling:
                    async for job in filling:  # noqa: B007 - the last one counts
                        pass
            except BaseException:
                if journal is None and idempotency_key is None:
                    await cancel(self, book)
                raise
        if job is None:
            raise ValueError("There are no images.")
        return job

    async def job(self, job_id: str) -> AsyncJob:
        """Raises JobNotFound, JobExpired."""
        return self.to_job(await self.call("GET", job_path(job_id)))

    async def jobs(self, *, status: str | None = None) -> AsyncGenerator[AsyncJob]:
        """Your jobs, newest first."""
        params = {"limit": str(_JOB_PAGE)} | ({"status": status} if status else {})
        while True:
            page = await self.call("GET", "/v1/jobs", params=params)
            for data in page["jobs"]:
                yield self.to_job(data)
            if page["next_cursor"] is None:
                return
            params["cursor"] = page["next_cursor"]

    async def models(self) -> list[Model]:
        """Every version of every model."""
        found = (await self.call("GET", "/v1/models"))["models"]
        return [Model(**known(Model, it) | {"workers": it["serving"]["workers"]}) for it in found]

    async def server(self) -> Server:
        """The server's version, limits and queue."""
        try:
            return Server(**known(Server, await self.call("GET", "/v1/server")))
        except ApiError as error:
            if error.code != "not_found":
                raise
            raise DarkroomError(f"{self.url} is older than this client: it has no GET /v1/server") from None

    def to_job(self, data: dict[str, Any]) -> AsyncJob:
        counts = Counts(**{it.name: data["counts"][it.name] for it in fields(Counts)})
        return AsyncJob(**known(AsyncJob, data) | {"counts": counts}, _client=self)

    # -- requests

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        part: Part | None = None,
        key: str | None = None,
        hold: float = 0.0,
        prefer_wait: float | None = None,
        retry_seconds: float | None = None,
        passes_on: tuple[type[ApiError], ...] = (),
    ) -> Any:
        """The JSON of the response; `hold` is for how many seconds the server may hold the request.

        Errors that `passes_on` names are not tried again.

        Raises:
            ApiError, Unreachable: also after tries for `retry_seconds`.
        """
        headers = {"Accept": "application/json"}
        if method == "POST":
            headers["Idempotency-Key"] = key or uuid4().hex
        if part is not None:
            headers["Content-Type"] = part.media_type
            hold = max(hold, _UPLOAD_HOLD_SECONDS)
        if prefer_wait is not None:
            headers["Prefer"] = f"wait={int(prefer_wait)}"
        retries = Retries(self.retry_seconds if retry_seconds is None else retry_seconds)
        while True:
            try:
                with _transport_errors(self.url):
                    response = await self._http.request(
                        method,
                        path,
                        params=params,
                        content=None if part is None else part.body,
                        headers=headers,
                        timeout=self._timeout(hold),
                    )
                return checked(response)
            except passes_on:
                raise
            except (ApiError, Unreachable) as error:
                await sleep(retries.pause_seconds(error))

    async def lines(self, path: str, params: Mapping[str, str], retries: Retries) -> AsyncGenerator[bytes]:
        """The lines of a stream, once. Only line feeds end a line: names may have other line breaks.

        Raises:
            ApiError, Unreachable: it did not begin, or it broke off.
        """
        rest = b""
        with _transport_errors(self.url):
            timeout = self._timeout(_QUIET_SECONDS_MAX)
            async with self._http.stream("GET", path, params=params, timeout=timeout) as response:
                if response.headers.get("content-type", "").partition(";")[0] not in _STREAM_TYPES:
                    await response.aread()
                    checked(response)
                    raise Unreachable(f"{self.url} answers with no stream: this is no Darkroom server", retryable=False)
                retries.is_alive()
                async for data in response.aiter_bytes():
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        yield line

    def _timeout(self, hold: float) -> httpx2.Timeout:
        return httpx2.Timeout(
            self._timeout_seconds, read=self._timeout_seconds + hold, write=self._timeout_seconds + hold
        )


def _query(**options: object) -> dict[str, str]:
    return {name: str(value) for name, value in options.items() if value is not None}


@contextmanager
def _transport_errors(url: str) -> Iterator[None]:
    try:
        yield
    except (httpx2.TransportError, httpx2.DecodingError) as error:
        raise unreachable(url, error) from error
