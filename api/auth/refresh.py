"""The background task that keeps an API process's managed keys up to date."""

import asyncio
import logging

from api.auth.keys import ApiKeys
from jobs.errors import DarkroomError
from jobs.logs.outage_log import OutageLog
from jobs.store.for_api.api_key_reader import ApiKeyReader
from jobs.store.for_api.client import StoreClient
from jobs.store.for_api.item_quota import ItemQuota

log = logging.getLogger(__name__)

REFRESH_SECONDS = 1  # between two rounds: a revoked key is refused by every process after two seconds at most


class ApiKeyRefresh:
    """A task of its own, and not a duty of the housekeeping: that may take longer, and may fail halfway."""

    def __init__(self, client: StoreClient, api_keys: ApiKeys) -> None:
        self._client = client
        self._reader = ApiKeyReader(client)
        self._api_keys = api_keys
        self._outage = OutageLog("API keys: waiting for the job store")

    async def run(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            await self.run_once()

    async def run_once(self) -> None:
        """Logs errors instead of raising them: the last known keys stay, and the next round tries again."""
        try:
            self._api_keys.end_expired()
            await self._client.ready()  # and with it the store's clock
            changed = await self._reader.changed()
            new = (
                [] if changed is None else self._api_keys.replace_managed(changed.records, ever_made=changed.ever_made)
            )
            used = set(self._api_keys.used)
            await self._read_counts({key.id: key.quota for key in (*new, *used)})
            await self._reader.write_last_use([key.id for key in used])
            self._api_keys.used -= used
            self._outage.recovered()
        except DarkroomError as error:
            self._outage.failed(error)
        except Exception:
            log.exception("reading the API keys failed")

    async def _read_counts(self, quotas: dict[str, ItemQuota]) -> None:
        """Other processes count, too."""
        counted = {key_id: quota for key_id, quota in quotas.items() if quota.per_day is not None}
        counts = await self._reader.items_today(counted)
        for quota, items in zip(counted.values(), counts, strict=True):
            quota.set_used(items, self._client.now_ms())
