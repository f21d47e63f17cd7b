import pytest

from api.auth import ApiKeys
from api.errors import Unauthorized
from api.settings import OWNER_OF_ALL

KEY = "alice-key-0123456789"


@pytest.mark.parametrize("header", [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER   {KEY} "])
def test_a_key_belongs_to_its_owner(header: str) -> None:
    assert ApiKeys({"alice": KEY, "bob": "bob-key-0123456789"}).owner(header) == "alice"


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer{KEY}", "Bearer ü"]
)
def test_anything_else_is_refused(header: str) -> None:
    with pytest.raises(Unauthorized):
        ApiKeys({"alice": KEY}).owner(header)


@pytest.mark.parametrize("header", ["", "Bearer wrong"])
def test_without_configured_keys_every_request_has_the_same_owner(header: str) -> None:
    assert ApiKeys({}).owner(header) == OWNER_OF_ALL
