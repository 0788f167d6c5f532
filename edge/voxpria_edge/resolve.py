"""Where a trunk's server is (RFC 3263, as Kamailio looks for it), and what may not be gone to."""

import asyncio
import ipaddress
import random
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.resolver
from voxpria_routing.decide import has_srv
from voxpria_routing.hosts import split
from voxpria_routing.snapshot import Trunk

from voxpria_edge.networks import PRIVATE

Address = tuple[str, int]

_SECONDS = 3.0
_MOST_ADDRESSES = 8
_SERVICES = {"udp": "_sip._udp", "tcp": "_sip._tcp", "tls": "_sips._tcp"}
_PRIVATE = [ipaddress.ip_network(network) for network in PRIVATE]

Guard = Callable[[Trunk], bool]
"""Tells whether a trunk's server must be outside."""


class ResolutionError(Exception):
    """There is no address to go to; the message is a sentence."""


def guard(*, allow_private: bool) -> Guard:
    """Return whose servers must be outside: live trunks', where the operator has not said otherwise."""
    return lambda trunk: trunk.mode == "live" and trunk.next_hop is None and not allow_private


def is_private(address: str) -> bool:
    """Tell whether an IP address is one of `PRIVATE`."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return any(ip in network for network in _PRIVATE if network.version == ip.version)


async def addresses(trunk: Trunk, *, is_guarded: bool) -> list[Address]:
    """Return where the trunk's server is, the first to be tried first; raise ResolutionError."""
    try:
        async with asyncio.timeout(_SECONDS):
            found = await _find(trunk)
    except TimeoutError:
        raise ResolutionError(f"DNS: nobody said within {_SECONDS:.0f} s where {trunk.server} is.") from None
    allowed = [address for address in found if not (is_guarded and is_private(address[0]))]
    if not allowed:
        raise ResolutionError(
            f"{trunk.server} is at {found[0][0]}, a private, local or reserved address, which live calls may not go to;"
            " the operator may allow that with VOXPRIA_ALLOW_PRIVATE_TRUNKS."
        )
    return allowed[:_MOST_ADDRESSES]


async def _find(trunk: Trunk) -> list[Address]:
    if trunk.next_hop is not None:
        return [split(trunk.next_hop)]
    with suppress(ValueError):
        return [(str(ipaddress.ip_address(trunk.server)), trunk.port)]
    targets = await _service(trunk) if has_srv(trunk) else []
    if not targets:
        return await _addresses_of(trunk.server, trunk.port)
    found: list[Address] = []
    problem = ResolutionError(f"DNS: none of the servers that SRV records of {trunk.server} name has an address.")
    for target in targets:
        with suppress(ResolutionError):
            found += await _addresses_of(*target)
    if not found:
        raise problem
    return found


async def _service(trunk: Trunk) -> list[Address]:
    """Return the targets of the SRV records, by priority and by weight (RFC 2782); none if there are no records."""
    name = f"{_SERVICES[trunk.transport]}.{trunk.server}"
    if trunk.transport == "udp":
        services = await _records(trunk.server, dns.rdatatype.NAPTR)
        ours = [record for record in services if record.service.upper() == b"SIP+D2U"]
        best = min(ours, key=lambda record: (record.order, record.preference), default=None)
        name = name if best is None else best.replacement.to_text()
    found = await _records(name, dns.rdatatype.SRV)
    found.sort(key=lambda record: (record.priority, -record.weight * random.random()))  # noqa: S311
    return [(record.target.to_text(omit_final_dot=True), record.port) for record in found]


async def _records(name: str, kind: dns.rdatatype.RdataType) -> list[Any]:
    """Return the records of one kind that a name has; raise ResolutionError if that can't be found out."""
    try:
        return list(await dns.asyncresolver.resolve(name, kind, lifetime=_SECONDS, search=False))
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return []
    except (dns.exception.DNSException, OSError) as error:
        raise ResolutionError(f"DNS: {name} could not be resolved: {_words(error)}.") from None


async def _addresses_of(host: str, port: int) -> list[Address]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in {socket.EAI_NONAME, socket.EAI_NODATA}:
            raise ResolutionError(f"DNS: the name {host} has no address.") from None
        raise ResolutionError(f"DNS: the name {host} could not be resolved: {error.strerror}.") from None
    return list(dict.fromkeys((str(info[4][0]), port) for info in found))


def _words(error: Exception) -> str:
    if isinstance(error, dns.exception.Timeout | dns.resolver.NoNameservers):
        return "no name server gave an answer"
    return type(error).__name__
