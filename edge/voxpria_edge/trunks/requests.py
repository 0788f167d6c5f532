"""Requests of our own to trunks' servers: Kamailio sends them, by the ways that calls go, and tells what came back."""

import asyncio
import uuid
from collections.abc import Mapping
from typing import Literal

import msgspec
from voxpria_routing.hosts import host_port
from voxpria_routing.locate import ResolutionError
from voxpria_routing.snapshot import Trunk
from voxpria_routing.uris import next_hop_uri, server_uri

from voxpria_edge.proxy import messages
from voxpria_edge.proxy.kamailio import Evapi
from voxpria_edge.trunks import credentials
from voxpria_edge.trunks.resolve import Guard, addresses

Method = Literal["OPTIONS", "REGISTER"]

_SECONDS = 10.0
"""Longer than Kamailio waits for a name and then for an answer."""
_MOST_AT_ONCE, _MOST_PER_SECOND = 64, 25


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a server answered; code 0 is that nothing could be sent, 408 without headers that nothing came."""

    code: int
    reason: str = ""
    headers: Mapping[str, tuple[str, ...]] = {}
    """By name, in small letters."""
    latency_ms: float = 0.0
    is_authenticated: bool = False
    """Whether credentials were shown."""

    @property
    def came(self) -> bool:
        """Whether a server answered at all."""
        return bool(self.headers)

    def first(self, name: str) -> str | None:
        """Return the first value of a header."""
        return next(iter(self.headers.get(name, ())), None)


class Requests:
    """Sends requests and waits for their answers: so many at once, and so many a second."""

    def __init__(self, kamailio: Evapi, guard: Guard) -> None:
        """`guard` tells whose servers must be outside: they are gone to by an address that was looked at."""
        self._kamailio, self._guard = kamailio, guard
        self._waiting: dict[str, asyncio.Future[messages.Replied]] = {}
        self._places = asyncio.Semaphore(_MOST_AT_ONCE)
        self._next_at = 0.0

    def take(self, message: messages.Replied) -> None:
        """Hear of an answer; one that nobody waits for any more is dropped."""
        waiting = self._waiting.get(message.id)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    async def ask(self, trunk: Trunk, method: Method, aor: str, headers: str = "") -> Answer | None:
        """Send a request to a trunk's server, with its credentials if it wants them; None if Kamailio can't tell.

        `aor` is whose request it is (From and To), `headers` are whole lines.
        """
        async with self._places:
            try:
                next_hop = await self._next_hop(trunk)
            except ResolutionError as error:
                return Answer(code=0, reason=str(error))
            first = await self._once(trunk, next_hop, method, aor, headers)
            if first is None:
                return None
            authorization = credentials.authorization(trunk, method, server_uri(trunk), first.code, first.headers)
            if authorization is None:
                return first
            last = await self._once(trunk, next_hop, method, aor, headers + authorization)
            return last and msgspec.structs.replace(last, latency_ms=first.latency_ms, is_authenticated=True)

    async def _next_hop(self, trunk: Trunk) -> str:
        if not self._guard(trunk):
            return next_hop_uri(trunk) or ""
        host, port = (await addresses(trunk, is_guarded=True))[0]
        return next_hop_uri(msgspec.structs.replace(trunk, next_hop=host_port(host, port))) or ""

    async def _once(self, trunk: Trunk, next_hop: str, method: Method, aor: str, headers: str) -> Answer | None:
        await self._pace()
        if not self._kamailio.is_connected:
            return None
        id_ = str(uuid.uuid4())
        replied = self._waiting[id_] = asyncio.get_running_loop().create_future()
        ask = messages.Ask(
            id=id_,
            method=method,
            uri=server_uri(trunk),
            next_hop=next_hop,
            name=trunk.server,
            aor=aor,
            headers=headers,
        )
        self._kamailio.send(ask)
        try:
            async with asyncio.timeout(_SECONDS):
                return answer(await replied)
        except TimeoutError:
            return None
        finally:
            del self._waiting[id_]

    async def _pace(self) -> None:
        now = asyncio.get_running_loop().time()
        self._next_at = max(now, self._next_at + 1 / _MOST_PER_SECOND)
        await asyncio.sleep(self._next_at - now)


def answer(message: messages.Replied) -> Answer:
    """Return what Kamailio says of an answer, taken apart."""
    head = messages.text(message.head)
    reason = head.partition("\r\n")[0].partition(" ")[2].partition(" ")[2][:100]
    took = max(0.0, float(message.at) - float(message.sent_at))
    headers = credentials.headers_of(head)
    return Answer(code=message.code, reason=reason, headers=headers, latency_ms=round(took * 1000, 1))
