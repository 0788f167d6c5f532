"""Where a SIP server is (RFC 3263), looked for as Kamailio does. The one part of this package that asks somebody: DNS.

A trunk says its transport, so no record chooses another (section 4.1). SRV records of that transport lead to the server
where it is a name without a port of its own. NAPTR records are asked for only over UDP, where the URI names no
transport, and only for the name of those SRV records.
"""

import asyncio
import ipaddress
import random
import socket
from contextlib import suppress
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.resolver
import msgspec

from voxpria_routing.hosts import has_service
from voxpria_routing.snapshot import Transport

Address = tuple[str, int]

_SECONDS = 3.0
SERVICES: dict[Transport, str] = {"udp": "_sip._udp", "tcp": "_sip._tcp", "tls": "_sips._tcp"}
"""What stands before a server's name in that of its SRV records."""


class ResolutionError(OSError):
    """There is no address to go to; the message is a sentence."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server is."""

    addresses: list[Address]
    """IP addresses and ports, the first to be tried first."""
    service: str | None = None
    """The name whose SRV records led there."""
    targets: list[Address] = []
    """The names and ports that they gave, those without an address too."""


async def locate(host: str, port: int, transport: Transport) -> Place:
    """Return where a server is; raise ResolutionError, after 3 s at the latest."""
    with suppress(ValueError):
        return Place(addresses=[(str(ipaddress.ip_address(host)), port)])
    try:
        async with asyncio.timeout(_SECONDS):
            return await _find(host, port, transport)
    except TimeoutError:
        raise ResolutionError(f"DNS: nobody said within {_SECONDS:.0f} s where {host} is.") from None


async def _find(host: str, port: int, transport: Transport) -> Place:
    service, targets = await _service(host, transport) if has_service(host, port, transport) else (None, [])
    if not targets:
        return Place(addresses=await _addresses_of(host, port))
    found: list[Address] = []
    for target in targets:
        with suppress(ResolutionError):
            found += await _addresses_of(*target)
    if not found:
        raise ResolutionError(f"DNS: none of the servers that SRV records of {host} name has an address.")
    return Place(addresses=found, service=service, targets=targets)


async def _service(host: str, transport: Transport) -> tuple[str, list[Address]]:
    """Return the name of the SRV records, and their targets by priority and by weight (RFC 2782)."""
    name = f"{SERVICES[transport]}.{host}"
    if transport == "udp":
        services = await _records(host, dns.rdatatype.NAPTR)
        ours = [record for record in services if record.service.upper() == b"SIP+D2U"]
        best = min(ours, key=lambda record: (record.order, record.preference), default=None)
        name = name if best is None else best.replacement.to_text(omit_final_dot=True)
    found = await _records(name, dns.rdatatype.SRV)
    found.sort(key=lambda record: (record.priority, -record.weight * random.random()))  # noqa: S311
    return name, [(record.target.to_text(omit_final_dot=True), record.port) for record in found]


async def _records(name: str, kind: dns.rdatatype.RdataType) -> list[Any]:
    """Return the records of one kind that a name has; raise ResolutionError if that can't be found out."""
    try:
        return list(await dns.asyncresolver.resolve(name, kind, lifetime=_SECONDS, search=False))
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return []
    except (dns.exception.DNSException, OSError, UnicodeError) as error:
        raise ResolutionError(f"DNS: {name} could not be resolved: {_words(error)}.") from None


async def _addresses_of(host: str, port: int) -> list[Address]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in {socket.EAI_NONAME, socket.EAI_NODATA}:
            raise ResolutionError(f"DNS: the name {host} has no address.") from None
        raise ResolutionError(f"DNS: the name {host} could not be resolved: {error.strerror}.") from None
    except UnicodeError:
        raise ResolutionError(f"DNS: {host} is no name that could be looked up.") from None
    return list(dict.fromkeys((str(info[4][0]), port) for info in found))


def _words(error: Exception) -> str:
    if isinstance(error, dns.exception.Timeout | dns.resolver.NoNameservers):
        return "no name server gave an answer"
    return type(error).__name__
