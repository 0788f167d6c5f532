"""Why a trunk's server could not be reached: asked again step by step, after a call to it has failed."""

import asyncio
import contextlib

from voxpria_routing.hosts import split
from voxpria_routing.locate import Address, ResolutionError
from voxpria_routing.snapshot import Trunk

from voxpria_edge.trunks.resolve import Guard, addresses
from voxpria_edge.trunks.tls import Examiner, TlsServer

_SECONDS = 4.0
_MOST_TRIED = 3


class Doctor:
    """Looks for the first step at which a server is lost: DNS, TCP, TLS."""

    def __init__(self, examiner: Examiner, guard: Guard) -> None:
        self._examiner, self._guard = examiner, guard

    async def diagnose(self, trunk: Trunk) -> str:
        """Return, in one sentence, what keeps us from the trunk's server."""
        return await self.trouble(trunk) or silence(trunk)

    async def trouble(self, trunk: Trunk) -> str | None:
        """Return, as a sentence, what is wrong on the way to the server; None if nothing is, so far as it shows."""
        try:
            found = await addresses(trunk, is_guarded=self._guard(trunk))
        except ResolutionError as error:
            return str(error)
        if trunk.transport == "udp":
            return None
        troubles = []
        for address in found[:_MOST_TRIED]:
            trouble = await self._trouble_at(trunk, address)
            if trouble is None:
                return None
            troubles.append(trouble)
        return " ".join(troubles)

    async def _trouble_at(self, trunk: Trunk, address: Address) -> str | None:
        host, port = address
        try:
            async with asyncio.timeout(_SECONDS):
                trouble = await _tcp_trouble(host, port)
                if trouble is None and trunk.transport == "tls":
                    return await self._examiner.problem(TlsServer(name=trunk.server, host=host, port=port))
                return trouble
        except TimeoutError:
            return f"No connection to {host}:{port} within {_SECONDS:.0f} s."


def silence(trunk: Trunk) -> str:
    """Return the sentence for a server on the way to which nothing is wrong, but that says nothing."""
    host, port = _place(trunk)
    if trunk.transport == "udp":
        return f"{host}:{port} sent no answer over UDP in time."
    return f"{host}:{port} takes connections, but gave no SIP answer in time."


def _place(trunk: Trunk) -> tuple[str, int]:
    """Return where the trunk's server is sought."""
    return (trunk.server, trunk.port) if trunk.next_hop is None else split(trunk.next_hop)


async def _tcp_trouble(host: str, port: int) -> str | None:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return f"TCP: {host}:{port} refuses connections."
    except OSError as error:
        return f"TCP: no connection to {host}:{port}: {error.strerror or type(error).__name__}."
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return None
