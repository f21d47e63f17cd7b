"""Which models are registered, and which worker processes serve them now."""

import logging
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import orjson

from jobs.errors import StoreUnavailable
from jobs.model_manifest import ModelCard, card_from_json, natural_sort_key
from jobs.store import keys, queue_reading
from jobs.store.for_api.client import StoreClient
from jobs.store.keys import Heartbeat, LoadError, unpack_known

log = logging.getLogger(__name__)


class ModelRegistry:
    """Caches the cards that it has read: cards never change."""

    def __init__(self, client: StoreClient) -> None:
        self._client = client
        self._cards = dict[str, ModelCard]()
        self._refs = set[str]()
        self._classes = dict[str, int]()
        self._served = set[str]()
        self.workers = 0
        """How many workers served some model when `read_served` last ran."""

    async def register(self, cards: Iterable[ModelCard]) -> None:
        """Register models before a worker serves them. A version that is registered already stays as it is."""
        for card in cards:
            await self._client.run(self._client.commits, ("HSETNX", keys.MODEL_CARDS, card.ref, card.model_dump_json()))

    async def cards(self) -> list[ModelCard]:
        """Every registered version of every model, by name, the newest last."""
        (known,) = await self._client.read(("HKEYS", keys.MODEL_CARDS))
        unread = [ref for ref in known if ref.decode() not in self._cards]
        if unread:
            (found,) = await self._client.read(("HMGET", keys.MODEL_CARDS, *unread))
            for ref, data in zip(unread, found, strict=True):
                self._add(ref.decode(), data)
        return sorted(self._cards.values(), key=lambda card: natural_sort_key(card.ref))

    async def card(self, ref: str) -> ModelCard:
        """The card of `name@version`, the model of a result.

        Raises:
            StoreUnavailable: it cannot be read.
        """
        if ref not in self._cards:
            await self.cards()
        if ref not in self._cards:
            raise StoreUnavailable(f"The card of {ref} cannot be read.")
        return self._cards[ref]

    def _add(self, ref: str, data: bytes) -> None:
        """Skip a card that another release wrote in a form that this one cannot read."""
        try:
            self._cards[ref] = card = card_from_json(data)
            self._refs |= {card.name, card.ref}
            for known_as in (card.name, card.ref):
                self._classes[known_as] = max(self._classes.get(known_as, 0), len(card.classes))
        except ValueError as error:
            log.warning("the card of %s cannot be read: %s", ref, error)

    async def knows(self, ref: str) -> bool:
        """Whether `ref`, a name or `name@version`, is a registered model."""
        if ref not in self._refs:
            await self.cards()
        return ref in self._refs

    def classes_max(self, ref: str) -> int:
        """The most classes that a known version of this model has, a name or `name@version`; see `knows`."""
        return self._classes[ref]

    async def read_served(self) -> None:
        """Read which models are served now, and by how many workers, for `is_served` and `workers`."""
        served, workers = set[str](), set[str]()
        for name in {card.name for card in await self.cards()}:
            processes = await self.ready_processes(name)
            workers |= {it.worker_id for it in processes}
            refs = {it.ref for it in processes}
            served |= refs | ({name} if refs else set())
        self._served, self.workers = served, len(workers)

    def is_served(self, ref: str) -> bool:
        """Whether a worker was ready to serve this model, a name or `name@version`, when `read_served` last ran."""
        return ref in self._served

    async def refs(self) -> set[str]:
        """Every model that a job may name: each name, and each `name@version`."""
        await self.cards()
        return self._refs

    async def load_errors(self) -> list[LoadError]:
        """Why workers do not serve models that they are configured for; one for each worker and model."""
        ((seconds, _),) = await self._client.read(("TIME",))
        (members,) = await self._client.read(("ZRANGEBYSCORE", keys.LOAD_ERRORS, int(seconds), "+inf"))
        return unpack_known(LoadError, members)

    async def paces(self) -> dict[str, list[dict[str, Any]]]:
        """How fast worker processes compute each `name@version`: for each device its name, the batch, ms an image."""
        (found,) = await self._client.read(("HGETALL", keys.PACES))
        paces = defaultdict[str, list[dict[str, Any]]](list)
        for key, measured in sorted(zip(found[::2], found[1::2], strict=True)):
            ref, _, device = key.decode().partition("|")
            paces[ref].append({"device": device, **orjson.loads(measured)})
        return paces

    async def ready_processes(self, name: str) -> list[Heartbeat]:
        """The worker processes that serve any version of a model; none while no submit can ring their doorbell."""
        return (await self._client.follow(queue_reading.ready_processes([name])))[name]
