"""Single-image jobs that wait, written as the API writes them, but by the hundred thousand: no HTTP is in the way."""

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

from api.settings import OWNER_OF_ALL, ApiSettings
from bench.services import Darkroom
from jobs.codec import pack_upload
from jobs.ids import new_id
from jobs.records import LANE_CODE, Lane
from jobs.store.job_hash import upload_key
from jobs.store.scripts import load_scripts
from jobs.store.submit_batch import BATCH_SUBMITS_MAX
from worker.settings import WorkerSettings

DRAIN_SECONDS = 300
Cpu = Mapping[str, float]

_ROUND_TRIP = 16  # batches; with one fsync
_LOOK_SECONDS = 0.002
_TOP_K = 5
_UPLOAD_MS = 360_000
_NO_DEADLINE = 2**53


class Backlog:
    """What waits in a stack without API keys whose worker stands still, but while it is told to drain."""

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
        """Accept so many jobs; their ids."""
        ids = [new_id(OWNER_OF_ALL, b"") for _ in range(count)]
        batches = [ids[at : at + BATCH_SUBMITS_MAX] for at in range(0, count, BATCH_SUBMITS_MAX)]
        for at in range(0, len(batches), _ROUND_TRIP):
            pipeline = self._redis.pipeline(transaction=False)
            some = batches[at : at + _ROUND_TRIP]
            for batch in some:
                self._enqueue(pipeline, batch)
            verdicts = [verdict for reply in pipeline.execute() if isinstance(reply, list) for verdict in reply]
            assert len(verdicts) == sum(map(len, some))
            assert all(verdict[0] == b"ok" for verdict in verdicts), verdicts[0]
        self._filled += count
        return ids

    @property
    def left(self) -> int:
        """How many wait, but for those that `drain` took too many."""
        return self._filled - self._until

    def drain(self, count: int) -> Cpu:
        """Let the worker run until so many more images have ended. What it took of all processes but the API: ms.

        What is in hand when the worker is stopped counts for the next call.
        """
        self._until += count
        servers, gives_up = self._service.servers, time.monotonic() + DRAIN_SECONDS
        before = servers.cpu_seconds()
        with servers.running("worker"):
            while (ended := self._ended()) < self._until:
                assert time.monotonic() < gives_up, f"{self._until - ended} images left after {DRAIN_SECONDS} s"
                time.sleep(_LOOK_SECONDS)
        time.sleep(_LOOK_SECONDS)  # Valkey does what was still sent
        after = servers.cpu_seconds()
        return {name: 1000 * (after[name] - before[name]) for name in after if name != "api"}

    def valkey_cpu_ms(self) -> float:
        return 1000 * self._service.servers.cpu_seconds()["valkey"]

    def delete(self, ids: Sequence[bytes]) -> None:
        """Forget these jobs."""
        pipeline = self._redis.pipeline(transaction=False)
        for job_id in ids:
            pipeline.evalsha(self._scripts["delete"].sha1, 0, job_id, OWNER_OF_ALL)
        assert set(pipeline.execute()) <= {b"deleted"}

    def _enqueue(self, pipeline: Any, ids: Sequence[bytes]) -> None:
        """One call of the script, as the API makes it for submits that come together."""
        arguments = list[bytes | str | int]()
        for job_id in ids:
            upload = next(self._images)
            pipeline.set(upload_key(job_id, 0), upload, px=_UPLOAD_MS)
            arguments += [job_id, OWNER_OF_ALL, self._model, LANE_CODE[Lane.INTERACTIVE], _TOP_K, _NO_DEADLINE]
            arguments += [self._uploads_max, b"", b"", "", b"", 1, len(upload), b""]
        pipeline.evalsha(self._scripts["enqueue"].sha1, 0, *self._budgets, *arguments)

    def _ended(self) -> int:
        return int(self._service.stack.stat("transitions"))
