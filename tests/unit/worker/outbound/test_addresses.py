from ipaddress import ip_address, ip_network

import pytest

from worker.outbound.addresses import AddressRules, ForbiddenAddress, is_public

PUBLIC = ["8.8.8.8", "151.101.1.69", "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]
NOT_PUBLIC = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.8.8.8",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::8.8.8.8",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_of_no_public_host_are_not(address: str) -> None:
    assert not is_public(ip_address(address))


def test_well_known_ports_are_for_the_web_alone() -> None:
    allowed = [port for port in (22, 25, 80, 443, 1023, 1024) if AddressRules().allows(ip_address("8.8.8.8"), port)]
    assert allowed == [80, 443, 1024]


@pytest.mark.parametrize("port", [2375, 3306, 5432, 6379, 9200, 11211, 27017])
def test_ports_of_databases_and_remote_control_are_refused(port: int) -> None:
    assert not AddressRules().allows(ip_address("8.8.8.8"), port)
    assert AddressRules([ip_network("8.8.8.0/24")]).allows(ip_address("8.8.8.8"), port)


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3"])
def test_an_allowed_network_may_be_connected_to_on_any_port_and_in_any_form(address: str) -> None:
    rules = AddressRules([ip_network("10.1.0.0/16")])
    assert rules.allows(ip_address(address), 25)
    assert not rules.allows(ip_address("10.2.0.1"), 443)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "fe80::1%eth0", ""])
def test_no_socket_is_made_for_a_forbidden_address_or_for_a_name(host: str) -> None:
    with pytest.raises(ForbiddenAddress):
        AddressRules().open_socket((2, 1, 6, "", (host, 80)))
