"""Neither side learns of the other's addresses, in any message of any kind of call."""

import re
from pathlib import Path

import pytest
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import RunningEdge, until
from sipp_tool import Sipp, body, header, sipp
from test_in_dialog import called
from voxpria_routing.events import Ended

from tests.ports import free_port


def assert_hidden(carrier: Sipp, agent: Sipp) -> None:
    """Also behind the encodings that an address is written in elsewhere: none of ours is reversible without our key."""
    assert agent.received
    assert carrier.received
    for message in agent.received:
        assert CARRIER not in message, message
    for message in carrier.received:
        assert AGENT not in message, message


@pytest.mark.parametrize(
    ("carriers", "agents"),
    [
        ("carrier_calls_and_hangs_up", "agent_answers"),
        ("carrier_holds_and_resumes", "agent_is_held_and_resumed"),
        ("carrier_is_held_and_resumed", "agent_holds_and_resumes"),
        ("carrier_gets_early_media", "agent_forks"),
        ("carrier_sends_prack", "agent_wants_prack"),
        ("carrier_offers_late", "agent_offers"),
        ("carrier_refreshes_and_informs", "agent_takes_requests_within_the_call"),
        ("carrier_cancels_while_it_rings", "agent_rings_until_canceled"),
        ("carrier_cancels_too_late", "agent_answers_all_the_same"),
        ("carrier_is_transferred", "agent_transfers"),
        ("carrier_refreshes_before_its_ack", "agent_is_refreshed_before_its_ack"),
    ],
)
def test_neither_side_sees_the_others_address(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, carriers: str, agents: str
) -> None:
    call, carrier, agent = called(edge, folder, number, agent_port, carriers, agents)
    assert_hidden(carrier, agent)
    invites = [message for message in agent.received if message.startswith("INVITE")]
    assert header(invites[0], "Call-ID") != carrier.sip_call_id
    assert re.match(r".*<sip:\+13038921234@127\.0\.0\.1>", header(invites[0], "From"))
    for message in carrier.received:
        if not message.startswith("SIP/2.0"):
            continue
        assert header(message, "Call-ID") == carrier.sip_call_id
        assert f"@{CARRIER}" in header(message, "From")
    assert call.ended is not None


def transferred(edge: RunningEdge, folder: Path, number: str, port: int, refer_to: str) -> tuple[Sipp, Sipp, str]:
    """Return both sides of a call that the agent transfers, and the REFER as it reaches the carrier."""
    scenarios = "carrier_is_transferred", "agent_transfers"
    _, carrier, agent = called(edge, folder, number, port, *scenarios, refer_to=refer_to)
    assert_hidden(carrier, agent)
    return carrier, agent, next(message for message in carrier.received if message.startswith("REFER"))


def test_a_side_that_names_itself_in_other_headers_is_named_by_our_address_there(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    carrier, agent, refer = transferred(edge, folder, number, agent_port, f"<sip:desk@{AGENT}:{agent_port}>")
    assert header(refer, "Refer-To") == "<sip:desk@127.0.0.1>"
    assert header(refer, "Referred-By") == '"Agent" <sip:agent@127.0.0.1>'
    assert header(refer, "X-Node") == "sip:127.0.0.1;lr, 127.0.0.1"
    answer = next(message for message in carrier.received if message.startswith("SIP/2.0 200"))
    assert header(answer, "X-Node") == "node at 127.0.0.1, not at 198.51.100.1"
    assert header(answer, "P-Asserted-Identity") == "<sip:127.0.0.1;user=phone>"
    invite = agent.received[0]
    assert header(invite, "X-Node") == "node at 127.0.0.1; not at 198.51.100.1"
    assert header(invite, "P-Charging-Vector") == "icid-value=1;icid-generated-at=127.0.0.1"
    assert header(invite, "Referred-By") == "<sip:127.0.0.1>"
    notify = next(message for message in agent.received if message.startswith("NOTIFY"))
    assert body(notify) == "SIP/2.0 200 OK\nContact: <sip:desk@127.0.0.1>"
    assert int(header(notify, "Content-Length")) == len(body(notify)) + len("\r\r\n")


@pytest.mark.parametrize(
    ("refer_to", "told"),
    [
        ("<sip:+15555550199@127.0.0.1>", f"<sip:+15555550199@{CARRIER}>"),
        ("<sip:+15555550199@198.51.100.7>", "<sip:+15555550199@198.51.100.7>"),
        ("<tel:+15555550199>", "<tel:+15555550199>"),
    ],
)
def test_a_transfer_to_a_number_of_the_other_side_names_that_sides_own_host(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, refer_to: str, told: str
) -> None:
    """We are the other side's host to whoever transfers; any third host stays."""
    _, _, refer = transferred(edge, folder, number, agent_port, refer_to)
    assert header(refer, "Refer-To") == told


def test_a_call_that_is_tried_with_credentials_and_at_another_server_hides_the_same(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    """What is done to an INVITE is done again for each try."""
    second = free_port()
    login = {"username": "user", "password": "pass"}
    (folder / "credentials.csv").write_text("SEQUENTIAL\nuser;pass\n")
    extra = ("-inf", str(folder / "credentials.csv"))
    first = trunk_to(agent_port, failover_trunk_ids=("trunk_b",))
    stand_in = trunk_to(second, id="trunk_b", allowed_addresses=(), **login)
    edge.route([first, stand_in], [number_on(first, number)])
    to = (edge.address, edge.sip_port)
    with (
        sipp("agent_refuses", folder, address=AGENT, port=agent_port) as busy,
        sipp("agent_challenges_and_answers", folder, address=AGENT, port=second, extra=extra) as agent,
        sipp("carrier_calls_and_hangs_up", folder, address=CARRIER, to=to, number=number) as carrier,
    ):
        carrier.wait()
        agent.wait()
    for server in (busy, agent):
        assert_hidden(carrier, server)
    invites = [message for message in agent.received if message.startswith("INVITE")]
    assert len(invites) == 2
    assert {header(invite, "From").partition(";")[0] for invite in invites} == {"<sip:+13038921234@127.0.0.1>"}


def test_a_call_whose_time_is_over_ends_without_a_word_of_the_other_side(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    trunk = trunk_to(agent_port)
    edge.route([trunk], [number_on(trunk, number, max_duration_seconds=1)])
    to = (edge.address, edge.sip_port)
    with (
        sipp("agent_answers", folder, address=AGENT, port=agent_port) as agent,
        sipp("carrier_waits_for_bye", folder, address=CARRIER, to=to, number=number) as carrier,
    ):
        carrier.wait()
        agent.wait()
    assert_hidden(carrier, agent)
    call = edge.ended_call(carrier.sip_call_id)
    assert isinstance(call.ended, Ended)
    assert call.ended.cause == "max_duration"


def test_both_sides_messages_are_in_one_trace(edge: RunningEdge, number: str, agent_port: int, folder: Path) -> None:
    call, carrier, agent = called(edge, folder, number, agent_port, "carrier_calls_and_hangs_up", "agent_answers")
    until("its trace is there", lambda: edge.control_plane.traces.get(call.id))

    def whole() -> bool:
        messages = edge.control_plane.traces[call.id][-1].messages
        return {"carrier", "agent"} <= {m.leg for m in messages if m.text.startswith("BYE ")}

    until("both BYEs are in it", whole)
    last = edge.control_plane.traces[call.id][-1]
    assert len(last.messages) >= len(carrier.received) + len(agent.received)
