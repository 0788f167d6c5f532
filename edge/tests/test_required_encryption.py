"""Media that must be SRTP: whoever describes other media is cut off, and the caller and the record are told why."""

import base64
import re
from pathlib import Path

import msgspec
import pytest
from routes_of_tests import AGENT, CARRIER, number_on
from rtp_peer import PCMU, rtp_peer
from running_edge import Call, RunningEdge, until
from sipp_tool import SCENARIOS, Sipp, header, sipp
from test_media import KEY, NAME, SUITE, carrier_and_target, hear_each_other, talking
from tls_front import tls_front

from tests.ports import free_port

PLAIN, SECURE = "RTP/AVP 0", f"RTP/SAVP 0\r\na=crypto:1 {SUITE} {KEY}"
WEAK = f"RTP/SAVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_32 {KEY}"
UNPROTECTED = f"RTP/SAVP 0\r\na=crypto:1 {SUITE} {KEY} UNAUTHENTICATED_SRTP"
REQUIRED = {"media_encryption": "required"}


def called(
    edge: RunningEdge,
    folder: Path,
    number: str,
    carriers: tuple[str, str],
    agents: tuple[str, str],
    policies: tuple[dict[str, object], dict[str, object]],
) -> tuple[Call, Sipp, Sipp]:
    """Run a carrier's scenario against one of a server's, each with its media, to both ends."""
    port, inside = free_port(), free_port()
    trunks = carrier_and_target(port, *policies)
    edge.route(trunks, [number_on(trunks[0], number, agent_trunk_id=trunks[1].id)])
    is_tls = trunks[1].transport == "tls"
    to = (edge.address, edge.sip_port)

    def keys(media: str) -> list[tuple[str, str]]:
        return [("rtp_port", str(free_port())), ("media", media)]

    with sipp(
        agents[0],
        folder,
        address=AGENT,
        port=inside if is_tls else port,
        transport="t1" if is_tls else "u1",
        contact=f"{AGENT}:{port};transport={trunks[1].transport}",
        keys=keys(agents[1]),
    ) as server:
        if is_tls:
            with (
                tls_front(edge.authority.server_context(folder, NAME), AGENT, port, (AGENT, inside)),
                sipp(carriers[0], folder, address=CARRIER, to=to, number=number, keys=keys(carriers[1])) as client,
            ):
                client.wait()
                server.wait()
        else:
            with sipp(carriers[0], folder, address=CARRIER, to=to, number=number, keys=keys(carriers[1])) as client:
                client.wait()
                server.wait()
    return edge.ended_call(client.sip_call_id), client, server


@pytest.mark.parametrize("transport", ["udp", "tls"])
@pytest.mark.parametrize("answer", [PLAIN, WEAK, UNPROTECTED])
def test_a_server_that_answers_without_strong_encryption_is_cut_off(
    edge: RunningEdge, number: str, folder: Path, answer: str, transport: str
) -> None:
    policies: tuple[dict[str, object], dict[str, object]] = ({}, {**REQUIRED, "transport": transport})
    call, client, server = called(
        edge, folder, number, ("carrier_offers_in_vain", PLAIN), ("agent_answers_with", answer), policies
    )
    assert client.final_code() == 488
    requests = [(m.split()[0], header(m, "CSeq")) for m in server.received if not m.startswith("SIP/2.0")]
    # the CANCEL comes after the answer, and does nothing
    assert [r for r in requests if r[0] != "CANCEL"] == [("INVITE", "1 INVITE"), ("ACK", "1 ACK"), ("BYE", "2 BYE")]
    assert "answered" not in call.kinds
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by, call.ended.sip_code) == ("insecure_media", "edge", 488)


def test_early_media_that_is_not_encrypted_is_heard_by_nobody(edge: RunningEdge, number: str, folder: Path) -> None:
    call, client, _ = called(
        edge,
        folder,
        number,
        ("carrier_offers_in_vain", PLAIN),
        ("agent_sends_early_media_until_canceled", PLAIN),
        ({}, REQUIRED),
    )
    assert client.final_code() == 488
    assert not [m for m in client.received if m.startswith("SIP/2.0 183") and "m=audio" in m]
    assert call.ended is not None
    assert call.ended.cause == "insecure_media"


def test_an_offer_of_plain_rtp_within_an_encrypted_call_is_refused_and_the_call_goes_on(
    edge: RunningEdge, number: str, folder: Path
) -> None:
    call, _, server = called(
        edge,
        folder,
        number,
        ("carrier_turns_encryption_off", SECURE),
        ("agent_answers_with", PLAIN),
        (REQUIRED, {}),
    )
    assert len([m for m in server.received if m.startswith("INVITE")]) == 1
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by) == ("hangup", "caller")


def test_a_second_answer_that_is_not_encrypted_ends_the_call_at_both_sides(
    edge: RunningEdge, number: str, folder: Path
) -> None:
    call, client, _ = called(
        edge,
        folder,
        number,
        ("carrier_renegotiates_and_is_hung_up", PLAIN),
        ("agent_turns_encryption_off", SECURE),
        ({}, REQUIRED),
    )
    assert AGENT not in "".join(m.partition("\n\n")[2] for m in client.received)
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by) == ("insecure_media", "edge")


def keys_in(*sides: Sipp) -> set[bytes]:
    """Every key that stands in their messages: as written, and as it is used."""
    found = {key for side in sides for key in re.findall(r"inline:([A-Za-z0-9+/=]+)", side.messages)}
    return {key.encode() for key in found} | {base64.b64decode(key) for key in found}


def test_no_key_and_no_packet_is_left_after_a_recorded_call(edge: RunningEdge, number: str, folder: Path) -> None:
    policy = {**REQUIRED, "is_recorded": True}
    with (
        rtp_peer(CARRIER, PCMU, 440, SUITE) as caller,
        rtp_peer(AGENT, PCMU, 1000, SUITE) as agent,
        talking(edge, folder, number, caller, agent, policy, policy) as sides,
    ):
        hear_each_other(caller, agent)
    call = edge.ended_call(sides[0].sip_call_id)
    until("it is recorded", lambda: call.id in edge.control_plane.recordings)
    until("its trace is there", lambda: edge.control_plane.traces.get(call.id))
    captures = edge.folder / "edge" / "captures"
    until("the captures are gone", lambda: not [file for file in captures.rglob("*") if file.is_file()])
    keys = keys_in(*sides)
    assert len(keys) >= 8  # both sides' and both of ours
    kept = [file for place in (edge.folder, edge.run_dir) for file in place.rglob("*") if file.is_file()]
    assert len(kept) > 5
    handed_over = [msgspec.json.encode(edge.control_plane.traces[call.id]), edge.control_plane.recordings[call.id]]
    for content in (*handed_over, *(file.read_bytes() for file in kept)):
        assert not [key for key in keys if key in content]


def test_an_offer_that_no_content_type_announces_is_judged_like_any(
    edge: RunningEdge, number: str, folder: Path
) -> None:
    scenario = (SCENARIOS / "carrier_offers_in_vain.xml").read_text()
    unannounced = folder / "carrier_offers_without_content_type"
    unannounced.with_suffix(".xml").write_text(scenario.replace("      Content-Type: application/sdp\n", ""))
    trunks = carrier_and_target(1, REQUIRED)
    edge.route(trunks, [number_on(trunks[0], number, agent_trunk_id=trunks[1].id)])
    keys = [("rtp_port", "6000"), ("media", PLAIN)]
    to = (edge.address, edge.sip_port)
    with sipp(str(unannounced), folder, address=CARRIER, to=to, number=number, keys=keys) as carrier:
        carrier.wait()
    assert carrier.final_code() == 488
    assert edge.ended_call(carrier.sip_call_id).invited.refusal == "media_not_acceptable"
