"""Figures of the whole store, as Prometheus and `darkroom-admin status` show them."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from jobs.errors import StoreUnavailable
from jobs.model_manifest import name_of, natural_sort_key
from jobs.records import LANE_CODE
from jobs.settings import StoreSettings
from jobs.store import keys
from jobs.store.keys import Heartbeat
from jobs.store.queue_reading import Place, UsedBytes, Waiting, ready_processes, used_bytes, waiting
from jobs.store.readings import Reading
from jobs.store.wire import Reply

STORE_UP = "darkroom_store_up"
NAMES_SHOWN_MAX = 100  # models with figures of their own; those of all others are added up
OTHERS = "(others)"  # in place of their names, which no model can have
_REFS_READ_MAX = 5000
_TIMEOUT_SECONDS = 2
_PENDING_READS_MAX = 100
_PENDING_FIELDS = 1000  # of the counters that one of these reads looks at
_LANES = {**{code.decode(): str(lane) for lane, code in LANE_CODE.items()}, keys.SUSPECT_LANE: "suspect"}


class Figures(NamedTuple):
    """One figure, for each combination of its labels' values."""

    name: str
    description: str
    labels: tuple[str, ...]
    values: dict[tuple[str, ...], float]
    kind: Literal["gauge", "counter"] = "gauge"


class StoreFigures:
    """Blocking, with a connection of its own; not for several threads at a time."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self._redis = Redis.from_url(
            settings.redis_url,
            protocol=2,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )

    def close(self) -> None:
        self._redis.close()

    def read(self) -> list[Figures]:
        """Raises StoreUnavailable: the server does not answer, or refuses."""
        reading = read_figures(self._settings)
        try:
            connection: Any = self._redis.connection_pool.get_connection()
        except (RedisError, OSError):
            raise StoreUnavailable from None
        try:
            commands = next(reading)
            while True:
                connection.send_packed_command(connection.pack_commands(commands))
                commands = reading.send([connection.read_response() for _ in commands])
        except StopIteration as done:
            figures: list[Figures] = done.value
            return figures
        except (RedisError, OSError):
            connection.disconnect()  # replies may be left in it
            raise StoreUnavailable from None
        finally:
            self._redis.connection_pool.release(connection)


def with_store_up(store: StoreFigures) -> list[Figures]:
    """The store's figures, with one that says whether they could be read."""
    try:
        figures = store.read()
    except StoreUnavailable:
        figures = []
    up = Figures(STORE_UP, "1 if Redis answers.", (), {(): int(bool(figures))})
    return [up, *figures]


def read_figures(settings: StoreSettings) -> Reading[list[Figures]]:
    """All figures, in the order in which they are shown."""
    refs, (seconds, micros), (ended,), memory, persistence = yield [
        ("HKEYS", keys.MODEL_CARDS),
        ("TIME",),
        ("HMGET", keys.STATS, "transitions"),
        ("INFO", "memory"),
        ("INFO", "persistence"),
    ]
    now_ms = int(seconds) * 1000 + int(micros) // 1000
    versions = sorted((ref.decode() for ref in refs), key=natural_sort_key)[:_REFS_READ_MAX]
    names = sorted({name_of(ref) for ref in versions})
    found = yield from waiting([*names, *versions])
    ready = yield from ready_processes([*names, keys.FETCH])
    used = yield from used_bytes()
    pending = yield from _pending_items()
    (webhooks_due,) = yield [("ZCOUNT", keys.WEBHOOKS_DUE, "-inf", now_ms)]
    queue = _by_name(found)
    shown = _shown(queue, ready)
    return [
        *_queue_figures(queue, shown, now_ms),
        _single("darkroom_pending_items", "Images that were accepted and have not ended.", pending),
        _counter("darkroom_ended_items", "Images that have ended since the store was made.", int(ended or 0)),
        *_budget_figures(settings, used),
        _single("darkroom_webhooks_due", "Webhooks whose next call is due.", webhooks_due),
        *_serving_figures(versions, ready, shown),
        *_redis_figures(settings, _info(memory), _info(persistence)),
    ]


def _pending_items() -> Reading[int]:
    """The sum over all owners. In small reads: there may be many owners, and Redis serves nobody else meanwhile."""
    cursor, pending = b"0", 0
    for _ in range(_PENDING_READS_MAX):
        ((cursor, pairs),) = yield [("HSCAN", keys.STATS, cursor, "MATCH", "pending:*", "COUNT", _PENDING_FIELDS)]
        pending += sum(map(int, pairs[1::2]))
        if cursor == b"0":
            break
    return max(0, pending)


def _by_name(found: dict[Place, Waiting]) -> dict[Place, Waiting]:
    """What waits for a model and for its versions, together."""
    queue = defaultdict[Place, Waiting](Waiting)
    for place, waits in found.items():
        queue[Place(name_of(place.model), place.lane)].include(waits)
    return dict(queue)


def _shown(queue: dict[Place, Waiting], ready: dict[str, list[Heartbeat]]) -> set[str]:
    """The names that get figures of their own: first those with work, longest first, then those that are served."""
    names = {place.model for place in queue}
    if len(names) <= NAMES_SHOWN_MAX:
        return names
    since = dict[str, float]()
    for place, waits in queue.items():
        if waits.since_ms is not None:
            since[place.model] = min(since.get(place.model, waits.since_ms), waits.since_ms)
    order = sorted(
        names, key=lambda name: (name != keys.FETCH, since.get(name, float("inf")), not ready.get(name), name)
    )
    return set(order[:NAMES_SHOWN_MAX])


def _queue_figures(queue: dict[Place, Waiting], shown: set[str], now_ms: int) -> Iterable[Figures]:
    by_labels = defaultdict[tuple[str, ...], Waiting](Waiting)
    for place, waits in queue.items():
        by_labels[place.model if place.model in shown else OTHERS, _LANES[place.lane]].include(waits)
    labels = ("model", "lane")
    yield Figures(
        "darkroom_queue_chunks",
        "Chunks that are ready for a worker. Lane suspect: they run alone. Model @fetch: images to be fetched first.",
        labels,
        {key: waits.chunks for key, waits in by_labels.items()},
    )
    yield Figures(
        "darkroom_queue_images",
        "Images of these chunks; estimated, if a list is long.",
        labels,
        {key: waits.images for key, waits in by_labels.items()},
    )
    yield Figures(
        "darkroom_queue_oldest_seconds",
        "Seconds since the oldest job of these chunks was submitted; 0 if none waits.",
        labels,
        {
            key: 0 if waits.since_ms is None else max(0, now_ms - waits.since_ms) / 1000
            for key, waits in by_labels.items()
        },
    )


def _budget_figures(settings: StoreSettings, used: UsedBytes) -> Iterable[Figures]:
    budgets = {
        "uploads": (used.uploads, settings.uploads_budget_bytes),
        "records": (used.records, settings.records_budget_bytes),
    }
    if settings.uploads_url != "redis:":
        budgets["spooled_uploads"] = (used.spooled, settings.uploads_spool_bytes_max)
    for at, (name, description) in enumerate(
        (
            ("darkroom_budget_used_bytes", "Bytes that count against a budget."),
            ("darkroom_budget_limit_bytes", "Bytes that a budget has, by the settings of this instance."),
        )
    ):
        yield Figures(name, description, ("budget",), {(budget,): both[at] for budget, both in budgets.items()})


def _serving_figures(versions: list[str], ready: dict[str, list[Heartbeat]], shown: set[str]) -> Iterable[Figures]:
    """The newest version of a model is there without a process, too: that is what an alert looks for."""
    newest = {name_of(ref): ref for ref in versions} | {keys.FETCH: f"{keys.FETCH}@1"}
    processes = defaultdict[tuple[str, ...], float](float)
    for name, ref in newest.items():
        processes[_model_and_version(ref, shown)] += 0
        for heartbeat in ready.get(name, ()):
            processes[_model_and_version(heartbeat.ref, shown)] += 1
    yield Figures(
        "darkroom_serving_processes",
        "Worker processes that are ready to serve a version of a model, or to fetch (@fetch).",
        ("model", "version"),
        dict(processes),
    )
    workers = {it.worker_id for name, heartbeats in ready.items() if name != keys.FETCH for it in heartbeats}
    yield _single("darkroom_workers", "Workers that serve a model.", len(workers))


def _model_and_version(ref: str, shown: set[str]) -> tuple[str, str]:
    name, _, version = ref.rpartition("@")
    return (name, version) if name in shown else (OTHERS, OTHERS)


def _redis_figures(settings: StoreSettings, memory: dict[str, str], persistence: dict[str, str]) -> Iterable[Figures]:
    maxmemory = int(memory.get("maxmemory") or 0) or settings.redis_maxmemory_bytes
    yield _single("darkroom_redis_memory_used_bytes", "Memory that Redis uses.", int(memory.get("used_memory") or 0))
    yield _single("darkroom_redis_memory_limit_bytes", "Its maxmemory, or REDIS_MAXMEMORY_BYTES.", maxmemory)
    yield _single(
        "darkroom_redis_aof_enabled",
        "1 if Redis keeps an append-only file: without one, a restart loses accepted jobs.",
        int(persistence.get("aof_enabled") or 0),
    )
    written = [persistence.get(f"aof_last_{what}_status", "ok") == "ok" for what in ("write", "bgrewrite")]
    yield _single(
        "darkroom_redis_aof_ok", "1 if the last write and the last rewrite of that file succeeded.", int(all(written))
    )


def _info(reply: Reply) -> dict[str, str]:
    lines = reply.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _single(name: str, description: str, value: float) -> Figures:
    return Figures(name, description, (), {(): value})


def _counter(name: str, description: str, value: float) -> Figures:
    return _single(name, description, value)._replace(kind="counter")
