"""Trunks' servers that want credentials for a call, by whichever digest (RFC 8760)."""

from pathlib import Path

import pytest
from challenger import PASSWORD, USER, branch, challenger
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import RunningEdge, until
from sipp_tool import header, sipp
from voxpria_routing.snapshot import Trunk


def cseq(request: str) -> int:
    return int(next(line for line in request.split("\r\n") if line.startswith("CSeq:")).split()[1])


def guarded(port: int, **values: object) -> Trunk:
    return trunk_to(port, **{"username": USER, "password": PASSWORD, **values})


@pytest.mark.parametrize(
    ("algorithms", "chosen"), [(["SHA-256"], "SHA-256"), (["SHA-256", "MD5"], "SHA-256"), (["MD5"], "MD5")]
)
def test_the_best_digest_that_is_asked_for_is_shown(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, algorithms: list[str], chosen: str
) -> None:
    trunk = guarded(agent_port)
    edge.route([trunk], [number_on(trunk, number)])
    to = (edge.address, edge.sip_port)
    with challenger(AGENT, agent_port, algorithms) as server:
        with sipp("carrier_calls_and_hangs_up", folder, address=CARRIER, to=to, number=number) as carrier:
            carrier.wait()
        until("the server has its BYE", lambda: server.of("BYE"))
    first, second = server.of("INVITE")
    assert "Authorization:" not in first
    assert f"algorithm={chosen}" in second
    assert "P-K-" not in second
    assert cseq(second) == cseq(first) + 1
    assert {cseq(ack) for ack in server.of("ACK")} == {cseq(first), cseq(second)}
    assert cseq(server.of("BYE")[0]) > cseq(second)
    assert "401" not in " ".join(carrier.received)
    call = edge.ended_call(carrier.sip_call_id)
    assert call.ended is not None
    assert call.ended.cause == "hangup"


@pytest.mark.parametrize(
    ("answer", "scenario", "method", "cause"),
    [
        ("180 Ringing", "carrier_cancels_while_it_rings", "CANCEL", "canceled"),
        ("486 Busy Here", "carrier_is_refused", "ACK", "rejected"),
    ],
)
def test_what_follows_belongs_to_the_invite_with_credentials(
    edge: RunningEdge,
    number: str,
    agent_port: int,
    folder: Path,
    answer: str,
    scenario: str,
    method: str,
    cause: str,
) -> None:
    """RFC 3261 sections 9.1 and 17.1.1.3: CANCEL, and the ACK of a refusal, have its branch and its CSeq number."""
    trunk = guarded(agent_port)
    edge.route([trunk], [number_on(trunk, number)])
    to = (edge.address, edge.sip_port)
    with (
        challenger(AGENT, agent_port, ["SHA-256"], answer) as server,
        sipp(scenario, folder, address=CARRIER, to=to, number=number) as carrier,
    ):
        carrier.wait()
        until("the last ACK is there", lambda: len(server.of("ACK")) == 2)
    invite, follower = server.of("INVITE")[-1], server.of(method)[-1]
    assert (branch(follower), cseq(follower)) == (branch(invite), cseq(invite))
    assert (branch(server.of("ACK")[-1]), cseq(server.of("ACK")[-1])) == (branch(invite), cseq(invite))
    assert not any("P-K-" in request for request in server.requests)
    call = edge.ended_call(carrier.sip_call_id)
    assert call.ended is not None
    assert call.ended.cause == cause


@pytest.mark.parametrize(
    ("algorithms", "credentials", "why"),
    [
        (["SHA-256"], {"password": "wrong"}, "refused the trunk's username and password"),
        (["SHA-256"], {"username": None, "password": None}, "set its credentials"),
        (["SHA-512"], {}, "neither MD5 nor SHA-256"),
    ],
)
def test_a_server_that_can_not_be_satisfied_is_passed_over(
    edge: RunningEdge,
    number: str,
    agent_port: int,
    folder: Path,
    algorithms: list[str],
    credentials: dict[str, object],
    why: str,
) -> None:
    trunk = guarded(agent_port, **credentials)
    edge.route([trunk], [number_on(trunk, number)])
    to = (edge.address, edge.sip_port)
    with (
        challenger(AGENT, agent_port, algorithms) as server,
        sipp("carrier_is_refused", folder, address=CARRIER, to=to, number=number) as carrier,
    ):
        carrier.wait()
    assert carrier.final_code() == 503
    assert len(server.of("INVITE")) == (2 if credentials.get("password") else 1)
    call = edge.ended_call(carrier.sip_call_id)
    assert call.ended is not None
    assert call.ended.cause == "rejected"
    assert why in str(call.ended.detail)


WITHIN = ("INVITE", "UPDATE", "INFO", "MESSAGE", "OPTIONS", "BYE")


@pytest.mark.parametrize("scenario", ["carrier_refreshes_by_invite", "carrier_refreshes_and_informs"])
def test_a_server_gets_credentials_for_each_request_within_a_call(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, scenario: str
) -> None:
    """Its CSeq runs ahead of the carrier's, which sees neither that nor a challenge."""
    trunk = guarded(agent_port)
    edge.route([trunk], [number_on(trunk, number)])
    to = (edge.address, edge.sip_port)
    with challenger(AGENT, agent_port, ["SHA-256"], methods=WITHIN) as server:
        with sipp(scenario, folder, address=CARRIER, to=to, number=number) as carrier:
            carrier.wait()
        until("the server has its BYE", lambda: len(server.of("BYE")) == 2)
    assert not any(message.startswith(("SIP/2.0 4", "SIP/2.0 5")) for message in carrier.received)
    requests = [request for method in WITHIN for request in server.of(method)]
    for asked, shown in zip(requests[::2], requests[1::2], strict=True):
        assert ("uthorization:" in asked, "uthorization:" in shown) == (False, True)
        assert cseq(shown) > cseq(asked)
    acknowledged = {cseq(ack) for ack in server.of("ACK")}
    assert acknowledged == {cseq(invite) for invite in server.of("INVITE")}
    call = edge.ended_call(carrier.sip_call_id)
    assert call.ended is not None
    assert call.ended.cause == "hangup"


def test_a_request_within_a_call_that_is_refused_its_credentials_is_given_up_and_the_call_goes_on(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    trunk = guarded(agent_port, password="wrong")
    edge.route([trunk], [number_on(trunk, number)])
    to = (edge.address, edge.sip_port)
    with challenger(AGENT, agent_port, ["MD5"], methods=("INFO",)) as server:
        with sipp("carrier_is_refused_an_info", folder, address=CARRIER, to=to, number=number) as carrier:
            carrier.wait()
        until("the server has its BYE", lambda: server.of("BYE"))
    assert carrier.final_code("2 INFO") == 500
    assert not any(header(message, "WWW-Authenticate") for message in carrier.received)
    assert len(server.of("INFO")) == 2
    call = edge.ended_call(carrier.sip_call_id)
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by) == ("hangup", "caller")
    assert "refuses the trunk's credentials within the call: INFO" in edge.log("kamailio")


def test_a_prack_names_the_invite_as_the_server_counts_it(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    """RFC 3262 section 7.2: RAck holds the CSeq of the INVITE, which was raised for its credentials."""
    trunk = guarded(agent_port)
    edge.route([trunk], [number_on(trunk, number)])
    to = (edge.address, edge.sip_port)
    with (
        sipp("agent_challenges_and_wants_prack", folder, address=AGENT, port=agent_port) as agent,
        sipp("carrier_sends_prack", folder, address=CARRIER, to=to, number=number) as carrier,
    ):
        carrier.wait()
        agent.wait()
    prack = next(message for message in agent.received if message.startswith("PRACK "))
    assert (header(prack, "RAck"), header(prack, "CSeq")) == ("1 2 INVITE", "3 PRACK")


def test_a_second_place_that_answers_is_acknowledged_as_the_server_counts(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    trunk, to = guarded(agent_port), (edge.address, edge.sip_port)
    edge.route([trunk], [number_on(trunk, number)])
    with (
        sipp("agent_challenges_and_answers_twice", folder, address=AGENT, port=agent_port) as agent,
        sipp("carrier_ends_a_second_answer", folder, address=CARRIER, to=to, number=number) as carrier,
    ):
        carrier.wait()
        agent.wait()
    acknowledged = {header(m, "CSeq") for m in agent.received if m.startswith("ACK ") and "second" in header(m, "To")}
    assert acknowledged == {"2 ACK"}
