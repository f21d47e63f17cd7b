"""Who is calling: API keys to owners."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.errors import Unauthorized
from api.services import Services
from api.settings import OWNER_OF_ALL

_bearer = HTTPBearer(auto_error=False, description="An API key, where keys are set.")


class Keys:
    """Keys are looked up by their hash, so that no comparison tells how much of a guess was right."""

    def __init__(self, api_keys: Mapping[str, str]) -> None:
        self._owners = {_digest(key): owner for owner, key in api_keys.items()}

    def owner(self, key: str | None) -> str:
        """Raises Unauthorized where keys are set and this is none of them."""
        if not self._owners:
            return OWNER_OF_ALL
        owner = self._owners.get(_digest(key)) if key is not None else None
        if owner is None:
            raise Unauthorized
        return owner


async def services_of(request: Request) -> Services:
    services: Services = request.state.services
    return services


async def owner_of(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> str:
    keys: Keys = request.state.keys
    return keys.owner(credentials.credentials if credentials else None)


Owner = Annotated[str, Depends(owner_of)]
Calls = Annotated[Services, Depends(services_of)]


def _digest(key: str) -> bytes:
    return sha256(key.encode()).digest()
