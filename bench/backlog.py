"""Hundreds of thousands of waiting single-image jobs, written to Redis as the API does, but without HTTP."""

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

from api.settings import ApiSettings
from bench.services import Darkroom
from jobs.codec import pack_upload
from jobs.ids import new_id
from jobs.owner_shares import OWNER_OF_ALL
from jobs.records import LANE_CODE, Lane
from jobs.store.for_api.submit_batch import BATCH_SUBMITS_MAX
from jobs.store.job_hash import upload_key
from jobs.store.scripts import load_scripts
from worker.settings import WorkerSettings

DRAIN_SECONDS = 300
Cpu = Mapping[str, float]

_ROUND_TRIP = 16  # batches, with one fsync
_POLL_SECONDS = 0.002
_TOP_K = 5
_UPLOAD_MS = 360_000
_NO_DEADLINE = 2**53


class Backlog:
    """The waiting jobs of a stack without API keys whose worker is stopped, except during `drain`."""

    def __init__(self, service: Darkroom, images: Sequence[bytes], *, maxmemory_bytes: int) -> None:
        self._service = service
        self._redis = service.stack.redis
        self._images = itertools.cycle([pack_upload([image]) for image in images])
        self._scripts = load_scripts(0)
        for name in ("enqueue", "delete"):
            self._redis.script_load(self._scripts[name].source)
        settings = ApiSettings(redis_maxmemory_bytes=maxmemory_bytes)
        self._budgets = settings.records_budget_bytes, 2**40
        self._uploads_max = settings.uploads_budget_bytes
        self._model = WorkerSettings().model
        self._filled = self._until = self._ended()

    def fill(self, count: int) -> list[bytes]:
        """Accept `count` jobs; returns their ids."""
        ids = [new_id(OWNER_OF_ALL, b"") for _ in range(count)]
        batches = [ids[at : at + BATCH_SUBMITS_MAX] for at in range(0, count, BATCH_SUBMITS_MAX)]
        for at in range(0, len(batches), _ROUND_TRIP):
            pipeline = self._redis.pipeline(transaction=False)
            round_trip = batches[at : at + _ROUND_TRIP]
            for batch in round_trip:
                self._enqueue(pipeline, batch)
            replies = [reply for of_batch in pipeline.execute() if isinstance(of_batch, list) for reply in of_batch]
            assert len(replies) == sum(map(len, round_trip))
            assert all(reply[0] == b"ok" for reply in replies), replies[0]
        self._filled += count
        return ids

    @property
    def left(self) -> int:
        """Number of waiting jobs; those that the last `drain` took in excess are not subtracted."""
        return self._filled - self._until

    def drain(self, count: int) -> Cpu:
        """Let the worker run until `count` more images have ended. CPU of each process except the API, in ms.

        Images that the worker has begun when it is stopped count for the next call.
        """
        self._until += count
        servers, deadline = self._service.servers, time.monotonic() + DRAIN_SECONDS
        before = servers.cpu_seconds()
        with servers.running("worker"):
            while (ended := self._ended()) < self._until:
                assert time.monotonic() < deadline, f"{self._until - ended} images left after {DRAIN_SECONDS} s"
                time.sleep(_POLL_SECONDS)
        time.sleep(_POLL_SECONDS)  # Valkey finishes the last commands
        after = servers.cpu_seconds()
        return {name: 1000 * (after[name] - before[name]) for name in after if name != "api"}

    def valkey_cpu_ms(self) -> float:
        return 1000 * self._service.servers.cpu_seconds()["valkey"]

    def delete(self, ids: Sequence[bytes]) -> None:
        """Delete these jobs."""
        pipeline = self._redis.pipeline(transaction=False)
        for job_id in ids:
            pipeline.evalsha(self._scripts["delete"].sha1, 0, job_id, OWNER_OF_ALL)
        assert set(pipeline.execute()) <= {b"deleted"}

    def _enqueue(self, pipeline: Any, ids: Sequence[bytes]) -> None:
        """One call of the script, as the API makes it for concurrent submits."""
        arguments = list[bytes | str | int]()
        for job_id in ids:
            upload = next(self._images)
            pipeline.set(upload_key(job_id, 0), upload, px=_UPLOAD_MS)
            arguments += [job_id, OWNER_OF_ALL, self._model, LANE_CODE[Lane.INTERACTIVE], _TOP_K, _NO_DEADLINE]
            arguments += [self._uploads_max, b"", b"", "", b"", 1, len(upload), b""]
        pipeline.evalsha(self._scripts["enqueue"].sha1, 0, *self._budgets, *arguments)

    def _ended(self) -> int:
        return int(self._service.stack.stat("transitions"))
