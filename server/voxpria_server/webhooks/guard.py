"""Where webhooks must not go: addresses inside, checked where a connection is made.

A customer chooses the URL, so it could name what only we can reach (cloud metadata, databases, ourselves). Names are
resolved at connect time and may change between a check and the connection, and addresses can be written in many
ways, so the one safe place to look is the socket about to be connected.
"""

import ipaddress
import socket
from collections.abc import Callable

from aiohappyeyeballs import AddrInfoType

IPv6 = ipaddress.IPv6Address
_REFUSED = tuple(
    ipaddress.ip_network(text)
    for text in (
        "168.63.129.16/32",  # a cloud's own server, at a public address
        "192.88.99.0/24",  # 6to4 relays (RFC 7526)
        "64:ff9b::/96",  # NAT64 (RFC 6052): an IPv4 address inside
        "64:ff9b:1::/48",  # NAT64, local use (RFC 8215)
        "2002::/16",  # 6to4 (RFC 3056): an IPv4 address inside
        "2001::/32",  # Teredo (RFC 4380): an IPv4 address inside
        "::/96",  # IPv4-compatible (RFC 4291)
        "::ffff:0:0:0/96",  # IPv4-translated (RFC 2765): an IPv4 address inside
        "fec0::/10",  # site-local (RFC 3879)
    )
)


class ForbiddenAddressError(OSError):
    """The address must not be connected to."""


def is_forbidden(address: str) -> bool:
    """Tell whether an IP address (as text, a zone allowed) is anything but a public unicast one."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return True
    if isinstance(ip, IPv6) and ip.ipv4_mapped is not None:
        return is_forbidden(str(ip.ipv4_mapped))
    return not ip.is_global or ip.is_multicast or any(ip in network for network in _REFUSED)


def is_forbidden_host(host: str) -> bool:
    """Tell whether a URL's host is plainly forbidden, as far as that shows without resolving it."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return is_forbidden(name)


def socket_factory(*, allow_private: bool) -> Callable[[AddrInfoType], socket.socket]:
    """Return what makes the sockets of an aiohttp connector: none to a forbidden address."""

    def make(info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        if not allow_private and is_forbidden(str(address[0])):
            raise ForbiddenAddressError("the address is private, local or reserved")
        return socket.socket(family, kind, protocol)

    return make
