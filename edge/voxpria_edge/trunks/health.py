"""How the trunks' servers are, as their calls would find them: asked again and again, spread out, backed off.

What is found closes and opens the circuits (`breaker`) and is the trunks' health, which the control plane is told.
"""

import random
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import msgspec
import structlog
from voxpria_routing.edge_api import TrunkReport
from voxpria_routing.load import server_key
from voxpria_routing.snapshot import Trunk
from voxpria_routing.table import Table
from voxpria_routing.uris import user_uri

from voxpria_edge.kit.background import Background
from voxpria_edge.trunks.breaker import Breakers
from voxpria_edge.trunks.diagnosis import Doctor, silence
from voxpria_edge.trunks.requests import Answer, Requests

_log = structlog.get_logger(__name__)

_LOOK_SECONDS = 0.25
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 4.0, 30.0
_GRACE_SECONDS = 20.0
"""How much longer than until the next look a circuit stays open: the look takes its time."""
_CALLS_SPEAK_SECONDS = 3600.0
"""How long a call that went well says more of a server than its silence to OPTIONS."""
_TOLD_AGAIN_SECONDS = 300.0
_ANSWERS_OPTIONS = ("generic",)
"""The AI providers' servers are known not to: there, a connection has to do."""
_REFUSALS = (401, 403, 407)


class Place(msgspec.Struct, frozen=True):
    """One thing to look at: trunks that share server and credentials share its answers."""

    server: str
    port: int
    transport: str
    next_hop: str | None
    username: str | None
    password: str | None
    is_asked: bool
    """By OPTIONS; else only connected to."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What one look showed."""

    status: str
    detail: str
    latency_ms: float | None = None
    is_silence: bool = False
    """Nothing came, and nothing says why: some servers take calls, and answer no OPTIONS."""


class _Watched:
    """One place, and what is known of it."""

    def __init__(self, next_at: float) -> None:
        self.trunks: dict[str, Trunk] = {}
        self.next_at = next_at
        self.is_being_looked_at = False
        self.failures = 0
        self.has_answered = False
        self.found: Found | None = None
        self.found_at = datetime.now(UTC)


class Health:
    """Looks after the servers of the trunks that have numbers in service."""

    def __init__(
        self,
        table: Callable[[], Table],
        requests: Requests,
        doctor: Doctor,
        breakers: Breakers,
        every_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table, self._requests, self._doctor, self._breakers = table, requests, doctor, breakers
        self._every_seconds, self._clock = every_seconds, clock
        self._places: dict[Place, _Watched] = {}
        self._background = Background()
        self._version = -1
        self._down: dict[str, str] = {}
        self._told: dict[str, tuple[str, str, float]] = {}
        """By trunk: status and detail as last told, and when."""

    async def run(self) -> None:
        """Look at each server when its time has come, until cancelled."""
        await self._background.look_around(self.look_around, _LOOK_SECONDS)

    def look_around(self) -> None:
        """Begin the looks that are due."""
        table, now = self._table(), self._clock()
        if table.version != self._version:
            self._version = table.version
            self._follow(table)
        self._hurry(now)
        for place, watched in self._places.items():
            if watched.next_at <= now and not watched.is_being_looked_at:
                watched.is_being_looked_at = True
                self._background.begin(self._look(place, watched))

    def reports(self, limit: int) -> list[TrunkReport]:
        """Return what the control plane has not been told yet, or long ago."""
        return list(self._reports(limit))

    def told(self, reports: Iterable[TrunkReport]) -> None:
        """Note that these have been taken."""
        now = self._clock()
        self._told |= {report.trunk_id: (report.status, report.detail, now) for report in reports}

    def _follow(self, table: Table) -> None:
        """Take up the places of the routes in force; what was learned of those that stay is kept.

        The first look is not at once: a thousand may come together, and the control plane has just asked a new one.
        """
        wanted: dict[Place, dict[str, Trunk]] = {}
        for trunk in table.trunks_in_use():
            if trunk.barred_reason is None:
                wanted.setdefault(_place(trunk), {})[trunk.id] = trunk
        for place in self._places.keys() - wanted.keys():
            del self._places[place]
        now = self._clock()
        for place, trunks in wanted.items():
            if place not in self._places:
                self._places[place] = _Watched(now + self._every_seconds * random.uniform(0.25, 1))  # noqa: S311
            self._places[place].trunks = trunks
        self._told = {id_: told for id_, told in self._told.items() if id_ in table.trunks}

    def _hurry(self, now: float) -> None:
        """Look soon at servers whose calls have begun to fail."""
        down = self._breakers.down()
        fallen = down.keys() - self._down.keys()
        self._down = down
        if fallen:
            for watched in self._places.values():
                if any(server_key(trunk) in fallen for trunk in watched.trunks.values()):
                    watched.next_at = min(watched.next_at, now + _FIRST_PAUSE_SECONDS * random.random())  # noqa: S311

    async def _look(self, place: Place, watched: _Watched) -> None:
        trunk = next(iter(watched.trunks.values()))
        try:
            found = await (self._ask(trunk) if place.is_asked else self._connect(trunk))
        except Exception:  # one look that breaks us must not cost the others
            _log.exception("a trunk's server could not be looked at", trunk_id=trunk.id)
            found = None
        finally:
            watched.is_being_looked_at = False
        self._learn(watched, found)

    def _learn(self, watched: _Watched, found: Found | None) -> None:
        """Take in what a look showed; a server that was there is not believed to be gone until a second look."""
        if found is None:
            watched.next_at = self._clock() + _FIRST_PAUSE_SECONDS
            return
        keys = [server_key(trunk) for trunk in watched.trunks.values()]
        if found.is_silence and any(self._breakers.worked_within(key, _CALLS_SPEAK_SECONDS) for key in keys):
            found = Found(status="reachable", detail="takes calls, but answers no OPTIONS")
        elif not found.is_silence and found.status != "unreachable":
            watched.has_answered = True
        watched.failures = watched.failures + 1 if found.status == "unreachable" else 0
        is_believed = watched.failures != 1 or watched.found is None
        if is_believed:
            watched.found, watched.found_at = found, datetime.now(UTC)
        if found.status != "unreachable":
            watched.next_at = self._clock() + self._every_seconds * random.uniform(0.75, 1.25)  # noqa: S311
            for key in keys:
                self._breakers.found_up(key)
            return
        wait = min(_FIRST_PAUSE_SECONDS * 2 ** min(watched.failures - 1, 10), _LONGEST_PAUSE_SECONDS)
        wait *= random.uniform(0.75, 1.25)  # noqa: S311
        watched.next_at = self._clock() + wait
        if is_believed and (watched.has_answered or not found.is_silence):
            for key in keys:
                self._breakers.found_down(key, found.detail.rstrip("."), wait + _GRACE_SECONDS)

    async def _ask(self, trunk: Trunk) -> Found | None:
        if trunk.transport == "tls" and (trouble := await self._doctor.trouble(trunk)):
            return Found(status="unreachable", detail=trouble)
        answered = await self._requests.ask(trunk, "OPTIONS", user_uri(trunk, "voxpria"), "Accept: application/sdp\r\n")
        if answered is None:
            return None
        return judge(answered) if answered.came else await self._missed(trunk)

    async def _missed(self, trunk: Trunk) -> Found:
        trouble = await self._doctor.trouble(trunk)
        return Found(status="unreachable", detail=trouble or silence(trunk), is_silence=trouble is None)

    async def _connect(self, trunk: Trunk) -> Found | None:
        began_at = self._clock()
        trouble = await self._doctor.trouble(trunk)
        if trouble is not None:
            return Found(status="unreachable", detail=trouble)
        took = round((self._clock() - began_at) * 1000, 1)
        detail = "takes connections; its credentials show at the first call"
        return Found(status="reachable", detail=detail, latency_ms=took)

    def _reports(self, limit: int) -> Iterable[TrunkReport]:
        now = self._clock()
        for watched in self._places.values():
            found = watched.found
            if found is None:
                continue
            for trunk in watched.trunks.values():
                if limit <= 0:
                    return
                detail = found.detail
                if found.status != "unreachable" and (why := self._down.get(server_key(trunk))):
                    detail = f"{detail}; but no call goes there now: {why}"
                before = self._told.get(trunk.id)
                if before is None or before[:2] != (found.status, detail) or now - before[2] > _TOLD_AGAIN_SECONDS:
                    limit -= 1
                    yield TrunkReport(
                        trunk_id=trunk.id,
                        server=trunk.server,
                        port=trunk.port,
                        transport=trunk.transport,
                        status=found.status,  # type: ignore[arg-type]
                        detail=detail,
                        latency_ms=found.latency_ms,
                        checked_at=watched.found_at,
                    )


def judge(answered: Answer) -> Found:
    """Return what an answer to OPTIONS says: any shows a server; a refusal, that our credentials do not do."""
    said = f"answered {answered.code} {answered.reason}".rstrip()
    if answered.code in _REFUSALS:
        whom = "these credentials" if answered.is_authenticated else "a request without credentials"
        return Found(status="auth_failed", detail=f"{said} to {whom}", latency_ms=answered.latency_ms)
    return Found(status="reachable", detail=said, latency_ms=answered.latency_ms)


def _place(trunk: Trunk) -> Place:
    is_asked = trunk.provider in _ANSWERS_OPTIONS
    credentials = (trunk.username, trunk.password) if is_asked else (None, None)
    return Place(trunk.server, trunk.port, trunk.transport, trunk.next_hop, *credentials, is_asked)
