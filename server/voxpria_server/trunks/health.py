"""How a trunk's server is: asked at create and update, then by the edges (`take_news`), which its calls come from.

Of trunks that no edge tells of, as they have no numbers in service, the control plane asks again and again itself,
less often while a server stays away.
"""

import random
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from voxpria_server.auth.service import Mode
from voxpria_server.kit.clock import utc_now
from voxpria_server.providers import doctor, sip
from voxpria_server.providers.hosts import SANDBOX_SIP, way_to
from voxpria_server.settings import Settings

_REGULAR_SECONDS = 300
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 30, 1800


async def check(
    settings: Settings, mode: Mode, provider: str, config: Mapping[str, Any], credentials: Mapping[str, str]
) -> sip.Verdict:
    """Ask the trunk's server how it is; never raises for what the server does or fails to do."""
    server = server_of(settings, mode, config, credentials)
    if isinstance(server, str):
        return sip.Verdict("unreachable", server)
    asks = answers_options(provider, config["server"])
    return await (sip.ask_options(server) if asks else sip.connect_only(server))


async def examine(
    settings: Settings, mode: Mode, provider: str, config: Mapping[str, Any], credentials: Mapping[str, str]
) -> list[doctor.Step]:
    """Ask the trunk's server step by step what works."""
    server = server_of(settings, mode, config, credentials)
    if isinstance(server, str):
        return doctor.barred(server)
    return await doctor.examine(
        doctor.Examination(
            server=server,
            answers_options=answers_options(provider, config["server"]),
            codecs=config["codecs"],
        )
    )


def server_of(
    settings: Settings, mode: Mode, config: Mapping[str, Any], credentials: Mapping[str, str]
) -> sip.Server | str:
    """Return the server that a trunk means and the way to it; or why it may not be gone to."""
    way = way_to(settings, mode, config["server"], config["transport"])
    if way.barred is not None:
        return way.barred
    authority = settings.sandbox_authority_file
    is_sandbox = way.next_hop is not None and authority.exists()
    return sip.Server(
        host=config["server"],
        port=config["port"],
        transport=config["transport"],
        next_hop=way.next_hop,
        is_tls_verified=mode == "live" or is_sandbox,
        authority=str(authority) if is_sandbox else None,
        may_be_private=mode == "test" or settings.private_trunks_are_allowed,
        username=credentials.get("username"),
        password=credentials.get("password"),
    )


def answers_options(provider: str, server: str) -> bool:
    """Tell whether a trunk's server answers OPTIONS: the AI providers' do not, the sandbox's own does for all."""
    return provider == "generic" or server == SANDBOX_SIP


def record(found: sip.Verdict, *, failures_before: int) -> dict[str, Any]:
    """Return what a trunk's row keeps of a check, the time of the next one included.

    A server that answers is asked again after 5 min; one that does not after 30 s, then twice as long each time, up
    to 30 min; each spread by a quarter, so that what was checked together does not stay together.
    """
    failures = failures_before + 1 if found.status == "unreachable" else 0
    wait = _REGULAR_SECONDS if not failures else min(_FIRST_RETRY_SECONDS * 2 ** (failures - 1), _LAST_RETRY_SECONDS)
    now = utc_now()
    return {
        "health_status": found.status,
        "health_checked_at": now,
        "health_latency_ms": found.latency_ms,
        "health_detail": found.detail,
        "health_failures": failures,
        "health_edge_id": None,
        "health_next_at": now + timedelta(seconds=wait * random.uniform(0.75, 1.25)),  # noqa: S311  (jitter)
    }
