import asyncio

import pytest

from api.asgi.connection_limits import ConnectionLimits, Connections
from api.settings import ApiSettings


class Connection:
    def look(self, now: float) -> None:
        pass


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("203.0.113.7", "203.0.113.8", False),
        ("203.0.113.7", "203.0.113.7", True),
        ("::ffff:203.0.113.7", "203.0.113.7", True),
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::1", True),
        (None, None, False),  # a Unix socket's
    ],
)
async def test_a_network_of_ipv6_is_one_address(first: str | None, second: str | None, *, shared: bool) -> None:
    settings = ApiSettings(redis_url="unix:///nowhere", connections_per_address_max=1)
    connections, loop = Connections(ConnectionLimits.of(settings)), asyncio.get_running_loop()
    one, other = Connection(), Connection()
    assert connections.add(one, first, loop)
    assert connections.add(other, second, loop) is not shared
    connections.remove(one)
    connections.remove(other)
    assert connections.add(one, second, loop)


async def test_no_address_takes_more_than_half_of_the_connections() -> None:
    settings = ApiSettings(redis_url="unix:///nowhere", connections_max=4)
    connections, loop = Connections(ConnectionLimits.of(settings)), asyncio.get_running_loop()
    assert [connections.add(Connection(), "203.0.113.7", loop) for _ in range(3)] == [True, True, False]
    added = [connections.add(Connection(), f"203.0.113.{n}", loop) for n in range(8, 11)]
    assert added == [True, True, False], "the one that was refused has no place"


async def test_few_refused_connections_stay_until_their_clients_know_why() -> None:
    settings = ApiSettings(redis_url="unix:///nowhere", connections_max=1)
    connections, loop = Connections(ConnectionLimits.of(settings)), asyncio.get_running_loop()
    assert connections.add(Connection(), "203.0.113.7", loop)
    refused = [Connection() for _ in range(100)]
    stayed = list[bool]()
    for connection in refused:
        assert not connections.add(connection, "203.0.113.8", loop)
        stayed.append(connections.may_stay)
    assert stayed == [True] * 64 + [False] * 36
    for connection in refused[:40]:
        connections.remove(connection)
    assert not connections.add(Connection(), "203.0.113.8", loop)
    assert connections.may_stay
