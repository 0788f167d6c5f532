"""Whatever became of a call, Kamailio keeps nothing of it: what is kept lets requests in, and fills its memory."""

import asyncio
import socket
from pathlib import Path

import pytest
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import RunningEdge, until
from sipp_tool import sipp
from voxpria_edge.proxy.kamailio import Rpc, RpcError

_OFFER = (
    "v=0\r\no=- 1 1 IN IP4 {0}\r\ns=-\r\nc=IN IP4 {0}\r\nt=0 0\r\nm=audio 40000 RTP/SAVP 0\r\n"
    "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\r\n"
)


def is_live(edge: RunningEdge, record: str) -> bool:
    """Tell whether Kamailio takes a call for one that is up."""
    try:
        asyncio.run(Rpc(edge.run_dir / "kamailio.sock").call("htable.get", "live", record))
    except RpcError as error:
        if "Key name doesn't exist" not in str(error):
            raise
        return False
    return True


@pytest.mark.parametrize(
    ("carriers", "agents"),
    [
        ("carrier_calls_and_hangs_up", "agent_answers"),
        ("carrier_is_refused", "agent_refuses"),
        ("carrier_asks_too_short_a_session", "agent_wants_a_longer_session"),
        ("carrier_cancels_while_it_rings", "agent_rings_until_canceled"),
        ("carrier_is_refused", None),
    ],
)
def test_a_call_that_is_over_is_not_taken_for_one_that_is_up(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, carriers: str, agents: str | None
) -> None:
    """Without an agent's scenario nobody is there."""
    trunk = trunk_to(agent_port)
    edge.route([trunk], [number_on(trunk, number)])
    to = (edge.address, edge.sip_port)
    with sipp(agents or "agent_answers", folder, address=AGENT, port=agent_port) as agent:
        if agents is None:
            agent.process.kill()
            agent.process.wait(10)
        with sipp(carriers, folder, address=CARRIER, to=to, number=number) as carrier:
            carrier.wait()
    call = edge.ended_call(carrier.sip_call_id)
    until("it is forgotten", lambda: not is_live(edge, call.id))


def entries(edge: RunningEdge, table: str) -> str:
    """Return all that Kamailio keeps in one of its tables."""
    return str(asyncio.run(Rpc(edge.run_dir / "kamailio.sock").call("htable.dump", table)))


@pytest.mark.parametrize("answer", ["401 Unauthorized", "486 Busy Here"])
def test_a_call_that_is_given_up_while_it_waits_for_the_agent_is_forgotten(
    edge: RunningEdge, number: str, agent_port: int, answer: str
) -> None:
    """The agent is held back: its word on the server's answer comes when the call is over."""
    trunk = trunk_to(agent_port, username="user", password="pass", media_encryption="required")
    edge.route([trunk], [number_on(trunk, number)])
    with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as carrier:
        server.bind((AGENT, agent_port))
        carrier.bind((CARRIER, 0))
        server.settimeout(60)
        carrier.settimeout(60)
        call_id, to = f"waits-{number[1:]}-{answer[:3]}", (edge.address, edge.sip_port)
        carrier.sendto(_request(edge, carrier, "INVITE", number, call_id), to)
        invite, sender = server.recvfrom(65536)
        with edge.paused("agent"):
            server.sendto(_answered(invite.decode(), answer), sender)
            until("Kamailio asks the agent", lambda: call_id in entries(edge, "asked"))
            carrier.sendto(_request(edge, carrier, "CANCEL", number, call_id), to)
            until("the caller has its answer", lambda: _final(carrier.recv(65536).decode()))
            # on a machine that is very slow the agent's two seconds are over before the CANCEL is there
            until("nobody waits for the agent", lambda: call_id not in entries(edge, "asked"))
        call = edge.ended_call(call_id)
        until("it is forgotten", lambda: not is_live(edge, call.id))
        assert call_id not in entries(edge, "secure")


def _request(edge: RunningEdge, carrier: socket.socket, method: str, number: str, call_id: str) -> bytes:
    host = "{}:{}".format(*carrier.getsockname())
    body = _OFFER.format(CARRIER) if method == "INVITE" else ""
    return (
        f"{method} sip:{number}@{edge.address} SIP/2.0\r\nVia: SIP/2.0/UDP {host};branch=z9hG4bK{call_id}\r\n"
        f"From: <sip:+13038921234@{host}>;tag=1\r\nTo: <sip:{number}@{edge.address}>\r\nCall-ID: {call_id}\r\n"
        f"CSeq: 1 {method}\r\nContact: <sip:carrier@{host}>\r\nMax-Forwards: 70\r\n"
        f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def _answered(invite: str, status: str) -> bytes:
    lines = invite.split("\r\n")
    echoed = [line for line in lines if line.partition(":")[0] in ("Via", "From", "Call-ID", "CSeq")]
    to = next(line for line in lines if line.startswith("To:")) + ";tag=server"
    challenge = 'WWW-Authenticate: Digest realm="r", nonce="n", algorithm=MD5'
    return "\r\n".join([f"SIP/2.0 {status}", *echoed, to, challenge, "Content-Length: 0", "", ""]).encode()


def _final(answer: str) -> bool:
    return answer.startswith(("SIP/2.0 487", "SIP/2.0 503"))
