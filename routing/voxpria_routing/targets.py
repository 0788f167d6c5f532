"""Where a call is sent: the trunk that is meant and those that stand in for it, those that are down last. Pure."""

from collections.abc import Collection, Sequence

from voxpria_routing.case import Case, same_owner
from voxpria_routing.decision import Cause, Decision, Dial, Explanation
from voxpria_routing.load import Full, server_key
from voxpria_routing.room import is_full, target_is_full
from voxpria_routing.snapshot import Number, Trunk


def dial(
    case: Case, number: Number, carrier: Trunk, target: Trunk, called: str, held: Collection[str] = ()
) -> Decision:
    """Dial those that are up, and behind them, as a last resort, those that were found to be down.

    `held` are ids of trunks, beside the carrier, on which the call has its place already.
    """
    ready: list[Trunk] = []
    down: list[Trunk] = []
    crowd: Full | None = None
    for trunk in _alternatives(case, target):
        reached = None if trunk.id in (carrier.id, *held) else is_full(case, trunk)
        crowd = crowd or reached
        barred = reached.sentence if reached else trunk.barred_reason
        why = barred or case.load.down.get(server_key(trunk))
        _note_way(case, "passed over" if why else "then to" if ready else "sent to", trunk, f": {why}" if why else "")
        if not why:
            ready.append(trunk)
        elif not barred and server_key(trunk) not in case.load.tried_enough:
            down.append(trunk)
    for place, trunk in enumerate(down):
        _note_way(case, "then to" if ready or place else "sent to", trunk, ", as a last resort")
    if ready or down:
        return Dial(
            number=number,
            carrier=carrier,
            targets=(*ready, *down),
            caller=number.e164 if case.is_outbound else case.caller,
            called=called,
            is_outbound=case.is_outbound,
            offered=case.invite.offered,
            is_caller_ipv6=case.source.version == 6,
            explanation=_way(case, called, carrier, ready, down),
            proven_by=case.proven_by,
        )
    if crowd is not None:
        return target_is_full(case, crowd, target, number, carrier)
    why = case.load.down.get(server_key(target), "all are down")
    return case.reject(
        Cause.TARGETS_DOWN,
        f"No server takes the calls of {number.e164} now: {why}; as many calls as may are trying it.",
        mend=f"Look at the health of trunk {target.id}; config.failover_trunk_ids names trunks that stand in.",
        number=number,
        carrier=carrier,
    )


def _alternatives(case: Case, target: Trunk) -> list[Trunk]:
    """Return the trunk and those that stand in for it; of its own account only."""
    stand_ins = [case.table.trunks.get(id_) for id_ in target.failover_trunk_ids]
    return [target, *(t for t in stand_ins if t is not None and t.id != target.id and same_owner(t, target))]


def _note_way(case: Case, verb: str, trunk: Trunk, remark: str) -> None:
    case.tried.append(f"{verb} trunk {trunk.name} ({trunk.server}:{trunk.port}/{trunk.transport}){remark}")


def _way(case: Case, called: str, carrier: Trunk, ready: Sequence[Trunk], down: Sequence[Trunk]) -> Explanation:
    if ready:
        summary = f"{called} goes from trunk {carrier.name} to {ready[0].server}."
        return Explanation(summary=summary, tried=tuple(case.tried))
    why = case.load.down[server_key(down[0])]
    return Explanation(
        summary=f"{called} goes from trunk {carrier.name} to {down[0].server} as a last resort: {why}.",
        tried=tuple(case.tried),
        mend=f"Look at the health of trunk {down[0].id}; config.failover_trunk_ids names trunks that stand in.",
    )
