"""linphone as the carrier, over TLS, and as the trunk's server; it insists on SRTP, and its tone is heard.

Its SIP stack listens on a port for TLS and breaks off every connection to it ("New connection arriving on TLS, not
handled"): as a server it is reached over TLS only with something in front. baresip is proven over TLS in both roles.
"""

from pathlib import Path

import pytest
from baresip_tool import write_tone
from linphone_tool import Linphone
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from rtp_peer import PCMU, rtp_peer
from running_edge import RunningEdge, until
from sipp_tool import body, sipp
from test_media import NAME
from tls_front import tls_front

LINPHONE = "127.0.0.1"
"""It calls from, and listens on, what its system chooses."""
TONE = 440


def test_as_a_carrier_over_tls_with_srtp(edge: RunningEdge, number: str, agent_port: int, folder: Path) -> None:
    carrier = trunk_to(1, allowed_addresses=(LINPHONE,), media_encryption="required")
    target = trunk_to(agent_port, id="trunk_b", media_encryption="disabled", allowed_addresses=())
    edge.route([carrier, target], [number_on(carrier, number, agent_trunk_id=target.id)])
    write_tone(folder / "tone.wav")
    with (
        rtp_peer(AGENT, PCMU, 1000) as agent,
        sipp("agent_answers_with", folder, address=AGENT, port=agent_port, keys=agent.keys) as server,
        Linphone.started(folder, "carrier", edge.certificate, encrypts=True) as phone,
    ):
        phone.say(f"call sip:{number}@{edge.address}:{edge.tls_port};transport=tls")
        agent.talk(until("the INVITE came", lambda: next((body(m) for m in server.received if body(m)), "")))
        until("linphone has media", lambda: "Media streams established" in phone.output)
        phone.say(f"play {folder / 'tone.wav'}")
        until("the agent hears linphone", lambda: abs(agent.heard_hertz() - TONE) < 5, 10)
        phone.say("terminate")
        server.wait()
    assert "Negotiated media encryption is LinphoneMediaEncryptionSRTP" in phone.log
    (call,) = [call for call in edge.calls() if call.invited.to == number]
    assert set(edge.ended_call(call.invited.sip_call_id).kinds[:4]) == {"invited", "ringing", "answered", "ended"}


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_as_a_trunks_server_with_srtp(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, transport: str
) -> None:
    """TLS ends in front of it, as before many an operator's server."""
    write_tone(folder / "tone.wav")
    to, extra = (edge.address, edge.sip_port), ("-d", "5000")
    with (
        Linphone.started(folder, "agent", edge.certificate, encrypts=True) as phone,
        tls_front(edge.authority.server_context(folder, NAME), AGENT, agent_port, (LINPHONE, phone.port)),
        rtp_peer(CARRIER, PCMU, 1000) as caller,
    ):
        carrier = trunk_to(1, media_encryption="disabled")
        in_front = {"server": NAME, "next_hop": f"{AGENT}:{agent_port}"}
        target = trunk_to(
            phone.port,
            id="trunk_b",
            transport=transport,
            request_user="agent",
            media_encryption="required",
            allowed_addresses=(),
            **(in_front if transport == "tls" else {"server": LINPHONE}),
        )
        edge.route([carrier, target], [number_on(carrier, number, agent_trunk_id=target.id)])
        with sipp(
            "carrier_offers", folder, address=CARRIER, to=to, number=number, keys=caller.keys, extra=extra
        ) as client:
            caller.talk(until("an answer", lambda: next((body(m) for m in client.received if body(m)), "")))
            until("linphone has media", lambda: "Media streams established" in phone.output)
            phone.say(f"play {folder / 'tone.wav'}")
            until("the caller hears linphone", lambda: abs(caller.heard_hertz() - TONE) < 5, 10)
            client.wait()
    assert "Negotiated media encryption is LinphoneMediaEncryptionSRTP" in phone.log
