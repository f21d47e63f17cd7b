"""What waits in the queue by lane, and how much of the budgets is used, as the API shows it."""

from collections.abc import Iterable

from jobs.records import LANE_CODE, Lane
from jobs.store import queue_reading
from jobs.store.for_api.client import StoreClient
from jobs.store.queue_reading import UsedBytes, Waiting

_LANE_OF_CODE = {code.decode(): lane for lane, code in LANE_CODE.items()}


class QueueReader:
    def __init__(self, client: StoreClient) -> None:
        self._client = client

    async def waiting(self, models: Iterable[str]) -> dict[Lane, Waiting]:
        """What waits for these models, names and name@version, by lane. Images that run alone count as bulk.

        Raises:
            StoreUnavailable
        """
        found = {lane: Waiting() for lane in Lane}
        for place, waiting in (await self._client.follow(queue_reading.waiting(models))).items():
            found[_LANE_OF_CODE.get(place.lane, Lane.BULK)].include(waiting)
        return found

    async def used_bytes(self) -> UsedBytes:
        """Raises StoreUnavailable."""
        return await self._client.follow(queue_reading.used_bytes())
