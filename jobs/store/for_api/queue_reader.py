"""What waits in the queue, and how much of the budgets is used, without a word of owners."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

from jobs.records import LANE_CODE, ChunkRef, Lane
from jobs.store import keys
from jobs.store.for_api.client import StoreClient

_CHUNKS_READ_MAX = 200  # of one list; the rest is estimated from them
_LISTS_READ_MAX = 1000  # of one lane
_ID_MS_BYTES = 6  # a job's id begins with the time of its submit


@dataclass(slots=True)
class Waiting:
    """The images of a lane that wait for a worker. Exact, except for lists of more than 200 chunks."""

    images: int = 0
    since_ms: int | None = None
    """When the oldest job of them was submitted."""

    def add(self, chunks: int, packed: list[bytes]) -> None:
        """Count a list of so many chunks that begins with these."""
        refs = [ChunkRef.unpack(it) for it in packed]
        if refs:
            self.images += round(chunks * sum(ref.items for ref in refs) / len(refs))
            since = min(int.from_bytes(ref.job_id[:_ID_MS_BYTES], "big") for ref in refs)
            self.since_ms = since if self.since_ms is None else min(self.since_ms, since)


@dataclass(frozen=True, slots=True)
class UsedBytes:
    """Bytes that count against the budgets."""

    uploads: int
    spooled: int
    records: int


class QueueReader:
    def __init__(self, client: StoreClient) -> None:
        self._client = client

    async def waiting(self, models: Iterable[str]) -> dict[Lane, Waiting]:
        """What waits for these models, names and name@version, by lane. Images that run alone count as bulk.

        Raises:
            StoreUnavailable
        """
        lanes = [(Lane.INTERACTIVE, LANE_CODE[Lane.INTERACTIVE].decode()), (Lane.BULK, LANE_CODE[Lane.BULK].decode())]
        places = [
            (lane, f"{model}:{code}")
            for model, (lane, code) in product((*models, keys.FETCH), (*lanes, (Lane.BULK, keys.SUSPECT_LANE)))
        ]
        rotations = await self._client.read(
            *(("LRANGE", keys.ROTATION + place, 0, _LISTS_READ_MAX - 1) for _, place in places)
        )
        lists = [
            (lane, f"{keys.READY}{place}:".encode() + owner)
            for (lane, place), owners in zip(places, rotations, strict=True)
            for owner in owners
        ]
        commands = [
            command for _, key in lists for command in (("LLEN", key), ("LRANGE", key, 0, _CHUNKS_READ_MAX - 1))
        ]
        replies = await self._client.read(*commands)
        found = {lane: Waiting() for lane in Lane}
        for (lane, _), chunks, packed in zip(lists, replies[::2], replies[1::2], strict=True):
            found[lane].add(chunks, packed)
        return found

    async def used_bytes(self) -> UsedBytes:
        """Raises StoreUnavailable."""
        (counters,) = await self._client.read(("HMGET", keys.STATS, "uploads", "spooled", "records"))
        return UsedBytes(*(max(0, int(it or 0)) for it in counters))
