"""Where a host name leads in each mode. Test mode never leaves this machine: a provider's host means the sandbox."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal

from voxpria_routing.hosts import bracketed, host_port

from voxpria_server.providers.base import Mode, RefusedError
from voxpria_server.settings import Settings

ELEVENLABS_SIP = "sip.rtc.elevenlabs.io"
OPENAI_SIP = "sip.api.openai.com"
SANDBOX_SIP = "sip.test.voxpria.com"
_RESIDENCES = ("eu", "in", "sg")
PROVIDER_HOSTS = frozenset(
    {
        SANDBOX_SIP,
        ELEVENLABS_SIP,
        "sip-static.rtc.elevenlabs.io",
        *(f"{name}.rtc.{region}.residency.elevenlabs.io" for name in ("sip", "sip-static") for region in _RESIDENCES),
        OPENAI_SIP,
        *(f"sip-{region}.api.openai.com" for region in ("eu", "in")),
    }
)
"""Every SIP server that the providers name; in test mode each is the sandbox's, whose certificate carries them all."""

Api = Literal["elevenlabs", "openai"]
_NAMES = {"elevenlabs": "ElevenLabs", "openai": "OpenAI"}
_APIS = {"elevenlabs": "https://api.elevenlabs.io", "openai": "https://api.openai.com"}
_REGIONAL_SIP = {
    "elevenlabs": re.compile(r"(?:[a-z0-9-]+\.)+([a-z]{2})\.residency\.elevenlabs\.io"),
    "openai": re.compile(r"sip-([a-z]{2})\.api\.openai\.com"),
}
_REGIONAL_APIS = {"elevenlabs": "https://api.{}.residency.elevenlabs.io", "openai": "https://{}.api.openai.com"}


@dataclass(frozen=True)
class Way:
    """How a SIP server is reached: `next_hop` instead of its own address, or not at all (`barred` says why)."""

    next_hop: tuple[str, int] | None = None
    barred: str | None = None


def way_to(settings: Settings, mode: Mode, server: str, transport: str) -> Way:
    """Return the way to a trunk's SIP server."""
    if mode == "live" or (_is_this_machine(server) and settings.private_trunks_are_allowed):
        return Way()
    if server not in PROVIDER_HOSTS:
        return Way(barred=f"test mode never leaves this machine, and {server} is outside it")
    if not settings.sandbox:
        return Way(barred=f"in test mode {server} means the sandbox, and the sandbox is off")
    port = settings.sip_tls_port if transport == "tls" else settings.sip_port
    return Way(next_hop=(settings.sandbox_address, port))


def region_of(provider: Api, server: str) -> str | None:
    """Return the region in which an account's data stays, by its SIP server; None if that is any.

    Such a region's API has keys, agents, numbers and calls of its own; a call is unknown at any other.
    """
    found = _REGIONAL_SIP[provider].fullmatch(server.lower())
    return found[1] if found else None


def api_url(settings: Settings, provider: Api, mode: Mode, region: str | None = None) -> str:
    """Return the base URL of a provider's REST API; raise RefusedError if there is none."""
    if mode == "test":
        if not settings.sandbox:
            raise RefusedError(f"in test mode {_NAMES[provider]} means the sandbox, and the sandbox is off")
        return f"{settings.sandbox_url}/{provider}"
    return _APIS[provider] if region is None else _REGIONAL_APIS[provider].format(region)


def edge_address(settings: Settings, mode: Mode, transport: str) -> str | None:
    """Return the host that a provider sends calls to us to, with its port if that is not the transport's own.

    None if the outside knows none: no name is set, and the address is none of the public ones.
    """
    host = settings.sip_name or settings.sip_address
    if mode == "live" and not settings.sip_name and not ipaddress.ip_address(settings.sip_address).is_global:
        return None
    port, its_own = (settings.sip_tls_port, 5061) if transport == "tls" else (settings.sip_port, 5060)
    return bracketed(host) if port == its_own else host_port(host, port)


def _is_this_machine(server: str) -> bool:
    try:
        return ipaddress.ip_address(server).is_loopback
    except ValueError:
        return server == "localhost"
