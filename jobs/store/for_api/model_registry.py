"""Which models are registered, and which worker processes serve them now."""

import logging
from collections.abc import Iterable

from jobs.errors import StoreUnavailable
from jobs.model_manifest import ModelCard, card_from_json, natural_sort_key
from jobs.store import keys
from jobs.store.for_api.client import StoreClient
from jobs.store.keys import Heartbeat, LoadError, unpack_known

log = logging.getLogger(__name__)


class ModelRegistry:
    """Caches the cards that it has read: cards never change."""

    def __init__(self, client: StoreClient) -> None:
        self._client = client
        self._cards = dict[str, ModelCard]()
        self._refs = set[str]()

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
        except ValueError as error:
            log.warning("the card of %s cannot be read: %s", ref, error)

    async def knows(self, ref: str) -> bool:
        """Whether `ref`, a name or `name@version`, is a registered model."""
        if ref not in self._refs:
            await self.cards()
        return ref in self._refs

    async def refs(self) -> set[str]:
        """Every model that a job may name: each name, and each `name@version`."""
        await self.cards()
        return self._refs

    async def load_errors(self) -> list[LoadError]:
        """Why workers do not serve models that they are configured for; one for each worker and model."""
        ((seconds, _),) = await self._client.read(("TIME",))
        (members,) = await self._client.read(("ZRANGEBYSCORE", keys.LOAD_ERRORS, int(seconds), "+inf"))
        return unpack_known(LoadError, members)

    async def ready_processes(self, name: str) -> list[Heartbeat]:
        """The worker processes that serve any version of a model."""
        ((seconds, _),) = await self._client.read(("TIME",))
        (members,) = await self._client.read(("ZRANGEBYSCORE", keys.HEARTBEATS + name, int(seconds) * 1000, "+inf"))
        return unpack_known(Heartbeat, members)
