"""An outbound worker's housekeeping: that of every worker, and a doorbell for webhooks that are due."""

from collections.abc import Callable, Sequence
from typing import Any

from worker.reaper.reaper import Reaper
from worker.settings import LeasingSettings
from worker.store import open_outbound_store


class OutboundReaper(Reaper):
    def __init__(
        self,
        settings: LeasingSettings,
        models: Sequence[str],
        worker_id: str,
        give_up: Callable[[str], None],
        **more: Any,
    ) -> None:
        super().__init__(settings, models, worker_id, give_up, **more)
        self._outbound_store = open_outbound_store(settings)

    def run_once(self) -> None:
        self._outbound_store.ring_for_webhooks()
        super().run_once()
