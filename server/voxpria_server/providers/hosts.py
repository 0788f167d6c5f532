"""Where a host name leads in each mode. Test mode never leaves this machine: a provider's host means the sandbox."""

import ipaddress
from dataclasses import dataclass

from voxpria_server.providers.base import Mode
from voxpria_server.settings import Settings

ELEVENLABS_SIP = "sip.rtc.elevenlabs.io"
OPENAI_SIP = "sip.api.openai.com"
SANDBOX_SIP = "sip.test.voxpria.com"
PROVIDER_HOSTS = frozenset({ELEVENLABS_SIP, OPENAI_SIP, SANDBOX_SIP})


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


def _is_this_machine(server: str) -> bool:
    try:
        return ipaddress.ip_address(server).is_loopback
    except ValueError:
        return server == "localhost"
