"""Registers this edge with the servers of trunks that ask for it (RFC 3261 section 10): one Contact a trunk.

A binding lives at the server, so it outlives us: after a restart it is made anew under the same Contact. It is taken
back when its trunk goes or stops asking, not when the edge stops: it would be back before anyone noticed.
"""

import random
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import structlog
from voxpria_routing.edge_api import Registration
from voxpria_routing.hosts import bracketed
from voxpria_routing.snapshot import Trunk
from voxpria_routing.table import Table
from voxpria_routing.uris import user_uri

from voxpria_edge.kit.background import Background
from voxpria_edge.settings import Settings
from voxpria_edge.trunks.diagnosis import Doctor
from voxpria_edge.trunks.requests import Answer, Requests

_log = structlog.get_logger(__name__)

_LOOK_SECONDS = 0.25
_WANTED_SECONDS = 600
_MOST_SECONDS = 7200
"""The most that we believe of a server's Expires, Min-Expires and Retry-After."""
_LEAST_PAUSE_SECONDS = 2.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 2.0, 300.0
_REFUSED_PAUSE_SECONDS = 60.0
"""The first pause after a refusal: asking again at once would look like guessing passwords."""
_UNREGISTER_TRIES = 3
_REFUSALS = (401, 403, 407)
_TOO_BRIEF = 423

Contact = Callable[[Trunk], str]


class _Binding:
    """A trunk's registration, and when it is to be looked after."""

    def __init__(self, trunk: Trunk, contact: str, now: float) -> None:
        self.trunk, self.contact = trunk, contact
        self.wanted_seconds = _WANTED_SECONDS
        self.next_at = now
        self.is_busy = False
        self.failures = 0
        self.is_wanted = True
        self.state = Registration(status="pending", checked_at=datetime.now(UTC))


class Registrar:
    """The registrations of this edge."""

    def __init__(
        self,
        table: Callable[[], Table],
        requests: Requests,
        doctor: Doctor,
        contact: Contact,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`contact` gives the URI that a trunk's server is to send calls to."""
        self._table, self._requests, self._doctor = table, requests, doctor
        self._contact, self._clock = contact, clock
        self._bindings: dict[str, _Binding] = {}
        self._leaving: list[_Binding] = []
        self._background = Background()
        self._version = -1
        self._told: dict[str, Registration] = {}

    async def run(self) -> None:
        """Register, refresh and unregister when it is time to, until cancelled."""
        await self._background.look_around(self.look_around, _LOOK_SECONDS)

    def look_around(self) -> None:
        """Begin what is due."""
        table, now = self._table(), self._clock()
        if table.version != self._version:
            self._version = table.version
            self._follow(table, now)
        self._leaving = [binding for binding in self._leaving if binding.failures < _UNREGISTER_TRIES]
        for binding in [*self._bindings.values(), *self._leaving]:
            if binding.next_at <= now and not binding.is_busy:
                binding.is_busy = True
                self._background.begin(self._attend(binding))

    def state(self, trunk_id: str) -> Registration | None:
        """Return how the registration of a trunk stands; None if it asks for none."""
        binding = self._bindings.get(trunk_id)
        return binding.state if binding else None

    def news(self, limit: int) -> dict[str, Registration | None]:
        """Return what the control plane has not been told yet, by trunk id; None is no registration any more."""
        changed = {id_: b.state for id_, b in self._bindings.items() if self._told.get(id_) is not b.state}
        gone = dict.fromkeys(self._told.keys() - self._bindings.keys())
        return dict(list({**changed, **gone}.items())[:limit])

    def told(self, news: Mapping[str, Registration | None]) -> None:
        """Note that this has been taken."""
        for id_, state in news.items():
            if state is None:
                self._told.pop(id_, None)
            else:
                self._told[id_] = state

    def _follow(self, table: Table, now: float) -> None:
        """Take up the trunks that ask, let go of those that went, stopped asking, or mean another server now."""
        wanted = {t.id: t for t in table.trunks.values() if t.is_registered and t.username and not t.barred_reason}
        for id_, binding in list(self._bindings.items()):
            trunk = wanted.get(id_)
            if trunk is not None and _same_server(trunk, binding.trunk):
                continue
            del self._bindings[id_]
            if trunk is None or _binding_place(trunk) != _binding_place(binding.trunk):
                self._leave(binding, now)
        for id_, trunk in wanted.items():
            if id_ not in self._bindings:
                self._bindings[id_] = _Binding(trunk, self._contact(trunk), now)

    def _leave(self, binding: _Binding, now: float) -> None:
        """Have the server forget us, if it may know us."""
        if binding.state.status == "registered" or binding.is_busy:
            binding.is_wanted, binding.failures, binding.next_at = False, 0, now
            self._leaving.append(binding)

    async def _attend(self, binding: _Binding) -> None:
        try:
            await (self._register(binding) if binding.is_wanted else self._unregister(binding))
        except Exception:  # one registration that breaks us must not cost the others
            _log.exception("a registration could not be looked after", trunk_id=binding.trunk.id)
            binding.next_at = self._clock() + _LONGEST_PAUSE_SECONDS
        finally:
            binding.is_busy = False

    async def _register(self, binding: _Binding) -> None:
        answered = await self._ask(binding, binding.wanted_seconds)
        if answered is not None and answered.code == _TOO_BRIEF:  # RFC 3261 section 10.2.8
            least = _number(answered.first("min-expires"))
            if least is not None and binding.wanted_seconds < least <= _MOST_SECONDS:
                binding.wanted_seconds = least
                answered = await self._ask(binding, least)
        if not binding.is_wanted:
            return  # let go meanwhile: what was made is taken back next
        granted = granted_seconds(answered, binding.contact, binding.wanted_seconds) if answered else None
        if granted is None:
            self._failed(binding, answered)
            return
        now = datetime.now(UTC)
        binding.failures = 0
        wait = max(granted * random.uniform(0.6, 0.8), _LEAST_PAUSE_SECONDS)  # noqa: S311  (jitter)
        binding.next_at = self._clock() + wait
        binding.state = Registration(
            status="registered", checked_at=now, expires_at=now + timedelta(seconds=granted), sip_code=200
        )

    def _failed(self, binding: _Binding, answered: Answer | None) -> None:
        binding.failures += 1
        is_refused = answered is not None and answered.code in _REFUSALS
        first = _REFUSED_PAUSE_SECONDS if is_refused else _FIRST_PAUSE_SECONDS
        wait = min(first * 2 ** min(binding.failures - 1, 10), _LONGEST_PAUSE_SECONDS)
        asked = _number(answered.first("retry-after")) if answered else None
        wait = max(wait * random.uniform(0.5, 1.0), min(asked or 0, _MOST_SECONDS))  # noqa: S311  (jitter)
        binding.next_at = self._clock() + wait
        detail, mend = failure(binding.trunk, answered)
        still = binding.state.expires_at
        is_held = still is not None and still > datetime.now(UTC)
        binding.state = Registration(
            status="failed",
            checked_at=datetime.now(UTC),
            expires_at=still if is_held else None,
            sip_code=answered.code if answered and answered.came else None,
            detail=detail,
            mend=mend,
        )
        _log.warning("not registered", trunk_id=binding.trunk.id, code=binding.state.sip_code)

    async def _unregister(self, binding: _Binding) -> None:
        answered = await self._ask(binding, 0)
        if answered is not None and 200 <= answered.code < 300:
            binding.failures = _UNREGISTER_TRIES
            return
        binding.failures += 1
        binding.next_at = self._clock() + _FIRST_PAUSE_SECONDS * 2**binding.failures

    async def _ask(self, binding: _Binding, seconds: int) -> Answer | None:
        """Send a REGISTER; a TLS server must prove its name before it sees an answer to its challenge."""
        if binding.trunk.transport == "tls" and (trouble := await self._doctor.trouble(binding.trunk)):
            return Answer(code=0, reason=trouble)
        headers = f"Contact: <{binding.contact}>;expires={seconds}\r\nExpires: {seconds}\r\n"
        whom = user_uri(binding.trunk, binding.trunk.username or "")
        return await self._requests.ask(binding.trunk, "REGISTER", whom, headers)


def contact_of(settings: Settings) -> Contact:
    """Return what names this edge to a trunk's server; its user is no phone number, so To says who is dialled."""

    def contact(trunk: Trunk) -> str:
        is_ipv6 = ":" in (trunk.next_hop or trunk.server).rpartition(":")[0]
        address = bracketed((is_ipv6 and settings.sip_address_v6) or settings.sip_address)
        port = settings.sip_tls_port if trunk.transport == "tls" else settings.sip_port
        transport = "" if trunk.transport == "udp" else f";transport={trunk.transport}"
        return f"sip:{trunk.id}@{address}:{port}{transport};voxpria-trunk={trunk.id}"

    return contact


def granted_seconds(answered: Answer, contact: str, wanted_seconds: int) -> int | None:
    """Return for how long the server has bound our Contact; None if it has not."""
    if not 200 <= answered.code < 300:
        return None
    ours = re.compile(rf"<{re.escape(contact)}>([^,]*)", re.I)
    found = next((m for value in answered.headers.get("contact", ()) if (m := ours.search(value))), None)
    if found is None and answered.headers.get("contact"):
        return None
    parameter = re.search(r";\s*expires\s*=\s*\"?([0-9]{1,10})", found[1], re.I) if found else None
    seconds = int(parameter[1]) if parameter else _number(answered.first("expires"))
    seconds = wanted_seconds if seconds is None else seconds
    return min(seconds, _MOST_SECONDS) if seconds > 0 else None


def failure(trunk: Trunk, answered: Answer | None) -> tuple[str, str]:
    """Return why a registration came to nothing, and how to mend it."""
    place = f"{trunk.server}:{trunk.port}/{trunk.transport}"
    if answered is None:
        return "Kamailio did not answer.", "Look at the edge; it registers again by itself."
    said = f"{place} answered {answered.code} {answered.reason}".rstrip()
    if not answered.came:
        return (
            f"{place} gave no answer to REGISTER." if not answered.reason else answered.reason,
            f"Check config.server, port and transport; POST /v1/sip/trunks/{trunk.id}/test looks step by step.",
        )
    if answered.code < 300:
        return f"{said}, but does not list our Contact.", "Ask whoever runs the server why it drops the Contact."
    why, mend = _FAILURES.get(answered.code, ("", "Ask whoever runs the server; it is tried again by itself."))
    return f"{said}{why}.", mend


_CHECK_CREDENTIALS = "Check credentials.username and credentials.password with whoever runs the server."
_NO_REGISTRAR = "Set config.register to false; the server sends its calls by our address then."
_FAILURES = {
    401: (" to these credentials", _CHECK_CREDENTIALS),
    403: (" to these credentials", _CHECK_CREDENTIALS),
    404: (": it does not know the user", _CHECK_CREDENTIALS),
    405: (": it takes no registrations", _NO_REGISTRAR),
    407: (" to these credentials", _CHECK_CREDENTIALS),
    423: (", and wants us to register for longer than we do", "Have the server take two hours or less."),
    501: (": it takes no registrations", _NO_REGISTRAR),
}


def _number(text: str | None) -> int | None:
    """Return the whole number that a header begins with; None if it begins with none."""
    found = re.match(r"[0-9]{1,10}", text or "")
    return int(found[0]) if found else None


def _binding_place(trunk: Trunk) -> tuple[object, ...]:
    return trunk.server, trunk.port, trunk.transport, trunk.next_hop, trunk.username


def _same_server(one: Trunk, other: Trunk) -> bool:
    return (*_binding_place(one), one.password) == (*_binding_place(other), other.password)
