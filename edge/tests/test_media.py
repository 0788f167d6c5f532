"""Media between a carrier and a trunk's server, proven by tones: encryption, codecs, telephone events."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from rtp_peer import G722, OPUS, PCMA, PCMU, Codec, RtpPeer, rtp_peer
from running_edge import Call, RunningEdge, until
from sipp_tool import Sipp, body, sipp
from tls_front import tls_front
from voxpria_routing.snapshot import Trunk

from tests.ports import free_port

SUITE = "AES_CM_128_HMAC_SHA1_80"
SUITES = ("AEAD_AES_256_GCM", "AEAD_AES_128_GCM", "AES_256_CM_HMAC_SHA1_80", SUITE)
"""In the order in which rtpengine offers them; a suite of the caller's comes first."""
NAME = "sip.media.test"


@contextlib.contextmanager
def talking(
    edge: RunningEdge,
    folder: Path,
    number: str,
    caller: RtpPeer,
    agent: RtpPeer,
    carrier: dict[str, object] | None = None,
    target: dict[str, object] | None = None,
) -> Iterator[tuple[Sipp, Sipp]]:
    """Set a call up between two peers, and let them talk; `carrier` and `target` change the trunks."""
    port, inside = free_port(), free_port()
    trunks = carrier_and_target(port, carrier, target)
    edge.route(trunks, [number_on(trunks[0], number, agent_trunk_id=trunks[1].id)])
    transport = trunks[1].transport
    to = (edge.address, edge.sip_port)
    if agent.suite:
        first = [caller.suite] if caller.suite else []
        agent.tag = list(dict.fromkeys([*first, *SUITES])).index(agent.suite) + 1
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            sipp(
                "agent_answers_with",
                folder,
                address=AGENT,
                port=inside if transport == "tls" else port,
                transport="t1" if transport == "tls" else "u1",
                contact=f"{AGENT}:{port};transport={transport}",
                keys=agent.keys,
            )
        )
        if transport == "tls":
            context = edge.authority.server_context(folder, NAME)
            stack.enter_context(tls_front(context, AGENT, port, (AGENT, inside)))
        extra = ("-d", "4000")
        client = stack.enter_context(
            sipp("carrier_offers", folder, address=CARRIER, to=to, number=number, keys=caller.keys, extra=extra)
        )
        agent.talk(until("the agent has an offer", lambda: offer_to(server)))
        caller.talk(until("the carrier has an answer", lambda: _sdp(client, "SIP/2.0 200")))
        yield client, server
        client.wait()
        server.wait()


def carrier_and_target(
    port: int, carrier: dict[str, object] | None = None, target: dict[str, object] | None = None
) -> list[Trunk]:
    """Return a trunk to call in through, and one whose server takes the calls."""
    target = {"id": "trunk_b", "allowed_addresses": (), **(target or {})}
    if target.get("transport") == "tls":
        target |= {"server": NAME, "next_hop": f"{AGENT}:{port}"}
    return [trunk_to(1, **(carrier or {})), trunk_to(port, **target)]


def offer_to(server: Sipp) -> str:
    return _sdp(server, "INVITE")


def _sdp(side: Sipp, start: str) -> str:
    return next((body(message) for message in side.received if message.startswith(start) and body(message)), "")


def hear_each_other(caller: RtpPeer, agent: RtpPeer) -> None:
    until("the agent hears the caller", lambda: abs(agent.heard_hertz() - caller.hertz) < 5, 10)
    until("the caller hears the agent", lambda: abs(caller.heard_hertz() - agent.hertz) < 5, 10)
    assert agent.heard.undecryptable == caller.heard.undecryptable == 0


def refused(edge: RunningEdge, folder: Path, number: str, media: str) -> tuple[int, Call]:
    """Place a call that is refused; return the code, and what was told."""
    to = (edge.address, edge.sip_port)
    keys = [("rtp_port", "6000"), ("media", media)]
    with sipp("carrier_offers_in_vain", folder, address=CARRIER, to=to, number=number, keys=keys) as carrier:
        carrier.wait()
    return carrier.final_code(), edge.ended_call(carrier.sip_call_id)


@pytest.mark.parametrize("agents", [None, SUITE, "AEAD_AES_256_GCM"])
@pytest.mark.parametrize("callers", [None, SUITE])
def test_each_leg_is_encrypted_as_its_trunk_says(
    edge: RunningEdge, number: str, folder: Path, callers: str | None, agents: str | None
) -> None:
    policies: list[dict[str, object]] = [
        {"media_encryption": "required" if suite else "disabled"} for suite in (callers, agents)
    ]
    with (
        rtp_peer(CARRIER, PCMU, 440, callers) as caller,
        rtp_peer(AGENT, PCMU, 1000, agents) as agent,
        talking(edge, folder, number, caller, agent, *policies) as (_, server),
    ):
        hear_each_other(caller, agent)
        for weak in ("NULL", "F8_", "_32", "fingerprint"):
            assert weak not in offer_to(server)


@pytest.mark.parametrize("agents", [None, SUITE])
def test_encryption_that_is_allowed_is_up_to_the_other_side_of_a_confidential_trunk(
    edge: RunningEdge, number: str, folder: Path, agents: str | None
) -> None:
    """RFC 8643: plain RTP with keys beside it, which a server may take up."""
    with (
        rtp_peer(CARRIER, PCMU, 440) as caller,
        rtp_peer(AGENT, PCMU, 1000, agents, profile="RTP/AVP") as agent,
        talking(edge, folder, number, caller, agent, target={"transport": "tls"}) as (_, server),
    ):
        hear_each_other(caller, agent)
        assert " RTP/AVP " in offer_to(server)
        assert "a=crypto:" in offer_to(server)


def test_keys_are_not_offered_where_anybody_could_read_them(edge: RunningEdge, number: str, folder: Path) -> None:
    with (
        rtp_peer(CARRIER, PCMU, 440) as caller,
        rtp_peer(AGENT, PCMU, 1000) as agent,
        talking(edge, folder, number, caller, agent) as (_, server),
    ):
        hear_each_other(caller, agent)
        assert "a=crypto:" not in offer_to(server)


def test_a_carrier_that_offers_keys_beside_plain_rtp_is_encrypted(edge: RunningEdge, number: str, folder: Path) -> None:
    with (
        rtp_peer(CARRIER, PCMU, 440, SUITE, profile="RTP/AVP") as caller,
        rtp_peer(AGENT, PCMU, 1000) as agent,
        talking(edge, folder, number, caller, agent, {"media_encryption": "required"}),
    ):
        hear_each_other(caller, agent)


KEY = "inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"


@pytest.mark.parametrize(
    ("policy", "media", "word"),
    [
        ({"media_encryption": "required"}, "RTP/AVP 0", "requires encrypted media"),
        ({"media_encryption": "disabled"}, f"RTP/SAVP 0\r\na=crypto:1 {SUITE} {KEY}", "disabled"),
        ({}, f"RTP/SAVP 0\r\na=crypto:1 NULL_HMAC_SHA1_80 {KEY}", "strong enough"),
        ({}, f"RTP/SAVP 0\r\na=crypto:1 {SUITE} {KEY} UNENCRYPTED_SRTP", "strong enough"),
        ({}, "RTP/SAVP 0", "strong enough"),
        ({}, "UDP/TLS/RTP/SAVP 0", "DTLS-SRTP"),
        ({"codecs": ("G722",)}, "RTP/AVP 0 8", "The carrier offers PCMU, PCMA; trunk The trunk takes G722."),
    ],
)
def test_an_offer_against_the_trunks_policy_is_refused_and_told_why(
    edge: RunningEdge, number: str, folder: Path, policy: dict[str, object], media: str, word: str
) -> None:
    trunks = carrier_and_target(1, policy)
    edge.route(trunks, [number_on(trunks[0], number, agent_trunk_id=trunks[1].id)])
    code, call = refused(edge, folder, number, media)
    assert code == 488
    assert word in call.invited.explanation.summary
    assert call.invited.explanation.mend


@pytest.mark.parametrize(
    ("callers", "agents", "listed"),
    [
        (PCMU, PCMA, ()),
        (PCMU, G722, ("G722",)),
        (PCMU, OPUS, ("opus", "PCMU")),
        (OPUS, PCMU, ()),
        (G722, OPUS, ("opus",)),
    ],
)
def test_sides_that_share_no_codec_hear_each_other(
    edge: RunningEdge, number: str, folder: Path, callers: Codec, agents: Codec, listed: tuple[str, ...]
) -> None:
    with (
        rtp_peer(CARRIER, callers, 440) as caller,
        rtp_peer(AGENT, agents, 1000) as agent,
        talking(edge, folder, number, caller, agent, target={"codecs": listed}) as (_, server),
    ):
        hear_each_other(caller, agent)
        if listed:
            names = [line.split()[1].split("/")[0] for line in offer_to(server).splitlines() if "a=rtpmap" in line]
            assert [name for name in names if name != "telephone-event"] == list(listed)


@pytest.mark.parametrize("agents", [PCMU, G722])
def test_digits_arrive_also_through_transcoding(edge: RunningEdge, number: str, folder: Path, agents: Codec) -> None:
    with (
        rtp_peer(CARRIER, PCMU, 440) as caller,
        rtp_peer(AGENT, agents, 1000) as agent,
        talking(edge, folder, number, caller, agent, target={"codecs": ("G722", "PCMU")}),
    ):
        hear_each_other(caller, agent)
        for digit in (1, 11):
            caller.press(digit)
        until("both digits came", lambda: agent.heard.events == [1, 11], 10)
