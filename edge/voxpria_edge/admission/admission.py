"""Decides with what this edge knows besides the routes: nonces, open calls, servers that are down."""

from collections.abc import Callable, Sequence

import msgspec
from voxpria_routing.decide import decide, refuse
from voxpria_routing.decision import Cause, Decision, Dial, Fault, Reject
from voxpria_routing.load import Load, full, server_key, starts_looked_at
from voxpria_routing.snapshot import Trunk
from voxpria_routing.table import Table

from voxpria_edge.admission.gatekeeper import Gatekeeper
from voxpria_edge.admission.traffic import Traffic
from voxpria_edge.calls import beginnings, endings, verdicts
from voxpria_edge.calls.call import Call
from voxpria_edge.calls.half import Half
from voxpria_edge.proxy import messages
from voxpria_edge.trunks.breaker import Breakers


class Admission:
    """The one place where calls are let in, and where the room that they take is counted."""

    def __init__(self, table: Callable[[], Table]) -> None:
        """`table` gives the routes in force."""
        self._table = table
        self.gatekeeper, self.traffic, self.breakers = Gatekeeper(), Traffic(), Breakers()
        self._began_at: dict[str, float] = {}
        """When each call that is being set up was counted, by its id."""

    def load(self) -> Load:
        """Return what is going on, as decisions depend on it."""
        return self.traffic.load(self.breakers.down(), self.breakers.tried_enough())

    def trunk(self, trunk_id: str) -> Trunk | None:
        """Return a trunk as it is now, if it is still there."""
        return self._table().trunks.get(trunk_id)

    def judge(self, invite: messages.Invite) -> Decision:
        """Judge an INVITE, and remember what it used up."""
        digest = self.gatekeeper.read(messages.text(invite.authorization)) if invite.authorization else None
        decision = decide(self._table(), beginnings.question(invite, digest), self.load())
        if decision.proven_by is not None:
            self.gatekeeper.take(decision.proven_by)
        return decision

    def refuse(self, invite: messages.Invite, fault: Fault) -> Reject:
        """Return whose refusal it is that an INVITE got for what is wrong with itself."""
        return refuse(self._table(), beginnings.question(invite), fault)

    def challenges(self, invite: messages.Invite, decision: Decision) -> list[str]:
        """Return the headers that ask for credentials, if the decision is to ask."""
        if not isinstance(decision, Reject) or decision.cause is not Cause.CREDENTIALS_NEEDED:
            return []
        room_bytes = invite.spare_bytes - verdicts.OWN_BYTES if invite.transport == "udp" else 1 << 16
        return self.gatekeeper.challenges(is_stale=decision.is_stale, room_bytes=room_bytes)

    def begin(self, call: Call, decision: Dial) -> None:
        """Count a call that is let in: also at the trunks that stand by, as it may begin there at any moment."""
        self.traffic.hold(call.id, call.keys)
        self._began_at[call.id] = self.traffic.start(call.keys)
        self.breakers.dialled(server_key(decision.target), call.id)

    def let_in(self, call: Call) -> None:
        """Count a call that we answer ourselves before it goes anywhere."""
        self.traffic.hold(call.id, call.keys)
        self.traffic.start(call.keys)

    def next_decision(self, record: str, decision: Dial, at_trunk: int) -> Dial | None:
        """Return the decision with the trunk to try next right behind the one that a call, or a half, is at; or None.

        Servers that are down come last, also those that have gone down since the decision.
        """
        load = self.load()
        tried, left = decision.targets[: at_trunk + 1], decision.targets[at_trunk + 1 :]
        ready = [target for target in left if self._has_room(record, target, load)]
        for chosen in sorted(ready, key=lambda target: server_key(target) in load.down)[:1]:
            others = [target for target in left if target is not chosen]
            return msgspec.structs.replace(decision, targets=(*tried, chosen, *others))
        return None

    def _has_room(self, record: str, target: Trunk, load: Load) -> bool:
        if server_key(target) in load.tried_enough:
            return False
        return self._is_counted(record, target) or full(load, target.id, None, target.max_calls_per_second) is None

    def _is_counted(self, record: str, target: Trunk) -> bool:
        """Tell whether the call still takes its place in the rate of a trunk that stood by for it.

        Within one window of the rate it may begin there a little later than it was counted, and no window overflows.
        """
        rate, began_at = target.max_calls_per_second, self._began_at.get(record)
        if rate is None or began_at is None:
            return False
        return self.traffic.load({}).now_seconds - began_at < starts_looked_at(rate) / rate

    def with_agent_on(self, call: Call, stand_in: Trunk | None) -> None:
        """Count a call that the API places where its agent is called; at a trunk that stands in, it begins now."""
        self.traffic.hold(call.id, call.keys)
        if stand_in is not None:
            self.traffic.start([stand_in.id])

    def moved_on(self, call: Call, target: Trunk) -> None:
        """Count a call at its next trunk."""
        self.traffic.hold(call.id, call.keys)
        self._take_back(call.id, [target.id])
        self.traffic.start([target.id])

    def rang(self, record: str, target: Trunk) -> None:
        """Note that a call, or the agent's half of one, rings."""
        self.breakers.rang(server_key(target), record)

    def dialled(self, record: str, target: Trunk) -> None:
        """Note that a call, or a half of one, goes to a server."""
        self.breakers.dialled(server_key(target), record)

    def half_is_answered(self, half: Half) -> None:
        """Note that the server took it."""
        self.breakers.worked(server_key(half.target))

    def half_is_over(self, half: Half) -> None:
        """Note that it is no longer being dialled; what became of it was noted before, if anything did."""
        self.breakers.given_up(server_key(half.target), half.record)

    def settled(self, call: Call, target: Trunk) -> None:
        """Note what a call that is no longer being set up says of the server that it was at."""
        self._take_back(call.id, call.trunk_ids[call.at_trunk + 1 :])
        self._began_at.pop(call.id, None)
        if call.answered_at is not None:
            self.breakers.worked(server_key(target))
        else:
            self.breakers.given_up(server_key(target), call.id)

    def _take_back(self, call_id: str, trunk_ids: Sequence[str]) -> None:
        began_at = self._began_at.get(call_id)
        if began_at is not None:
            self.traffic.take_back(trunk_ids, began_at)

    def failed(self, record: str, trunk: Trunk, message: messages.Tried) -> None:
        """Note what a trunk's server made of a call, or of the agent's half of one, that it did not take."""
        if endings.is_failure_of_server(message):
            why = "no answer" if message.cause == "unreachable" else f"{message.code} {messages.text(message.reason)}"
            self.breakers.failed(server_key(trunk), record, why)
        elif message.cause == "no_media":
            self.breakers.given_up(server_key(trunk), record)
        else:
            self.breakers.worked(server_key(trunk))
