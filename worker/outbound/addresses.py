"""Which addresses the outbound worker may connect to: public ones, and those of allowed networks.

Each connection is checked when its socket is made, after its host was resolved, and again for each hop of a redirect:
a name cannot pass the check with one address and be reached at another.
"""

import ipaddress
import socket
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_WEB_PORTS = (80, 443)
_WELL_KNOWN_PORTS_END = 1024
_SERVICE_PORTS = frozenset(
    (
        *(1080, 1433, 1434, 1521, 1883, 2049, 2181, 2375, 2376, 2379, 2380, 3128, 3306, 3389, 4369, 5432, 5671, 5672),
        *(5984, 5985, 5986, 6379, 6380, 6443, 7000, 7001, 8086, 8500, 8600, 9042, 9092, 9160, 9200, 9300, 9418, 10250),
        *(10255, 11211, 15672, 26379, 27017, 27018, 27019, 28015, 33060, 50000, 61616),
        *range(5900, 5910),  # VNC
        *range(6000, 6064),  # X11
        *range(6660, 6670),  # IRC
    )
)
"""Of databases, queues and remote control, from 1024 on: nobody has pictures there, and a request may do harm."""

# Not public, though `is_global` says so.
_SPECIAL_V4 = [
    ipaddress.IPv4Network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments; a cloud's metadata among them
        "192.88.99.0/24",  # 6to4 relays
        "168.63.129.16/32",  # a cloud's host, on a public address
    )
]
_GLOBAL_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
_SPECIAL_V6 = [
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments; Teredo among them, which hides an IPv4 address
        "2002::/16",  # 6to4, likewise
        "3fff::/20",  # documentation
    )
]
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # its last 32 bits are the IPv4 address that is reached


class ForbiddenAddress(OSError):
    """The host has no allowed address."""

    def __init__(self) -> None:
        super().__init__(
            "forbidden address"
        )  # one text for all: aiohttp raises one error for a host whose addresses all failed equally


class AddressRules:
    def __init__(self, allow_networks: Iterable[Network] = ()) -> None:
        self._allowed = list(allow_networks)

    def open_socket(self, info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
        """A socket for an address in the form of `getaddrinfo`; used by aiohttp as its `socket_factory`.

        Raises:
            ForbiddenAddress: the address is not allowed.
        """
        family, kind, protocol, _, (host, port, *_) = info
        try:
            address = ipaddress.ip_address(str(host))
        except ValueError:  # a name would be resolved once more, perhaps to another address
            raise ForbiddenAddress from None
        if not self.allows(address, int(str(port))):
            raise ForbiddenAddress
        return socket.socket(family, kind, protocol)

    def allows(self, address: Address, port: int) -> bool:
        address = _ipv4_if_mapped(address)
        if any(address in network for network in self._allowed):
            return True
        served = port >= _WELL_KNOWN_PORTS_END and port not in _SERVICE_PORTS
        return is_public(address) and (port in _WEB_PORTS or served)


def is_public(address: Address) -> bool:
    """Whether the address belongs to a single host on the public internet."""
    address = _ipv4_if_mapped(address)
    if not address.is_global or address.is_multicast:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return not address.is_reserved and not any(address in network for network in _SPECIAL_V4)
    return address in _GLOBAL_UNICAST_V6 and not any(address in network for network in _SPECIAL_V6)


def _ipv4_if_mapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 address maps to, if it maps to one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address
