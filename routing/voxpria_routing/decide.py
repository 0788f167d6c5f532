"""One INVITE against one table of routes: dial, or reject and say why. Pure; the whole admission policy.

The order of the questions is the order in which a person would ask them: who calls (`callers`), which number is meant
and do we have it (`numbers`), may this source call it, is it in service, is there room for it (`room`), is there
somewhere to send it (`targets`). What is found goes from one to the next in a `case`.
"""

from collections.abc import Mapping

from voxpria_routing import callers, media, numbers, room, targets
from voxpria_routing.case import Case, same_owner
from voxpria_routing.decision import Cause, Decision, Fault, Invite, Reject
from voxpria_routing.load import IDLE, Load
from voxpria_routing.snapshot import Number, Trunk
from voxpria_routing.table import Table

_NOBODY = "0.0.0.0"  # noqa: S104  (no socket)
"""The source of a call that no INVITE asked for."""


def decide(table: Table, invite: Invite, load: Load = IDLE) -> Decision:
    """Judge one INVITE.

    Where several accounts hold the dialled number, the source decides; where that leaves several, `trunk_hint` does;
    where that leaves several, the number that was imported first.
    """
    case = Case(table, invite, load)
    if table.version == 0:
        return case.reject(
            Cause.NO_SNAPSHOT,
            "This edge has not yet received its routes from the control plane.",
            mend="Check that the API runs and that the edge reaches it; the routes then arrive by themselves.",
            retry_after_seconds=5,
        )
    known = callers.known(case)
    if isinstance(known, Reject):
        return known
    held = numbers.dialled(case, list(known.values()))
    inbound = [number for number in held if number.carrier_trunk_id in known]
    if inbound:
        number = numbers.preferred(case, inbound)
        callers.note_admitted(case, known[number.carrier_trunk_id])
        return _to_agent(case, number, known[number.carrier_trunk_id])
    if outbound := _outbound(case, known):
        return outbound
    if not known:
        return callers.stranger(case, held)
    return _not_callable(case, list(known.values()), held)


def place(table: Table, number_id: str, caller: str, called: str, load: Load = IDLE) -> Decision:
    """Judge a call that is to be placed from one of our numbers; the decision's carrier is the agent's trunk."""
    case = Case(table, Invite(request_user=called, from_user=caller, source_address=_NOBODY), load)
    case.is_outbound = True
    case.called = called
    if table.version == 0:
        return case.reject(Cause.NO_SNAPSHOT, "This edge has no routes yet.", mend="Wait, and place the call again.")
    number = next((n for n in table.numbers.get(case.caller, ()) if n.id == number_id), None)
    agent = table.trunks.get(number.agent_trunk_id or "") if number else None
    if number is None or agent is None:
        return case.reject(
            Cause.NO_ROUTE,
            f"{case.caller} has no trunk whose agent could be connected.",
            mend="Create a trunk for the number's engine, or name one in the number's config.engine_trunk_id.",
            number=number,
        )
    return _out(case, number, agent)


def connect(table: Table, number: Number, caller: str, load: Load = IDLE) -> Decision:
    """Judge the other half of a call that was placed: from who answered to the number's agent.

    It has had its place on the agent's trunk since it was placed; what stands in for that is looked at now.
    """
    case = Case(table, Invite(request_user=number.e164, from_user=caller, source_address=_NOBODY), load)
    carrier, agent = (table.trunks.get(id_ or "") for id_ in (number.carrier_trunk_id, number.agent_trunk_id))
    if carrier is None or agent is None:
        return case.reject(Cause.NO_ROUTE, "The agent's trunk is gone.", mend="Place the call again.", number=number)
    return targets.dial(case, number, carrier, agent, number.e164, held=(agent.id,))


def refuse(table: Table, invite: Invite, fault: Fault) -> Reject:
    """Refuse an INVITE for what is wrong with the message itself.

    Only an address that a trunk allows makes it somebody's, and one that several accounts' trunks allow only together
    with a number of theirs: a password is not looked at.
    """
    case = Case(table, invite, IDLE)
    known = {trunk.id: trunk for trunk in table.trunks_of_source(case.source)}
    number, carrier = _refused_of(case, known)
    if carrier is None:
        case.note(
            f"source {case.source}: {'no trunk allows it' if not known else 'trunks of several accounts allow it'}"
        )
    else:
        callers.note_admitted(case, carrier)
    for line in fault.tried:
        case.note(line)
    return case.reject(
        fault.cause, fault.summary, mend=fault.mend, number=number, carrier=carrier, is_stranger=carrier is None
    )


def _refused_of(case: Case, known: Mapping[str, Trunk]) -> tuple[Number | None, Trunk | None]:
    """Return the number that was meant, and the trunk that the call came in through, as far as there is one."""
    held = numbers.dialled(case, list(known.values()))
    inbound = [number for number in held if number.carrier_trunk_id in known]
    if inbound:
        number = numbers.preferred(case, inbound)
        return number, known[number.carrier_trunk_id]
    ours = [n for n in case.table.numbers.get(case.caller, ()) if n.agent_trunk_id in known]
    if ours:
        case.is_outbound = True
        number = min(ours, key=lambda n: n.id)
        return number, known[number.agent_trunk_id or ""]
    return None, callers.whose(case, list(known.values()))


def _to_agent(case: Case, number: Number, carrier: Trunk) -> Decision:
    if number.disabled_reason is not None:
        return numbers.inactive(case, number, carrier, number.disabled_reason)
    target = case.table.trunks.get(number.agent_trunk_id or "")
    if target is None:
        return case.reject(
            Cause.NO_ROUTE,
            f"{number.e164} has no trunk to send its calls to.",
            mend="Create a trunk for the number's engine, or name one in the number's config.engine_trunk_id.",
            number=number,
            carrier=carrier,
        )
    if target.barred_reason is not None:
        return numbers.inactive(case, number, carrier, target.barred_reason)
    return _on(case, number, carrier, target, number.e164)


def _outbound(case: Case, known: Mapping[str, Trunk]) -> Decision | None:
    """Judge a call that an agent's trunk places from one of our numbers; None if it is no such call."""
    ours = [n for n in case.table.numbers.get(case.caller, ()) if n.agent_trunk_id in known]
    if not ours:
        return None
    number = min(ours, key=lambda n: n.id)
    agent = known[number.agent_trunk_id or ""]
    if agent.provider == "generic":
        return None
    callers.note_admitted(case, agent)
    case.is_outbound = True
    if not numbers.dialled_out(case, [agent, *filter(None, [case.table.trunks.get(number.carrier_trunk_id)])]):
        return numbers.not_held(case, agent)
    return _out(case, number, agent)


def _out(case: Case, number: Number, agent: Trunk) -> Decision:
    """Judge a call from one of our numbers to the world, through the number's carrier."""
    case.is_outbound = True
    case.tried.append(f"caller {number.e164}: a number of trunk {agent.name}")
    carrier = case.table.trunks.get(number.carrier_trunk_id)
    if carrier is None or carrier.id == agent.id:
        return case.reject(
            Cause.CALLER_NOT_ALLOWED,
            f"{number.e164} can't place calls: it has no carrier's trunk, only that of its agent.",
            mend="Import the number on a generic trunk of your carrier, with its engine named.",
            number=number,
            carrier=agent,
        )
    if number.disabled_reason is not None:
        return numbers.inactive(case, number, agent, number.disabled_reason)
    if carrier.barred_reason is not None:
        return numbers.inactive(case, number, agent, carrier.barred_reason)
    return _on(case, number, agent, carrier, case.called)


def _on(case: Case, number: Number, carrier: Trunk, target: Trunk, called: str) -> Decision:
    """Dial `target` and what stands in for it, if the call's media can be taken and there is room."""
    unacceptable = media.problem(carrier, case.invite.offered, is_outbound=case.is_outbound)
    if unacceptable is not None:
        return case.reject(
            Cause.MEDIA_NOT_ACCEPTABLE,
            unacceptable.summary,
            mend=unacceptable.mend,
            number=number,
            carrier=carrier,
        )
    return room.no_room(case, number, carrier) or targets.dial(case, number, carrier, target, called)


def _not_callable(case: Case, known: list[Trunk], held: tuple[Number, ...]) -> Reject:
    """Refuse a known source a number that none of its trunks carries; of other accounts' numbers it is told nothing."""
    trunks = case.table.trunks
    theirs = [
        number
        for number in held
        if (carrier := trunks.get(number.carrier_trunk_id)) and any(same_owner(trunk, carrier) for trunk in known)
    ]
    if theirs:
        number = numbers.preferred(case, theirs)
        return callers.not_allowed(case, Cause.SOURCE_NOT_ALLOWED, number, trunks[number.carrier_trunk_id])
    carrier = callers.whose(case, known)
    if carrier is None:
        case.note(f"source {case.source}: trunks of several accounts allow it")
    else:
        callers.note_admitted(case, carrier)
        if carrier.provider != "generic":
            return callers.no_number_of(case, carrier)
    return numbers.not_held(case, carrier)
