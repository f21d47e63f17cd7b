"""What waits in the queue, how much of the budgets is used and who serves, without a word of owners."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from jobs.ids import submitted_ms
from jobs.records import LANE_CODE, ChunkRef
from jobs.store import keys
from jobs.store.keys import Heartbeat, unpack_known
from jobs.store.readings import Reading

LANE_CODES = (*(code.decode() for code in LANE_CODE.values()), keys.SUSPECT_LANE)
_CHUNKS_READ_MAX = 200  # of one list; the rest is estimated from them
_LISTS_READ_MAX = 1000  # of one lane


class Place(NamedTuple):
    model: str
    """A name or `name@version`, as jobs ask for it; `@fetch` for images that are to be fetched first."""
    lane: str
    """One of `LANE_CODES`."""


@dataclass(slots=True)
class Waiting:
    """The images in one place that wait for a worker. Exact, except for lists of more than 200 chunks."""

    images: int = 0
    since_ms: int | None = None
    """When the oldest job of them was submitted."""
    chunks: int = 0

    def add(self, chunks: int, packed: list[bytes]) -> None:
        """Count a list of so many chunks that begins with these."""
        refs = [ChunkRef.unpack(it) for it in packed]
        if refs:
            images = round(chunks * sum(ref.items for ref in refs) / len(refs))
            since = submitted_ms(min(ref.job_id for ref in refs))
            self.include(Waiting(images, since, chunks))

    def include(self, other: "Waiting") -> None:
        self.images += other.images
        self.chunks += other.chunks
        if other.since_ms is not None:
            self.since_ms = other.since_ms if self.since_ms is None else min(self.since_ms, other.since_ms)


@dataclass(frozen=True, slots=True)
class UsedBytes:
    """Bytes that count against the budgets."""

    uploads: int
    spooled: int
    records: int


def waiting(models: Iterable[str]) -> Reading[dict[Place, Waiting]]:
    """What waits for these models, names and name@version, and for outbound workers."""
    places = [Place(model, lane) for model, lane in product((*models, keys.FETCH), LANE_CODES)]
    rotations = yield [("LRANGE", f"{keys.ROTATION}{it.model}:{it.lane}", 0, _LISTS_READ_MAX - 1) for it in places]
    lists = [
        (place, f"{keys.READY}{place.model}:{place.lane}:".encode() + owner)
        for place, owners in zip(places, rotations, strict=True)
        for owner in owners
    ]
    found = {place: Waiting() for place in places}
    if lists:
        replies = yield [
            command for _, key in lists for command in (("LLEN", key), ("LRANGE", key, 0, _CHUNKS_READ_MAX - 1))
        ]
        for (place, _), chunks, packed in zip(lists, replies[::2], replies[1::2], strict=True):
            found[place].add(chunks, packed)
    return found


def used_bytes() -> Reading[UsedBytes]:
    (counters,) = yield [("HMGET", keys.STATS, "uploads", "spooled", "records")]
    return UsedBytes(*(max(0, int(it or 0)) for it in counters))


def ready_processes(names: Iterable[str]) -> Reading[dict[str, list[Heartbeat]]]:
    """The worker processes that serve any version of each model; none while no submit can ring its doorbell."""
    known = list(names)
    (seconds, _), *has_doorbell = yield [("TIME",), *(("EXISTS", keys.DOORBELL_TEMPLATE + name) for name in known)]
    found = {name: list[Heartbeat]() for name in known}
    served = [name for name, exists in zip(known, has_doorbell, strict=True) if exists]
    if served:
        now_ms = int(seconds) * 1000
        ends = now_ms, now_ms + keys.HEARTBEAT_MS_MAX
        replies = yield [("ZRANGEBYSCORE", keys.HEARTBEATS + name, *ends) for name in served]
        found |= {name: unpack_known(Heartbeat, members) for name, members in zip(served, replies, strict=True)}
    return found
