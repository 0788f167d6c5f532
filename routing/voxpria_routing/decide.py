"""One INVITE against one table of routes: dial, or reject and say why. Pure; the whole admission policy.

The order of the questions is the order in which a person would ask them: who calls, which number is meant, do we have
it, may this source call it, is it in service, is there somewhere to send it, is there room for it.
"""

import ipaddress
from enum import StrEnum
from urllib.parse import quote

import msgspec

from voxpria_routing import digest as digests
from voxpria_routing import explain, media
from voxpria_routing.dialled import Reading, clean, readings
from voxpria_routing.digest import Digest
from voxpria_routing.hosts import bracketed, has_service
from voxpria_routing.load import IDLE, Full, Load, full, server_key
from voxpria_routing.media import Offered
from voxpria_routing.snapshot import Number, Transport, Trunk
from voxpria_routing.table import IPAddress, Table

METHOD = "INVITE"
_NOBODY = "0.0.0.0"  # noqa: S104  (no socket)
"""The source of a call that no INVITE asked for."""


class Cause(StrEnum):
    """Why the edge refused an INVITE."""

    INVALID_NUMBER = "invalid_number"
    NUMBER_NOT_FOUND = "number_not_found"
    SOURCE_NOT_ALLOWED = "source_not_allowed"
    CREDENTIALS_NEEDED = "credentials_needed"
    CREDENTIALS_REFUSED = "credentials_refused"
    CALLER_NOT_ALLOWED = "caller_not_allowed"
    NUMBER_INACTIVE = "number_inactive"
    NO_ROUTE = "no_route"
    TOO_MANY_CALLS = "too_many_calls"
    CALLS_TOO_FAST = "calls_too_fast"
    TARGETS_DOWN = "targets_down"
    NO_SNAPSHOT = "no_snapshot"
    OUT_OF_SERVICE = "out_of_service"
    MEDIA_NOT_ACCEPTABLE = "media_not_acceptable"


SIP_ANSWER: dict[Cause, tuple[int, str]] = {
    Cause.INVALID_NUMBER: (404, "Not Found"),
    Cause.NUMBER_NOT_FOUND: (404, "Not Found"),
    Cause.SOURCE_NOT_ALLOWED: (403, "Forbidden"),
    Cause.CREDENTIALS_NEEDED: (401, "Unauthorized"),
    Cause.CREDENTIALS_REFUSED: (403, "Forbidden"),
    Cause.CALLER_NOT_ALLOWED: (403, "Forbidden"),
    Cause.NUMBER_INACTIVE: (480, "Temporarily Unavailable"),
    Cause.NO_ROUTE: (480, "Temporarily Unavailable"),
    Cause.TOO_MANY_CALLS: (486, "Busy Here"),
    Cause.CALLS_TOO_FAST: (503, "Service Unavailable"),
    Cause.TARGETS_DOWN: (503, "Service Unavailable"),
    Cause.NO_SNAPSHOT: (503, "Service Unavailable"),
    Cause.OUT_OF_SERVICE: (503, "Service Unavailable"),
    Cause.MEDIA_NOT_ACCEPTABLE: (488, "Not Acceptable Here"),
}
"""The response (RFC 3261 section 21) that tells the carrier of each cause."""


class Invite(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an INVITE before anything is decided. All of it is the sender's word, but the source."""

    request_user: str
    """User part of the request URI, as sent."""
    from_user: str
    source_address: str
    """IP address that the request came from."""
    to_user: str = ""
    """User part of To: the dialled number, where the request URI names our registration."""
    trunk_hint: str | None = None
    """The request URI's `voxpria-trunk` parameter: which trunk is meant, where several fit. Gives no right."""
    digest: Digest | None = None
    """Its answer to a challenge of ours, if it brings one."""
    offered: Offered | None = None
    """The media in its session description; None for an INVITE without one."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A decision, for a person to read."""

    summary: str
    tried: tuple[str, ...] = ()
    """What was looked at, in order."""
    nearest: str | None = None
    """What came closest to fitting."""
    mend: str | None = None
    """What to do about it."""


class Dial(msgspec.Struct, frozen=True, kw_only=True):
    """Send the call to the first of `targets` that takes it."""

    number: Number
    carrier: Trunk
    """The trunk that the call came in through."""
    targets: tuple[Trunk, ...]
    caller: str
    called: str
    """The number that is dialled: `number` itself, unless the call goes out through a carrier."""
    is_outbound: bool = False
    offered: Offered | None = None
    is_caller_ipv6: bool = False
    """Which family a caller is met in that has offered nothing yet."""
    explanation: Explanation
    proven_by: Digest | None = None
    """The digest answer that let the call in, if it was not its address."""

    @property
    def target(self) -> Trunk:
        """The trunk that is tried first."""
        return self.targets[0]


class Reject(msgspec.Struct, frozen=True, kw_only=True):
    """Refuse the call. `number` and `carrier` are set as far as they are known; without a carrier, nobody's."""

    cause: Cause
    explanation: Explanation
    called: str
    caller: str
    number: Number | None = None
    carrier: Trunk | None = None
    is_outbound: bool = False
    is_stranger: bool = False
    """True for a source that no trunk knows: its answer is the same whatever was dialled."""
    is_stale: bool = False
    """True where the right password came with a nonce that is too old, or used (RFC 7616 section 3.3)."""
    retry_after_seconds: int | None = None
    proven_by: Digest | None = None

    @property
    def sip_answer(self) -> tuple[int, str]:
        """SIP code and reason phrase."""
        return SIP_ANSWER[self.cause]


Decision = Dial | Reject


def request_uri(target: Trunk, called: str) -> str:
    """Return the SIP URI to put into the request line (RFC 3261 section 19.1).

    The port that a transport has anyway is left out, so that the server is found by its SRV records where it has some
    (RFC 3263 section 4.2); a port that was chosen stands.
    """
    user = target.request_user or called
    return f"sip:{user}@{server_uri(target).removeprefix('sip:')}"


def server_uri(target: Trunk) -> str:
    """Return the SIP URI of the server itself: for what is no call."""
    return f"sip:{bracketed(target.server)}{_port(target)}{_parameter(target.transport)}"


def user_uri(target: Trunk, user: str) -> str:
    """Return a number or another user of the trunk's server as a SIP URI, for From, To and P-Asserted-Identity."""
    return f"sip:{quote(user, safe=_USER)}@{bracketed(target.server)}"


def next_hop_uri(target: Trunk) -> str | None:
    """Return the SIP URI to send to, where that is not the request URI's own host."""
    return None if target.next_hop is None else f"sip:{target.next_hop}{_parameter(target.transport)}"


def decide(table: Table, invite: Invite, load: Load = IDLE) -> Decision:
    """Judge one INVITE.

    Where several accounts hold the dialled number, the source decides; where that leaves several, `trunk_hint` does;
    where that leaves several, the number that was imported first.
    """
    return _Judge(table, invite, load).decision()


def place(table: Table, number_id: str, caller: str, called: str, load: Load = IDLE) -> Decision:
    """Judge a call that is to be placed from one of our numbers; the decision's carrier is the agent's trunk."""
    invite = Invite(request_user=called, from_user=caller, source_address=_NOBODY)
    return _Judge(table, invite, load).placed(number_id)


def connect(table: Table, number: Number, caller: str, load: Load = IDLE) -> Decision:
    """Judge the other half of a call that was placed: from who answered to the number's agent."""
    invite = Invite(request_user=number.e164, from_user=caller, source_address=_NOBODY)
    return _Judge(table, invite, load).connected(number)


class _Judge:
    """One decision in the making: what is known so far."""

    def __init__(self, table: Table, invite: Invite, load: Load) -> None:
        self.table, self.invite, self.load = table, invite, load
        self.source: IPAddress = ipaddress.ip_address(invite.source_address)
        self.tried: list[str] = []
        self.called = clean(invite.request_user)
        self.caller = self.calling_number()
        self.proven_by: Digest | None = None
        self.is_outbound = False

    def decision(self) -> Decision:
        if self.table.version == 0:
            return self.reject(
                Cause.NO_SNAPSHOT,
                "This edge has not yet received its routes from the control plane.",
                mend="Check that the API runs and that the edge reaches it; the routes then arrive by themselves.",
            )
        known = {trunk.id: trunk for trunk in self.table.trunks_of_source(self.source)}
        proven = self.proven_trunks()
        if isinstance(proven, Reject):
            return proven
        for trunk in proven:
            known.setdefault(trunk.id, trunk)
            self.tried.append(f"digest of {trunk.username}: right for trunk {trunk.name}")
        numbers = self.dialled_numbers(list(known.values()))
        inbound = [number for number in numbers if number.carrier_trunk_id in known]
        if inbound:
            number = self.preferred(inbound)
            self.note_admitted(known[number.carrier_trunk_id])
            return self.to_agent(number, known[number.carrier_trunk_id])
        if outbound := self.outbound(known):
            return outbound
        if not known:
            return self.stranger(numbers)
        return self.not_callable(list(known.values()), numbers)

    # who calls

    def proven_trunks(self) -> list[Trunk] | Reject:
        """Return the trunks whose password the sender knows; a Reject for a wrong or stale answer of a stranger."""
        digest = self.invite.digest
        if digest is None:
            return []
        trunks = self.table.trunks_of_username(digest.username)
        proven = [t for t in trunks if digests.is_proven(digest, METHOD, t.password or "")]
        if not proven:
            return [] if self.table.trunks_of_source(self.source) else self.wrong_credentials(digest, trunks)
        if digest.is_fresh and not digest.is_replayed:
            self.proven_by = digest
            return proven
        self.tried.append("digest answer: right, but to a challenge that is too old or was used before")
        return self.reject(
            Cause.CREDENTIALS_NEEDED,
            f"{self.source} answered a challenge that is too old or was used before; it was challenged anew.",
            mend="Nothing, if the next try came through; else have the carrier raise nc with each use of a nonce.",
            carrier=proven[0],
            is_stranger=True,
            is_stale=True,
        )

    def wrong_credentials(self, digest: Digest, trunks: list[Trunk]) -> Reject:
        numbers = self.dialled_numbers([])
        number = self.preferred(numbers) if numbers else None
        carrier = self.table.trunks.get(number.carrier_trunk_id) if number else None
        is_theirs = carrier is not None and carrier in trunks
        username = digest.username[:64]
        self.tried.append(f"digest of {username!r}: {'wrong password' if is_theirs else 'no such username here'}")
        whose = f"trunk {carrier.name}" if carrier else "any trunk"
        return self.reject(
            Cause.CREDENTIALS_REFUSED,
            f"{self.source} gave credentials that are not those of {whose}.",
            nearest="the username is right, the password is not" if is_theirs else None,
            mend="Give the carrier the username and password that are in the trunk's credentials."
            if carrier is None
            else f"Give the carrier the username and password of trunk {carrier.id}, or set them anew.",
            number=number,
            carrier=carrier,
            is_stranger=True,
        )

    def note_admitted(self, trunk: Trunk) -> None:
        if self.proven_by is None or trunk in self.table.trunks_of_source(self.source):
            self.tried.append(f"source {self.source}: allowed on trunk {trunk.name}")

    # which number is meant

    def calling_number(self) -> str:
        """Return the caller as it is recorded, and note how it was read where that is not as it came."""
        found = readings(self.invite.from_user)
        if not found:
            return clean(self.invite.from_user)
        if found[0].e164 != self.invite.from_user:
            self.tried.append(f"caller {clean(self.invite.from_user)}: {found[0].e164} ({found[0].how})")
        return found[0].e164

    def dialled_numbers(self, known: list[Trunk]) -> tuple[Number, ...]:
        """Return who holds the dialled number, and note how it was read."""
        user = self.invite.request_user
        countries = sorted({trunk.country for trunk in known if trunk.country})
        found = readings(user, countries)
        if not found and self.invite.to_user:
            found = [Reading(r.e164, f"{r.how}, from To") for r in readings(self.invite.to_user, countries)]
        if not found:
            self.note(f"dialled {clean(user) or 'nothing'}: not a phone number")
            return ()
        reading = next((r for r in found if r.e164 in self.table.numbers), found[0])
        self.called = reading.e164
        self.note(f"dialled {clean(user)}: {reading.e164} ({reading.how})")
        numbers = self.table.numbers.get(reading.e164, ())
        if numbers:
            self.note(f"number {reading.e164}: known")
        return numbers

    def note(self, line: str) -> None:
        if line not in self.tried:
            self.tried.append(line)

    def preferred(self, numbers: tuple[Number, ...] | list[Number]) -> Number:
        hinted = [n for n in numbers if n.carrier_trunk_id == self.invite.trunk_hint]
        return min(hinted or numbers, key=lambda n: n.id)

    # refusals of what can't be called

    def stranger(self, numbers: tuple[Number, ...]) -> Reject:
        """Answer a source that no trunk knows: the same whether the number is held or not, so none can be probed for.

        The record, if the number is somebody's, says more.
        """
        cause = Cause.CREDENTIALS_NEEDED if self.table.takes_digests else Cause.SOURCE_NOT_ALLOWED
        unanswered = ", and it answered no digest challenge" if self.table.takes_digests else ""
        number = self.preferred(numbers) if numbers else None
        carrier = self.table.trunks.get(number.carrier_trunk_id) if number else None
        if number is None or carrier is None:
            self.tried.append(f"source {self.source}: no trunk allows it")
            return self.reject(
                cause,
                f"{self.source} is in no trunk's allowed_addresses{unanswered}, "
                f"and {self.called} is not an imported number.",
                mend="If this is your carrier, add its address to the trunk's allowed_addresses and import the number.",
                is_stranger=True,
            )
        return self.source_not_allowed(cause, number, carrier, unanswered)

    def source_not_allowed(self, cause: Cause, number: Number, carrier: Trunk, unanswered: str) -> Reject:
        allowed = ", ".join(carrier.allowed_addresses) or "nobody"
        self.tried.append(f"source {self.source}: trunk {carrier.name} allows {allowed}")
        by_digest = ", or have it use the trunk's username and password" if carrier.username else ""
        return self.reject(
            cause,
            f"{self.source} may not call {number.e164}: "
            f"it is not in the allowed_addresses of trunk {carrier.name}{unanswered}.",
            nearest=explain.nearest_network(carrier.allowed_addresses, self.source),
            mend=f"If this is your carrier, add {self.source} to config.allowed_addresses of trunk {carrier.id}"
            f"{by_digest}.",
            number=number,
            carrier=carrier,
            is_stranger=True,
        )

    def not_callable(self, known: list[Trunk], numbers: tuple[Number, ...]) -> Reject:
        """Refuse a known source a number that none of its trunks carries."""
        if numbers:
            number = self.preferred(numbers)
            carrier = self.table.trunks.get(number.carrier_trunk_id)
            if carrier is not None and any(_same_owner(trunk, carrier) for trunk in known):
                return self.source_not_allowed(Cause.SOURCE_NOT_ALLOWED, number, carrier, "")
        carrier = next((t for t in known if t.id == self.invite.trunk_hint), known[0])
        self.note_admitted(carrier)
        if not readings(self.called):
            return self.reject(
                Cause.INVALID_NUMBER,
                f"{self.called!r} is not a phone number.",
                mend="Have the carrier send the dialled number in E.164 form (+15551234567) as user of the request URI"
                ", or set the trunk's config.country if it sends national numbers.",
                carrier=carrier,
            )
        self.tried.append(f"number {self.called}: not imported")
        return self.reject(
            Cause.NUMBER_NOT_FOUND,
            f"{self.called} is not an imported number.",
            mend=f"Import {self.called} with POST /v1/phone-numbers/import, or have the carrier stop sending it here.",
            nearest=explain.nearest_number(self.table, carrier, self.called),
            carrier=carrier,
        )

    # to an agent, or out through a carrier

    def to_agent(self, number: Number, carrier: Trunk) -> Decision:
        if number.disabled_reason is not None:
            return self.inactive(number, carrier, number.disabled_reason)
        target = self.table.trunks.get(number.agent_trunk_id or "")
        if target is None:
            return self.reject(
                Cause.NO_ROUTE,
                f"{number.e164} has no trunk to send its calls to.",
                mend="Create a trunk for the number's engine, or name one in the number's config.engine_trunk_id.",
                number=number,
                carrier=carrier,
            )
        if target.barred_reason is not None:
            return self.inactive(number, carrier, target.barred_reason)
        return self.on(number, carrier, target, number.e164)

    def inactive(self, number: Number, carrier: Trunk, reason: str) -> Reject:
        return self.reject(
            Cause.NUMBER_INACTIVE,
            f"{number.e164} is not in service: {reason}.",
            mend=f"Mend that, then POST /v1/phone-numbers/{number.id}/provision.",
            number=number,
            carrier=carrier,
        )

    def outbound(self, known: dict[str, Trunk]) -> Decision | None:
        """Judge a call that an agent's trunk places from one of our numbers; None if it is no such call."""
        numbers = [n for n in self.table.numbers.get(self.caller, ()) if n.agent_trunk_id in known]
        if not numbers:
            return None
        number = min(numbers, key=lambda n: n.id)
        agent = known[number.agent_trunk_id or ""]
        if not readings(self.called) or agent.provider == "generic":
            return None
        self.note_admitted(agent)
        return self.out(number, agent)

    def placed(self, number_id: str) -> Decision:
        """Judge a call that the API asks for."""
        self.is_outbound = True
        self.called = self.invite.request_user
        if self.table.version == 0:
            return self.reject(
                Cause.NO_SNAPSHOT, "This edge has no routes yet.", mend="Wait, and place the call again."
            )
        number = next((n for n in self.table.numbers.get(self.caller, ()) if n.id == number_id), None)
        agent = self.table.trunks.get(number.agent_trunk_id or "") if number else None
        if number is None or agent is None:
            return self.reject(
                Cause.NO_ROUTE,
                f"{self.caller} has no trunk whose agent could be connected.",
                mend="Create a trunk for the number's engine, or name one in the number's config.engine_trunk_id.",
                number=number,
            )
        return self.out(number, agent)

    def connected(self, number: Number) -> Decision:
        """Find who takes the agent's half; its limits were looked at when the call was placed."""
        carrier, agent = (self.table.trunks.get(id_ or "") for id_ in (number.carrier_trunk_id, number.agent_trunk_id))
        if carrier is None or agent is None:
            return self.reject(
                Cause.NO_ROUTE, "The agent's trunk is gone.", mend="Place the call again.", number=number
            )
        return self.to_targets(number, carrier, agent, number.e164)

    def out(self, number: Number, agent: Trunk) -> Decision:
        self.is_outbound = True
        self.tried.append(f"caller {number.e164}: a number of trunk {agent.name}")
        carrier = self.table.trunks.get(number.carrier_trunk_id)
        if carrier is None or carrier.id == agent.id:
            return self.reject(
                Cause.CALLER_NOT_ALLOWED,
                f"{number.e164} can't place calls: it has no carrier's trunk, only that of its agent.",
                mend="Import the number on a generic trunk of your carrier, with its engine named.",
                number=number,
                carrier=agent,
            )
        if number.disabled_reason is not None:
            return self.inactive(number, agent, number.disabled_reason)
        if carrier.barred_reason is not None:
            return self.inactive(number, agent, carrier.barred_reason)
        return self.on(number, agent, carrier, self.called)

    # is there room

    def on(self, number: Number, carrier: Trunk, target: Trunk, called: str) -> Decision:
        """Dial `target` and what stands in for it, as far as there is room."""
        unacceptable = media.problem(carrier, self.invite.offered, is_outbound=self.is_outbound)
        if unacceptable is not None:
            return self.reject(
                Cause.MEDIA_NOT_ACCEPTABLE,
                unacceptable.summary,
                mend=unacceptable.mend,
                number=number,
                carrier=carrier,
            )
        key, limits = self.table.limits_of(number.account_id, number.mode)
        reached = full(self.load, key, limits.max_concurrent_calls, limits.max_calls_per_second)
        if reached is not None:
            return self.crowded(reached, "the account", "Ask the operator for a higher limit.", number, carrier)
        reached = self.is_full(carrier)
        if reached is not None:
            mend = f"Raise config.max_{_LIMITS[reached.limit]} of trunk {carrier.id}."
            return self.crowded(reached, f"trunk {carrier.name}", mend, number, carrier)
        return self.to_targets(number, carrier, target, called)

    def to_targets(self, number: Number, carrier: Trunk, target: Trunk, called: str) -> Decision:
        """Dial those that are up, and behind them, as a last resort, those that were found to be down."""
        ready: list[Trunk] = []
        down: list[Trunk] = []
        crowd: Full | None = None
        for trunk in self.alternatives(target):
            reached = None if trunk.id == carrier.id else self.is_full(trunk)
            crowd = crowd or reached
            barred = reached.sentence if reached else trunk.barred_reason
            why = barred or self.load.down.get(server_key(trunk))
            self.note_way("passed over" if why else "then to" if ready else "sent to", trunk, f": {why}" if why else "")
            if not why:
                ready.append(trunk)
            elif not barred and server_key(trunk) not in self.load.tried_enough:
                down.append(trunk)
        for place, trunk in enumerate(down):
            self.note_way("then to" if ready or place else "sent to", trunk, ", as a last resort")
        if ready or down:
            return Dial(
                number=number,
                carrier=carrier,
                targets=(*ready, *down),
                caller=number.e164 if self.is_outbound else self.caller,
                called=called,
                is_outbound=self.is_outbound,
                offered=self.invite.offered,
                is_caller_ipv6=self.source.version == 6,
                explanation=self.way(called, carrier, ready, down),
                proven_by=self.proven_by,
            )
        if crowd is not None:
            mend = f"Raise config.max_{_LIMITS[crowd.limit]} of trunk {target.id}, or add config.failover_trunk_ids."
            return self.crowded(crowd, f"trunk {target.name}", mend, number, carrier)
        why = self.load.down.get(server_key(target), "all are down")
        return self.reject(
            Cause.TARGETS_DOWN,
            f"No server takes the calls of {number.e164} now: {why}; as many calls as may are trying it.",
            mend=f"Look at the health of trunk {target.id}; config.failover_trunk_ids names trunks that stand in.",
            number=number,
            carrier=carrier,
            retry_after_seconds=5,
        )

    def note_way(self, verb: str, trunk: Trunk, remark: str) -> None:
        self.tried.append(f"{verb} trunk {trunk.name} ({trunk.server}:{trunk.port}/{trunk.transport}){remark}")

    def way(self, called: str, carrier: Trunk, ready: list[Trunk], down: list[Trunk]) -> Explanation:
        if ready:
            summary = f"{called} goes from trunk {carrier.name} to {ready[0].server}."
            return Explanation(summary=summary, tried=tuple(self.tried))
        why = self.load.down[server_key(down[0])]
        return Explanation(
            summary=f"{called} goes from trunk {carrier.name} to {down[0].server} as a last resort: {why}.",
            tried=tuple(self.tried),
            mend=f"Look at the health of trunk {down[0].id}; config.failover_trunk_ids names trunks that stand in.",
        )

    def alternatives(self, target: Trunk) -> list[Trunk]:
        """Return the trunk and those that stand in for it; of its own account only."""
        stand_ins = [self.table.trunks.get(id_) for id_ in target.failover_trunk_ids]
        return [target, *(t for t in stand_ins if t is not None and t.id != target.id and _same_owner(t, target))]

    def is_full(self, trunk: Trunk) -> Full | None:
        return full(self.load, trunk.id, trunk.max_concurrent_calls, trunk.max_calls_per_second)

    def crowded(self, reached: Full, what: str, mend: str, number: Number, carrier: Trunk) -> Reject:
        cause = Cause.TOO_MANY_CALLS if reached.limit == "calls" else Cause.CALLS_TOO_FAST
        self.tried.append(f"limits of {what}: {reached.sentence}")
        return self.reject(
            cause,
            f"{what[0].upper()}{what[1:]} has no room for this call: {reached.sentence}.",
            mend=mend,
            number=number,
            carrier=carrier,
            retry_after_seconds=reached.retry_after_seconds,
        )

    def reject(
        self,
        cause: Cause,
        summary: str,
        *,
        mend: str,
        nearest: str | None = None,
        number: Number | None = None,
        carrier: Trunk | None = None,
        is_stranger: bool = False,
        is_stale: bool = False,
        retry_after_seconds: int | None = None,
    ) -> Reject:
        return Reject(
            cause=cause,
            explanation=Explanation(summary=summary, tried=tuple(self.tried), nearest=nearest, mend=mend),
            called=self.called,
            caller=self.caller,
            number=number,
            carrier=carrier,
            is_outbound=self.is_outbound,
            is_stranger=is_stranger,
            is_stale=is_stale,
            retry_after_seconds=retry_after_seconds,
            proven_by=self.proven_by,
        )


_LIMITS = {"calls": "concurrent_calls", "rate": "calls_per_second"}
_USER = "-_.!~*'()&=+$,;?/"
"""What may stand unescaped in the user part of a SIP URI (RFC 3261 section 25.1), besides letters and digits."""


def _same_owner(one: Trunk, other: Trunk) -> bool:
    return (one.account_id, one.mode) == (other.account_id, other.mode)


def _port(target: Trunk) -> str:
    is_sought = target.next_hop is None and has_service(target.server, target.port, target.transport)
    return "" if is_sought else f":{target.port}"


def _parameter(transport: Transport) -> str:
    return "" if transport == "udp" else f";transport={transport}"
