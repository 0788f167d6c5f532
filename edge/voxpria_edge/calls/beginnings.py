"""How calls begin: what is asked about an INVITE, and the record that opens with the decision. Pure."""

from datetime import datetime

import msgspec
from voxpria_routing import events
from voxpria_routing.decision import Decision, Dial, Invite
from voxpria_routing.digest import Digest
from voxpria_routing.edge_api import Place
from voxpria_routing.load import account_key
from voxpria_routing.media import Offered
from voxpria_routing.snapshot import Mode
from voxpria_sip.dialog import Dialog

from voxpria_edge.calls import endings, legs
from voxpria_edge.calls.call import AGENT_TAG, CARRIER_TAG, Bridge, Call, marks_of
from voxpria_edge.kit.ids import event_id, record_id
from voxpria_edge.media import negotiation, sdp
from voxpria_edge.proxy import messages


def question(invite: messages.Invite, digest: Digest | None = None) -> Invite:
    """Return the facts of the INVITE that the decision is about."""
    user, parameters = _user_and_parameters(messages.text(invite.request_uri))
    return Invite(
        request_user=user,
        from_user=_user_and_parameters(messages.text(invite.from_uri))[0],
        to_user=_user_and_parameters(messages.text(invite.to_uri))[0],
        source_address=invite.source.strip("[]"),
        trunk_hint=parameters.get("voxpria-trunk"),
        digest=digest,
        offered=_offered(invite),
    )


def _offered(invite: messages.Invite) -> Offered | None:
    return sdp.offered(messages.text(invite.sdp), is_readable=invite.session >= 0) if invite.sdp else None


def _user_and_parameters(uri: str) -> tuple[str, dict[str, str]]:
    """Take a SIP URI (RFC 3261 section 19.1.1) apart as far as we need it: user, and URI parameters.

    A tel URI (RFC 3966) is a user without a host: its parameters are the number's, as in a SIP URI's user part.
    """
    scheme, _, rest = uri.partition(":")
    if scheme.lower() == "tel":
        return rest.partition("?")[0], {}
    user, at, host = rest.rpartition("@")
    words = (host if at else rest).partition("?")[0].split(";")[1:]
    parameters = dict(word.partition("=")[::2] for word in words)
    return user.split(":", 1)[0], parameters


class _Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a call comes from, whoever asked for it: all of it that does not follow from the decision."""

    id: str
    at: datetime
    account_id: str
    mode: Mode
    from_: str
    to: str
    number_id: str | None
    agent_id: str | None
    is_outbound: bool
    sip_call_id: str
    from_tag: str
    asked: str = ""
    cseq: int = 0
    marks: str = ""
    bridge: Bridge | None = None
    to_caller: Dialog | None = None
    source: str
    transport: str = ""


def opened(
    invite: messages.Invite, decision: Decision, edge_id: str, before: Call | None = None
) -> tuple[Call, list[events.CallEvent]] | None:
    """Return the call and its first events; None for a refused call that is nobody's.

    `before` is the same call as it was when its caller was asked for another INVITE, or had no answer to this one when
    Kamailio died: its record goes on.
    """
    account, number = decision.carrier, decision.number
    if account is None:
        return None
    at = messages.time(invite.at)
    origin = _Origin(
        id=before.id if before else record_id(invite.id, at),
        at=before.opened_at if before else at,
        account_id=account.account_id,
        mode=account.mode,
        from_=decision.caller,
        to=decision.called,
        number_id=number.id if number else None,
        agent_id=number.agent_id if number else None,
        is_outbound=decision.is_outbound,
        sip_call_id=messages.text(invite.call_id),
        from_tag=messages.text(invite.from_tag),
        asked=invite.asked,
        cseq=invite.cseq,
        marks=marks_of(invite),
        to_caller=legs.to_caller(invite),
        source=f"{invite.source}:{invite.port}",
        transport=invite.transport,
    )
    return _begun(origin, decision, edge_id)


def placed(order: Place, decision: Decision, edge_id: str, at: datetime) -> tuple[Call, list[events.CallEvent]]:
    """Return the call that the API asked for, as it is before it is dialled, and its first events."""
    origin = _Origin(
        id=order.call_id,
        at=at,
        account_id=order.account_id,
        mode=order.mode,
        from_=order.from_,
        to=order.to,
        number_id=order.number_id,
        agent_id=order.agent_id,
        is_outbound=True,
        sip_call_id=f"{order.call_id}@voxpria",
        from_tag=f"{CARRIER_TAG}{order.call_id.removeprefix('call_')}",
        bridge=Bridge(),
        source="api",
    )
    return _begun(origin, decision, edge_id)


def _begun(origin: _Origin, decision: Decision, edge_id: str) -> tuple[Call, list[events.CallEvent]]:
    """Return a call as it begins, by what was decided on it, and its first events."""
    is_dialled = isinstance(decision, Dial)
    max_duration_seconds = decision.number.max_duration_seconds if decision.number else None
    call = Call(
        id=origin.id,
        sip_call_id=origin.sip_call_id,
        from_tag=origin.from_tag,
        asked=origin.asked,
        cseq=origin.cseq,
        marks=origin.marks,
        opened_at=origin.at,
        max_duration_seconds=max_duration_seconds or 0,
        is_captured=isinstance(decision, Dial) and negotiation.is_captured(decision),
        is_dialled=is_dialled,
        is_outbound=origin.is_outbound,
        bridge=origin.bridge,
        to_caller=origin.to_caller if is_dialled else None,
        trunk_ids=tuple(target.id for target in decision.targets) if isinstance(decision, Dial) else (),
        holds=(account_key(origin.account_id, origin.mode), decision.carrier.id) if isinstance(decision, Dial) else (),
    )
    invited = events.Invited(
        id=event_id(call.id, "invited"),
        call_id=call.id,
        at=origin.at,
        account_id=origin.account_id,
        mode=origin.mode,
        direction="outbound" if origin.is_outbound else "inbound",
        from_=origin.from_,
        to=origin.to,
        number_id=origin.number_id,
        trunk_id=decision.carrier.id if decision.carrier else None,
        agent_id=origin.agent_id,
        edge_id=edge_id,
        sip_call_id=call.sip_call_id,
        source=origin.source,
        transport=origin.transport,
        max_duration_seconds=max_duration_seconds,
        refusal=None if isinstance(decision, Dial) else decision.cause,
        explanation=decision.explanation,
    )
    if isinstance(decision, Dial):
        return call, [invited]
    ended, told = endings.end(call, origin.at, "refused", "edge", decision.sip_answer, decision.explanation.summary)
    return ended, [invited, *told]


def in_the_middle(call: Call) -> Call:
    """Return a call that came in as one in whose middle we are; if it goes out, its agent has our place already."""
    tag = "" if call.is_outbound else f"{AGENT_TAG}{call.id.removeprefix('call_')}"
    return msgspec.structs.replace(call, bridge=Bridge(tag=tag), to_caller=None)
