"""Where a trunk's server is, and what may not be gone to."""

import ipaddress
from collections.abc import Callable

from voxpria_routing.hosts import split
from voxpria_routing.locate import Address, ResolutionError, locate
from voxpria_routing.snapshot import Trunk

from voxpria_edge.trunks.networks import PRIVATE

_MOST_ADDRESSES = 8
_PRIVATE = [ipaddress.ip_network(network) for network in PRIVATE]

Guard = Callable[[Trunk], bool]
"""Tells whether a trunk's server must be outside."""


def guard(*, allow_private: bool) -> Guard:
    """Return whose servers must be outside: live trunks', where the operator has not said otherwise."""
    return lambda trunk: trunk.mode == "live" and trunk.next_hop is None and not allow_private


def is_private(address: str) -> bool:
    """Tell whether an IP address is one of `PRIVATE`."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return any(ip in network for network in _PRIVATE if network.version == ip.version)


async def addresses(trunk: Trunk, *, is_guarded: bool) -> list[Address]:
    """Return where the trunk's server is, the first to be tried first; raise ResolutionError."""
    if trunk.next_hop is not None:
        return [split(trunk.next_hop)]
    found = (await locate(trunk.server, trunk.port, trunk.transport)).addresses
    allowed = [address for address in found if not (is_guarded and is_private(address[0]))]
    if not allowed:
        raise ResolutionError(
            f"{trunk.server} is at {found[0][0]}, a private, local or reserved address, which live calls may not go to;"
            " the operator may allow that with VOXPRIA_ALLOW_PRIVATE_TRUNKS."
        )
    return allowed[:_MOST_ADDRESSES]
