"""What happens within a call, and before its answer: each behaviour between a carrier and a trunk's server."""

import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import Call, RunningEdge
from sipp_tool import Sipp, body, header, sipp


def called(
    edge: RunningEdge,
    folder: Path,
    number: str,
    port: int,
    carriers: str,
    agents: str,
    *,
    extra: Sequence[str] = (),
    addresses: tuple[str, str] = (CARRIER, AGENT),
    refer_to: str = "<sip:+15555550199@example.com>",
) -> tuple[Call, Sipp, Sipp]:
    """Run one scenario of a carrier against one of a trunk's server; both must be followed to their ends.

    `addresses` are theirs, and `refer_to` is where an agent transfers its call to.
    """
    trunk = trunk_to(port, server=addresses[1], allowed_addresses=addresses[:1])
    edge.route([trunk], [number_on(trunk, number)])
    to = ("::1" if ":" in addresses[0] else edge.address, edge.sip_port)
    keys = [("refer_to", refer_to)]
    with (
        sipp(agents, folder, address=addresses[1], port=port, keys=keys) as agent,
        sipp(carriers, folder, address=addresses[0], to=to, number=number, extra=extra) as carrier,
    ):
        carrier.wait()
        agent.wait()
    return edge.ended_call(carrier.sip_call_id), carrier, agent


def is_relayed(message: str, address: str) -> bool:
    """Whether the session description in a message names the edge's relay, and not the other side."""
    return f"c=IN IP4 {address}\n" in f"{body(message)}\n"


def with_media(side: Sipp) -> list[str]:
    return [message for message in side.received if "m=audio" in body(message)]


@pytest.mark.parametrize(
    ("carriers", "agents", "descriptions"),
    [
        ("carrier_holds_and_resumes", "agent_is_held_and_resumed", 3),
        ("carrier_is_held_and_resumed", "agent_holds_and_resumes", 3),
        ("carrier_gets_early_media", "agent_sends_early_media", 1),
        ("carrier_sends_prack", "agent_wants_prack", 1),
        ("carrier_offers_late", "agent_offers", 1),
        ("carrier_answers_in_its_prack", "agent_wants_prack", 1),
        ("carrier_refreshes_and_informs", "agent_takes_requests_within_the_call", 2),
        ("carrier_is_transferred", "agent_transfers", 1),
        ("carrier_refuses_a_transfer", "agent_is_refused_a_transfer", 1),
        ("carrier_fails_to_transfer", "agent_transfers", 1),
        ("carrier_gets_early_media", "agent_forks", 1),
        ("carrier_sends_two_parts", "agent_answers", 1),
    ],
)
def test_both_sides_come_to_the_end_and_all_media_is_relayed(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, carriers: str, agents: str, descriptions: int
) -> None:
    call, carrier, agent = called(edge, folder, number, agent_port, carriers, agents)
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by, call.ended.sip_code) == ("hangup", "caller", 200)
    for side in (carrier, agent):
        assert len(with_media(side)) >= descriptions
        assert all(is_relayed(message, edge.media_address) for message in with_media(side)), side.messages


def test_a_session_description_without_content_type_is_taken_for_what_it_is(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    """RFC 3261 section 20.15 demands the header; some servers leave it out, and the caller may need it."""
    _, carrier, _ = called(
        edge, folder, number, agent_port, "carrier_calls_and_hangs_up", "agent_forgets_the_content_type"
    )
    [answer] = {m for m in carrier.received if m.startswith("SIP/2.0 200") and header(m, "CSeq") == "1 INVITE"}
    assert header(answer, "Content-Type") == "application/sdp"
    assert is_relayed(answer, edge.media_address)


def test_a_transfer_that_fails_is_told_to_who_asked_for_it(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    _, _, agent = called(edge, folder, number, agent_port, "carrier_fails_to_transfer", "agent_transfers")
    [notified] = dict.fromkeys(body(m).strip() for m in agent.received if m.startswith("NOTIFY"))
    assert notified == "SIP/2.0 486 Busy Here"


def test_hold_and_resume_keep_their_direction(edge: RunningEdge, number: str, agent_port: int, folder: Path) -> None:
    _, _, agent = called(edge, folder, number, agent_port, "carrier_holds_and_resumes", "agent_is_held_and_resumed")
    offers = [body(message) for message in agent.received if message.startswith("INVITE")]
    assert ["a=sendonly" in offer for offer in offers] == [False, True, False]


@pytest.mark.parametrize("scenario", ["carrier_cancels_while_it_rings"])
def test_a_caller_that_gives_up_is_canceled_everywhere(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, scenario: str
) -> None:
    call, _, _ = called(edge, folder, number, agent_port, scenario, "agent_rings_until_canceled")
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by, call.ended.sip_code) == ("canceled", "caller", 487)


def test_a_cancel_that_crosses_the_answer_ends_by_bye(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    call, _, _ = called(edge, folder, number, agent_port, "carrier_cancels_too_late", "agent_answers_all_the_same")
    assert set(call.kinds[:3]) == {"invited", "ringing", "answered"}
    assert call.ended is not None
    assert call.ended.cause == "hangup"


def test_a_cancel_before_the_decision_ends_the_call(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    """The agent is held back, so that the CANCEL comes while Kamailio waits for its answer."""
    trunk = trunk_to(agent_port)
    edge.route([trunk], [number_on(trunk, number)])
    to = (edge.address, edge.sip_port)
    with (
        edge.paused("agent"),
        sipp("carrier_cancels_at_once", folder, address=CARRIER, to=to, number=number) as carrier,
    ):
        carrier.wait()
    call = edge.ended_call(carrier.sip_call_id)
    assert call.ended is not None
    assert (call.ended.cause, call.ended.sip_code) == ("canceled", 487)


def test_an_invite_that_comes_three_times_is_one_call(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    call, _, agent = called(edge, folder, number, agent_port, "carrier_repeats_itself", "agent_answers")
    assert len([message for message in agent.received if message.startswith("INVITE")]) == 1
    assert call.kinds.count("invited") == 1


def test_a_session_that_is_too_short_is_refused_by_the_trunks_server_itself(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    _, carrier, _ = called(
        edge, folder, number, agent_port, "carrier_asks_too_short_a_session", "agent_wants_a_longer_session"
    )
    refusal = next(message for message in carrier.received if message.startswith("SIP/2.0 422"))
    assert header(refusal, "Min-SE") == "90"


def test_a_session_that_is_asked_for_again_is_the_same_call(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    call, carrier, agent = called(
        edge, folder, number, agent_port, "carrier_asks_again_for_longer", "agent_wants_longer_and_answers"
    )
    assert carrier.final_code("1 INVITE") == 422
    assert len([message for message in agent.received if message.startswith("INVITE")]) == 2
    assert [call.kinds.count(kind) for kind in ("invited", "answered", "ended")] == [1, 1, 1]
    assert call.ended is not None
    assert (call.ended.cause, call.ended.sip_code) == ("hangup", 200)


def test_session_timers_pass(edge: RunningEdge, number: str, agent_port: int, folder: Path) -> None:
    _, carrier, agent = called(
        edge, folder, number, agent_port, "carrier_refreshes_and_informs", "agent_takes_requests_within_the_call"
    )
    assert header(agent.received[0], "Session-Expires") == "1800;refresher=uac"
    answers = [m for m in carrier.received if m.startswith("SIP/2.0 200") and header(m, "CSeq").endswith(" UPDATE")]
    assert header(answers[0], "Session-Expires") == "1800;refresher=uac"


def test_a_second_place_that_answers_is_ended_and_the_call_goes_on(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    """RFC 3261 section 13.2.2.4: the caller gets both answers, and sends ACK and BYE to the one it does not want."""
    call, carrier, agent = called(
        edge, folder, number, agent_port, "carrier_ends_a_second_answer", "agent_answers_twice"
    )
    second = [message for message in carrier.received if "second" in header(message, "To")]
    assert {message.split()[1] for message in second} == {"200"}
    assert not body(second[0]), "the media of the first answer is the call's"
    byes = [message for message in agent.received if message.startswith("BYE")]
    ends = dict.fromkeys(header(message, "To") for message in byes)  # one may come again
    assert ["second" in to for to in ends] == [True, False]
    assert call.kinds.count("answered") == 1
    assert call.ended is not None
    answered = next(event for event in call.events if event.__struct_config__.tag == "answered")
    assert (call.ended.at - answered.at).total_seconds() > 0.9, "the BYE to the second place has not ended it"


def test_the_called_side_keeps_the_session_and_says_why_it_ends(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    """RFC 4028: the called side refreshes; then the caller answers no more, and its BYE tells why."""
    call, carrier, _ = called(
        edge, folder, number, agent_port, "carrier_is_refreshed_and_hung_up", "agent_refreshes_until_it_expires"
    )
    refreshes = [message for message in carrier.received if message.startswith("UPDATE")]
    assert [header(message, "Session-Expires") for message in refreshes] == ["90;refresher=uac"] * 2
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by) == ("hangup", "agent")
    assert call.ended.detail is not None
    assert "Session timer expired" in call.ended.detail


def test_no_request_within_a_call_is_led_elsewhere(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    """Neither its request URI nor a Route of its sender's takes it to who has no part in the call: no open relay."""
    trunk = trunk_to(agent_port)
    edge.route([trunk], [number_on(trunk, number)])
    with socket.socket(type=socket.SOCK_DGRAM) as elsewhere:
        elsewhere.bind(("127.0.0.77", 0))
        elsewhere.setblocking(False)
        place = "{}:{}".format(*elsewhere.getsockname())
        keys = [("elsewhere", place), ("rtp_port", "4000"), ("media", "RTP/AVP 0")]
        to = (edge.address, edge.sip_port)
        with (
            sipp("agent_answers", folder, address=AGENT, port=agent_port) as agent,
            sipp(
                "carrier_leads_requests_elsewhere", folder, address=CARRIER, to=to, number=number, keys=keys
            ) as carrier,
        ):
            carrier.wait()
            agent.wait()
        with pytest.raises(BlockingIOError):
            elsewhere.recv(65535)
