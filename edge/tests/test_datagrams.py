"""What real devices do to datagrams and numbers in them: padding behind the body, zeros in front of CSeq's number."""

import socket

import pytest
from mutations import request
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import RunningEdge

_ANSWER = (
    "SIP/2.0 200 OK\r\n{echoed}Contact: <sip:agent@{host}:{port}>\r\nContent-Type: application/sdp\r\n"
    "Content-Length: {length}\r\n\r\n{body}"
)
_ECHOED = ("via", "from", "to", "call-id", "cseq", "record-route")


def parts(data: bytes) -> tuple[dict[str, str], bytes]:
    """Return headers, the last of each name, and what follows them."""
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")[1:]
    return {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines}, body


def answer_to(data: bytes, address: tuple[str, int]) -> bytes:
    lines = data.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    echoed = [line for line in lines if line.partition(":")[0].lower() in _ECHOED]
    echoed = [f"{line};tag=agent" if line.startswith("To:") else line for line in echoed]
    host, port = address
    body = f"v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n"
    text = "".join(f"{line}\r\n" for line in echoed)
    return _ANSWER.format(echoed=text, host=host, port=port, length=len(body), body=body).encode()


@pytest.mark.parametrize("padding", [b"\r\n", b"\x00" * 4, b"BYE sip:x@edge.example SIP/2.0\r\n\r\n"])
def test_what_comes_behind_the_body_goes_no_further(edge: RunningEdge, number: str, padding: bytes) -> None:
    """RFC 3261 section 18.3; of requests and of answers."""
    with socket.socket(type=socket.SOCK_DGRAM) as agent, socket.socket(type=socket.SOCK_DGRAM) as carrier:
        agent.bind((AGENT, 0))
        carrier.bind((CARRIER, 0))
        trunk = trunk_to(agent.getsockname()[1])
        edge.route([trunk], [number_on(trunk, number)])
        for each in (agent, carrier):
            each.settimeout(30)
        unique = f"padded{agent.getsockname()[1]}"
        invite = request("INVITE", number, carrier.getsockname(), unique=unique).replace(b"CSeq: 1 ", b"CSeq: 0001 ")
        carrier.sendto(invite + padding, (edge.address, edge.sip_port))
        got, edge_address = agent.recvfrom(65535)
        headers, body = parts(got)
        assert len(body) == int(headers["content-length"])
        assert not body.endswith(b"\r\n" + padding)
        agent.sendto(answer_to(got, agent.getsockname()) + padding, edge_address)
        answer = carrier.recv(65535)
        while not answer.startswith(b"SIP/2.0 200"):
            assert answer.startswith(b"SIP/2.0 1"), answer
            answer = carrier.recv(65535)
        headers, body = parts(answer)
        assert len(body) == int(headers["content-length"])
        assert not body.endswith(b"\r\n" + padding)
