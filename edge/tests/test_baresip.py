"""baresip as the trunk's server and as the carrier: a call between two clients that nobody here wrote."""

from pathlib import Path

import pytest
from baresip_tool import Baresip
from routes_of_tests import number_on, trunk_to
from running_edge import Call, RunningEdge, until
from sipp_tool import sipp

CARRIER, AGENT = "127.0.0.10", "127.0.0.11"
NAME = "sip.baresip.test"


@pytest.mark.parametrize("by", ["caller", "agent"])
def test_either_side_ends_the_call(edge: RunningEdge, number: str, folder: Path, by: str) -> None:
    with (
        Baresip.started(folder, AGENT, "agent") as agent,
        Baresip.started(folder, CARRIER, "carrier") as carrier,
    ):
        trunk = trunk_to(agent.port, server=AGENT, request_user=agent.user, allowed_addresses=(CARRIER,))
        edge.route([trunk], [number_on(trunk, number)])
        carrier.dial(f"sip:{number}@{edge.address}:{edge.sip_port}")
        for phone in (carrier, agent):
            phone.wait_for("CALL_ESTABLISHED")
            phone.wait_for("CALL_RTPESTAB")
        (carrier if by == "caller" else agent).hang_up()
        for phone in (carrier, agent):
            phone.wait_for("CALL_CLOSED")
    call = until("the end is told", lambda: next((c for c in edge.calls() if _is_to(c, number) and c.ended), None))
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by, call.ended.sip_code) == ("hangup", by, 200)
    assert set(call.kinds[:4]) == {"invited", "ringing", "answered", "ended"}


def test_a_carrier_that_writes_compact_headers(edge: RunningEdge, number: str, folder: Path) -> None:
    with Baresip.started(folder, AGENT, "agent") as agent:
        trunk = trunk_to(agent.port, server=AGENT, request_user=agent.user, allowed_addresses=(CARRIER,))
        edge.route([trunk], [number_on(trunk, number)])
        to = (edge.address, edge.sip_port)
        with sipp("carrier_is_brief", folder, address=CARRIER, to=to, number=number) as carrier:
            carrier.wait()
            agent.wait_for("CALL_CLOSED")
    call = until("the end is told", lambda: next((c for c in edge.calls() if _is_to(c, number) and c.ended), None))
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by, call.ended.sip_code) == ("hangup", "caller", 200)
    trace = until("the trace", lambda: edge.control_plane.traces.get(call.id))[-1]
    assert {message.leg for message in trace.messages} == {"carrier", "agent"}


@pytest.mark.parametrize(
    ("carriers", "agents", "codecs"),
    [
        ("udp", "tls", ("pcmu", "pcmu")),
        ("tls", "tls", ("pcma", "pcma")),
        ("tls", "udp", ("pcmu", "pcma")),
        ("tcp", "tcp", ("g722", "pcmu")),
    ],
)
def test_transports_and_encryption_in_any_mix(
    edge: RunningEdge, number: str, folder: Path, carriers: str, agents: str, codecs: tuple[str, str]
) -> None:
    """Over TLS, baresip insists on SRTP; where the sides share no codec, the edge transcodes."""
    certificate, key = edge.authority.issue(folder, NAME)
    both = folder / "certificate-and-key.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    with (
        Baresip.started(folder, AGENT, "agent", agents, both, codecs[1]) as agent,
        Baresip.started(folder, CARRIER, "carrier", carriers, both, codecs[0]) as carrier,
    ):
        policies = ["required" if transport == "tls" else "allowed" for transport in (carriers, agents)]
        # over TCP and TLS baresip calls from the address that its system chooses
        source = trunk_to(1, allowed_addresses=(CARRIER, "127.0.0.1"), media_encryption=policies[0])
        target = trunk_to(
            agent.listening_port,
            id="trunk_b",
            server=NAME,
            next_hop=f"{AGENT}:{agent.listening_port}",
            transport=agents,
            request_user=agent.user,
            media_encryption=policies[1],
            codecs=(codecs[1].upper(),),
            allowed_addresses=(),
        )
        edge.route([source, target], [number_on(source, number, agent_trunk_id=target.id)])
        port = edge.tls_port if carriers == "tls" else edge.sip_port
        carrier.dial(f"sip:{number}@{edge.address}:{port};transport={carriers}")
        for phone in (carrier, agent):
            phone.wait_for("CALL_ESTABLISHED")
            phone.wait_for("CALL_RTPESTAB")
        carrier.hang_up()
        agent.wait_for("CALL_CLOSED")
    call = until("the end is told", lambda: next((c for c in edge.calls() if _is_to(c, number) and c.ended), None))
    assert set(call.kinds[:4]) == {"invited", "ringing", "answered", "ended"}


def _is_to(call: Call, number: str) -> bool:
    return call.invited.to == number
