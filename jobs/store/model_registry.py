"""Which models are known, and which worker processes serve them now."""

import logging
from collections.abc import Iterable

from jobs.errors import StoreUnavailable
from jobs.model_manifest import ModelCard, card_from_json, natural_sort_key
from jobs.store import keys
from jobs.store.client import StoreClient

log = logging.getLogger(__name__)


class ModelRegistry:
    """Cards never change, so they are kept once read."""

    def __init__(self, client: StoreClient) -> None:
        self._client = client
        self._cards = dict[str, ModelCard]()
        self._refs = set[str]()

    async def register(self, cards: Iterable[ModelCard]) -> None:
        """Make models known before a worker serves them. A version that is known already stays as it is."""
        for card in cards:
            await self._client.run(self._client.commits, ("HSETNX", keys.MODEL_CARDS, card.ref, card.model_dump_json()))

    async def cards(self) -> list[ModelCard]:
        """Every known version of every model, by name, the newest last."""
        (known,) = await self._client.read(("HKEYS", keys.MODEL_CARDS))
        unread = [ref for ref in known if ref.decode() not in self._cards]
        if unread:
            (found,) = await self._client.read(("HMGET", keys.MODEL_CARDS, *unread))
            for ref, data in zip(unread, found, strict=True):
                self._add(ref.decode(), data)
        return sorted(self._cards.values(), key=lambda card: natural_sort_key(card.ref))

    async def card(self, ref: str) -> ModelCard:
        """The card of `name@version`, which a result has named.

        Raises:
            StoreUnavailable: it cannot be read.
        """
        if ref not in self._cards:
            await self.cards()
        if ref not in self._cards:
            raise StoreUnavailable(f"The card of {ref} cannot be read.")
        return self._cards[ref]

    def _add(self, ref: str, data: bytes) -> None:
        """A card of a release that writes them otherwise is passed over."""
        try:
            self._cards[ref] = card = card_from_json(data)
            self._refs |= {card.name, card.ref}
        except ValueError as error:
            log.warning("the card of %s cannot be read: %s", ref, error)

    async def knows(self, ref: str) -> bool:
        """Whether there is such a model, by its name or as `name@version`."""
        if ref not in self._refs:
            await self.cards()
        return ref in self._refs

    async def refs(self) -> set[str]:
        """All that a job may ask for: every model's name, and every version of it."""
        await self.cards()
        return self._refs

    async def faults(self) -> list[tuple[str, str]]:
        """Models that a worker does not serve though it was told to, each with why: once for each such worker."""
        ((seconds, _),) = await self._client.read(("TIME",))
        (members,) = await self._client.read(("ZRANGEBYSCORE", keys.LOAD_ERRORS, int(seconds), "+inf"))
        parts = (member.decode().split("|", 2) for member in members)
        return [(model, why) for model, _, why in parts]

    async def serving(self, name: str) -> list[tuple[str, str]]:
        """The ready worker processes of a model: (name@version, process)."""
        ((seconds, _),) = await self._client.read(("TIME",))
        (members,) = await self._client.read(("ZRANGEBYSCORE", keys.HEARTBEATS + name, int(seconds) * 1000, "+inf"))
        pairs = (member.decode().partition("|") for member in members)
        return [(ref, process) for ref, _, process in pairs]
