"""The job store as a worker's main process sees it: models, heartbeats, load errors, doorbells, the sweep. Blocking.

One instance a thread. `LeaseStore` adds what its child processes do.
"""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import zip_longest
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, OutOfMemoryError, RedisError
from redis.retry import Retry

from jobs import VERSION
from jobs.errors import ModelPackageError
from jobs.model_manifest import ModelCard, card_from_json
from jobs.settings import StoreSettings
from jobs.store import keys
from jobs.store.job_hash import job_key
from jobs.store.keys import Heartbeat, LoadError, unpack_known
from jobs.store.redis_url import address_of
from jobs.store.scripts import load_scripts, sweep_args

ScriptArgs = Sequence[bytes | str | int]


class WorkerStore:
    def __init__(self, settings: StoreSettings, *, lease_seconds: float, timeout_seconds: float) -> None:
        self._settings = settings
        self._lease_ms = int(lease_seconds * 1000)
        # No retries inside the client: a repeated write could run twice, and each caller knows what a lost reply means.
        self._redis: Any = Redis.from_url(  # redis-py's types cover both protocols, and fit neither
            settings.redis_url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )
        self._scripts = load_scripts(address_of(settings.redis_url).database)

    def close(self) -> None:
        self._redis.close()

    def register(self, card: ModelCard, templates: Mapping[str, bytes]) -> None:
        """Make a model known, and store the doorbell templates that submits ring with, by its name and its version.

        Raises:
            ModelPackageError: this version is registered with other weights or classes.
        """
        args: list[bytes | str] = [card.ref, card.model_dump_json()]
        for model, template in templates.items():
            args += [model, template]
        known = card_from_json(self._run_script("register", args))
        if (known.sha256, known.classes) != (card.sha256, card.classes):
            raise ModelPackageError(
                f"{card.ref} is known with other weights (sha256 {known.sha256[:12]}…): "
                "give these weights another version"
            )

    def register_doorbells(self, templates: Mapping[str, bytes]) -> None:
        """Store the templates of doorbells of work that has no model card."""
        self._run_script("register", ["", "", *(it for pair in templates.items() for it in pair)])

    def lacks_doorbells(self, models: Iterable[str]) -> bool:
        """Whether the template of a doorbell is gone, as after the server has lost its data: no submit can ring."""
        names = [keys.DOORBELL_TEMPLATE + model for model in models]
        return int(self._redis.exists(*names)) < len(names)

    def heartbeat(
        self, heartbeats: Iterable[tuple[str, Heartbeat]], *, seconds: float, tokens: Iterable[str] = ()
    ) -> None:
        """Show for so long that processes are ready to serve models, each by its name, and extend leases.

        One round trip, so that no lease waits for the heartbeats of many models. Redis accepts it even when it is out
        of memory: a worker without heartbeats would count as dead, and could not drain the store.
        """
        calls = list[list[bytes | str | int]]()
        for token, shown in zip_longest(tokens, heartbeats):
            show = () if shown is None else (shown[0], shown[1].pack(), int(seconds * 1000))
            calls.append([token or "", self._lease_ms, "", b"", *show])
        pipeline = self._redis.pipeline(transaction=False)
        for args in calls:
            pipeline.evalsha(self._scripts["renew"].sha1, 0, *args)
        for args, reply in zip(calls, pipeline.execute(raise_on_error=False) if calls else [], strict=True):
            if isinstance(reply, NoScriptError):
                self._run_script("renew", args)
            elif isinstance(reply, Exception):
                raise reply

    def ready_processes(self, name: str) -> list[Heartbeat]:
        """The processes that serve any version of the model.

        A heartbeat that ends too far from now is ignored: it was sent before the clock was set back.
        """
        now_ms = self._now_ms()
        end_max = now_ms + keys.HEARTBEAT_MS_MAX
        return unpack_known(Heartbeat, self._redis.zrangebyscore(keys.HEARTBEATS + name, now_ms, end_max))

    def remove_heartbeats(self, name: str, worker_id: str) -> None:
        """Withdraw the heartbeats of a worker's processes, as when it stops."""
        for heartbeat in unpack_known(Heartbeat, self._redis.zrange(keys.HEARTBEATS + name, 0, -1)):
            if heartbeat.worker_id == worker_id:
                self._redis.zrem(keys.HEARTBEATS + name, heartbeat.pack())

    def show_alive(self, worker_id: str, *, seconds: float) -> None:
        """Show for so long that this worker's main process takes care of its children."""
        heartbeat = Heartbeat(f"{keys.MAIN}@{VERSION}", worker_id, os.getpid())
        self.heartbeat([(keys.MAIN, heartbeat)], seconds=seconds)
        self._redis.zremrangebyscore(keys.HEARTBEATS + keys.MAIN, "-inf", self._now_ms())

    def show_load_errors(self, worker_id: str, load_errors: Mapping[str, str], *, seconds: float) -> None:
        """Publish for so long why a worker does not serve models: model to reason. Replaces its former load errors.

        If Redis is out of memory, nothing is published and nothing raised: the log has the reasons, too.
        """
        now = int(self._redis.time()[0])
        pipeline = self._redis.pipeline(transaction=False)
        for shown in unpack_known(LoadError, self._redis.zrange(keys.LOAD_ERRORS, 0, -1)):
            if shown.worker_id == worker_id:
                pipeline.zrem(keys.LOAD_ERRORS, shown.pack())
        for model, reason in load_errors.items():
            pipeline.zadd(keys.LOAD_ERRORS, {LoadError(model, worker_id, reason).pack(): now + 1 + seconds})
        pipeline.zremrangebyscore(keys.LOAD_ERRORS, "-inf", now)
        for reply in pipeline.execute(raise_on_error=False):
            if isinstance(reply, Exception) and not isinstance(reply, OutOfMemoryError):
                raise reply

    def waiting_doorbells(self, model: str) -> int:
        """How many doorbells wait in the model's queue."""
        return int(self._redis.llen(keys.QUEUE + model))

    def sweep(self, models: Iterable[str], *, seconds: float) -> None:
        """Free what is due and ring the doorbells of models with waiting chunks, for about so long."""
        until = time.monotonic() + seconds
        left = list(sweep_args(self._settings, models))
        while left:  # in turns, so that no model waits for the whole sweep of another
            left = [args for args in left if self._run_script("sweep", args) and time.monotonic() < until]

    def has_ready(self, models: Iterable[str], lane: str) -> bool:
        """Whether chunks of one of these models wait in a lane: a code of `LANE_CODE`, or `SUSPECT_LANE`."""
        return bool(self._redis.exists(*(f"{keys.ROTATION}{model}:{lane}" for model in set(models))))

    def traceparents(self, job_ids: Iterable[bytes]) -> list[str]:
        """Those that jobs were submitted with; none while the server is away."""
        with suppress(RedisError):
            return [found.decode() for found in self._read_of_jobs(job_ids, "traceparent") if found]
        return []

    def _read_of_jobs(self, job_ids: Iterable[bytes], field_name: str) -> list[bytes | None]:
        """A field of each job, in one round trip. A job that comes several times is read once."""
        pipeline = self._redis.pipeline(transaction=False)
        for job_id in dict.fromkeys(job_ids):
            pipeline.hget(job_key(job_id), keys.FIELDS[field_name])
        found: list[bytes | None] = pipeline.execute()
        return found

    def _now_ms(self) -> int:
        seconds, micros = self._redis.time()
        return int(seconds * 1000 + micros // 1000)

    def _run_script(self, name: str, args: ScriptArgs) -> Any:
        """Call a script; load it first if the server has lost its script cache, as after a restart."""
        script = self._scripts[name]
        try:
            return self._redis.evalsha(script.sha1, 0, *args)
        except NoScriptError:
            self._redis.script_load(script.source)
            return self._redis.evalsha(script.sha1, 0, *args)
