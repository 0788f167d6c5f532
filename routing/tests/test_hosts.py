"""Hosts as they are written, and read again."""

import pytest
from voxpria_routing.hosts import bracketed, host_port, split

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("host", "port", "written"),
    [("127.0.0.1", 5060, "127.0.0.1:5060"), ("::1", 5061, "[::1]:5061"), ("sip.example.com", 1, "sip.example.com:1")],
)
def test_only_ipv6_addresses_stand_in_brackets(host: str, port: int, written: str) -> None:
    assert host_port(host, port) == written == f"{bracketed(host)}:{port}"
    assert split(written) == (host, port)


def test_a_place_without_a_port_is_none() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        split("sip.example.com")
