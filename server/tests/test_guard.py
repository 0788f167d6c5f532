"""Where webhooks never go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxpria_server.webhooks import guard

pytestmark = pytest.mark.unit

FORBIDDEN = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "192.0.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "192.88.99.1",
    "168.63.129.16",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::1",
    "2001:0:1234::1",
    "2001:db8::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "ff0e::1",
    "not an address",
    "",
]
ALLOWED = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450:4001::8a", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("address", FORBIDDEN)
def test_forbidden(address):
    assert guard.is_forbidden(address)


@pytest.mark.parametrize("address", ALLOWED)
def test_allowed(address):
    assert not guard.is_forbidden(address)


@given(st.ip_addresses(v=4))
def test_an_address_inside_another_one_is_judged_by_itself(address):
    assert guard.is_forbidden(f"::ffff:{address}") == guard.is_forbidden(str(address))
    assert guard.is_forbidden(f"::{address}")
    assert guard.is_forbidden(f"64:ff9b::{address}")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "::1", "10.0.0.1"])
def test_hosts_that_are_plainly_inside(host):
    assert guard.is_forbidden_host(host)


@pytest.mark.parametrize("host", ["example.com", "8.8.8.8", "localhost.example.com", "2130706433"])
def test_hosts_that_only_the_socket_can_judge(host):
    assert not guard.is_forbidden_host(host)


def test_a_socket_is_made_only_for_allowed_addresses():
    info = (2, 1, 6, "", ("127.0.0.1", 80))
    with pytest.raises(guard.ForbiddenAddressError):
        guard.socket_factory(allow_private=False)(info)
    guard.socket_factory(allow_private=True)(info).close()
