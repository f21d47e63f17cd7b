"""API keys: which owner a request belongs to."""

from collections.abc import Mapping
from hashlib import sha256

from api.errors import Unauthorized
from api.settings import OWNER_OF_ALL


class ApiKeys:
    """Looks keys up by their hash: the time that a lookup takes says nothing about how much of a guess was right."""

    def __init__(self, api_keys: Mapping[str, str]) -> None:
        self._owners = {_digest(key): owner for owner, key in api_keys.items()}

    def owner(self, authorization: str) -> str:
        """The owner of the key in an `Authorization` header. Without configured keys, all requests have one owner.

        Raises:
            Unauthorized: keys are configured, and the header has none of them.
        """
        if not self._owners:
            return OWNER_OF_ALL
        scheme, _, key = authorization.partition(" ")
        owner = self._owners.get(_digest(key.strip())) if scheme.lower() == "bearer" else None
        if owner is None:
            raise Unauthorized
        return owner


def _digest(key: str) -> bytes:
    return sha256(key.encode()).digest()
