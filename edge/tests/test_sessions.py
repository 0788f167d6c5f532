"""Sessions that are kept alive by either side (RFC 4028), by INVITE and by UPDATE: the edge lets the two settle it."""

from pathlib import Path

import pytest
from running_edge import RunningEdge
from sipp_tool import Sipp, header
from test_in_dialog import called, is_relayed, with_media

BY_CARRIER = "carrier_refreshes_by_invite", "agent_is_refreshed_by_invite"
BY_AGENT = "carrier_is_refreshed_by_invite", "agent_refreshes_by_invite"


def said(side: Sipp, start: str, method: str) -> list[str]:
    """Return what a side was told of the session's length, in each such message of a method, repeats left out."""
    found = [m for m in side.received if m.startswith(start) and header(m, "CSeq").endswith(f" {method}")]
    return [header(m, "Session-Expires") for m in {(header(m, "CSeq"), header(m, "To")): m for m in found}.values()]


@pytest.mark.parametrize("scenarios", [BY_CARRIER, BY_AGENT])
def test_either_side_refreshes_by_invite(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, scenarios: tuple[str, str]
) -> None:
    call, carrier, agent = called(edge, folder, number, agent_port, *scenarios)
    refresher = "uac" if scenarios is BY_CARRIER else "uas"
    other, own = (agent, carrier) if scenarios is BY_CARRIER else (carrier, agent)
    first = [f"90;refresher={refresher}"]
    assert said(agent, "INVITE", "INVITE")[:1] == said(carrier, "SIP/2.0 200", "INVITE")[:1] == first
    assert said(other, "INVITE", "INVITE")[-2:] == ["90;refresher=uac"] * 2
    assert said(own, "SIP/2.0 200", "INVITE")[-2:] == ["90;refresher=uac"] * 2
    for side in (carrier, agent):
        assert len(with_media(side)) >= 3
        assert all(is_relayed(message, edge.media_address) for message in with_media(side))
    assert [call.kinds.count(kind) for kind in ("invited", "answered", "ended")] == [1, 1, 1]
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by) == ("hangup", "caller")


def test_a_refresh_that_is_too_short_is_told_the_shortest_and_the_call_goes_on(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    scenarios = "carrier_refreshes_too_shortly", "agent_refuses_a_short_refresh"
    call, carrier, agent = called(edge, folder, number, agent_port, *scenarios)
    refusal = next(message for message in carrier.received if message.startswith("SIP/2.0 422"))
    assert header(refusal, "Min-SE") == "90"
    asked = [header(m, "Session-Expires") for m in agent.received if m.startswith("UPDATE")]
    assert list(dict.fromkeys(asked)) == ["30;refresher=uac", "90;refresher=uac"]
    assert call.ended is not None
    assert (call.ended.cause, call.ended.sip_code) == ("hangup", 200)


def test_a_refresh_without_an_offer_is_answered_by_one(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    """RFC 3261 section 14.2: the offer is in the 200, its answer in the ACK; both are relayed."""
    call, carrier, agent = called(
        edge, folder, number, agent_port, "carrier_offers_again", "agent_refreshes_without_an_offer"
    )
    for side in (carrier, agent):
        assert len(with_media(side)) >= 2
        assert all(is_relayed(message, edge.media_address) for message in with_media(side))
    assert call.ended is not None
    assert call.ended.cause == "hangup"
