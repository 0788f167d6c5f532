"""Session descriptions that can't be read, or name their media's host, and fax: none passes, or audio is lost."""

from pathlib import Path

import pytest
from routes_of_tests import CARRIER, number_on, trunk_to
from running_edge import RunningEdge
from sipp_tool import header, sipp
from test_required_encryption import PLAIN, called

from tests.ports import free_port

HOST_NAME = f"{PLAIN}\r\nc=IN IP4 media.example.invalid"
BROKEN = f"{PLAIN}\r\nm=application x"


@pytest.mark.parametrize(("offer", "why"), [(HOST_NAME, "a host name"), (BROKEN, "can't be read")])
def test_an_offer_goes_nowhere(edge: RunningEdge, number: str, folder: Path, offer: str, why: str) -> None:
    trunk = trunk_to(free_port())  # nobody is there, and nobody is asked
    edge.route([trunk], [number_on(trunk, number)])
    keys = [("rtp_port", str(free_port())), ("media", offer)]
    to = (edge.address, edge.sip_port)
    with sipp("carrier_offers_in_vain", folder, address=CARRIER, to=to, number=number, keys=keys) as client:
        client.wait()
    call = edge.ended_call(client.sip_call_id)
    assert client.final_code() == 488
    assert call.invited.refusal == "media_not_acceptable"
    assert why in call.invited.explanation.summary


@pytest.mark.parametrize("answer", [HOST_NAME, BROKEN])
def test_a_server_that_answers_so_is_cut_off(edge: RunningEdge, number: str, folder: Path, answer: str) -> None:
    call, client, server = called(
        edge, folder, number, ("carrier_offers_in_vain", PLAIN), ("agent_answers_with", answer), ({}, {})
    )
    assert client.final_code() == 488
    requests = [(m.split()[0], header(m, "CSeq")) for m in server.received if not m.startswith("SIP/2.0")]
    # the CANCEL comes after the answer, and does nothing
    assert [r for r in requests if r[0] != "CANCEL"] == [("INVITE", "1 INVITE"), ("ACK", "1 ACK"), ("BYE", "2 BYE")]
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by, call.ended.sip_code) == ("unreadable_media", "edge", 488)


@pytest.mark.parametrize("offer", ["carrier_moves_its_media_to_a_host_name", "carrier_turns_its_audio_into_fax"])
def test_one_within_a_call_is_refused_and_the_call_goes_on(
    edge: RunningEdge, number: str, folder: Path, offer: str
) -> None:
    scenarios = (offer, PLAIN), ("agent_answers_with", PLAIN)
    call, _, server = called(edge, folder, number, *scenarios, ({}, {}))
    assert len([m for m in server.received if m.startswith("INVITE")]) == 1
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by) == ("hangup", "caller")
